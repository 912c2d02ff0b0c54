"""Damage to every kind of file of a run: is all of it noticed, is nothing valid lost, does the run go on?

After each damage: `verify_run` must find it; what loads must be what was written; doctor must mend what can be derived
and delete nothing valid; the newest checkpoint that was not hit must be the one to go on from; and a second doctor
finds nothing. Some runs then really go on, and must end with the same weights.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from ondevice.data.parcel import open_dataset
from ondevice.data.tokenizer import load_tokenizer
from ondevice.errors import OndeviceError
from ondevice.run.config import read_limits
from ondevice.run.directory import RunDir, offline_lock
from ondevice.run.finding import DAMAGE, Finding
from ondevice.run.liveness import read_status
from ondevice.run.repair import Before, repair
from ondevice.run.store import Store
from ondevice.run.verify_checkpoints import DAMAGED
from ondevice.train.verify import verify_run

from .damage_mutations import KINDS, MUTATIONS, Done, allowed, mutate
from .damage_specimen import Specimen, at_home, go_on, make_specimen
from .table import Row

__all__ = ["Campaign", "bytes_of", "run"]

_TRIALS = {True: 1200, False: 120}
_GO_ON_EVERY = 20
_WHOLE = ("stale", "foreign", "swap")  # a whole valid file: what it holds is not what loads wrong
_REFUSED = {"telemetry", "chunks", "dataset", "quality"}  # what doctor leaves to a person
_PAPERS = ("recipe", "config", "identity", "fit", "tokenizer")


def run(*, full: bool, folder: Path, seed: int) -> list[Row]:
    """A row for each way to go bad; with ``full`` at least 1,000 trials in all."""
    specimen = make_specimen(folder / "damage")
    return Campaign(specimen, folder / "damage" / "trial", random.Random(seed)).run(trials=_TRIALS[full])


@dataclass
class Campaign:
    """Trials over one specimen. ``truth`` are the bytes of all its files, ``written`` what they load as."""

    specimen: Specimen
    folder: Path
    dice: random.Random
    truth: dict[Path, bytes] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    trials: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    silent: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)
    continued: int = 0

    def __post_init__(self) -> None:
        self.truth = bytes_of(self.specimen.home)
        with at_home(self.specimen.home):
            self.written = {name: load(self.specimen.run) for name, load in _LOADS.items()}

    def run(self, *, trials: int) -> list[Row]:
        pairs = [(kind, mutation) for kind in KINDS for mutation in MUTATIONS if allowed(kind, mutation)]
        self.dice.shuffle(pairs)
        for kind, mutation in cycle(pairs):
            if self.trials.total() >= trials:
                break
            self.trial(kind, mutation)
        return [self._row(mutation) for mutation in MUTATIONS]

    def _row(self, mutation: str) -> Row:
        told = [text for text in self.words if text.startswith(mutation)]
        detail = "\n".join(told[:10])
        if mutation == next(iter(MUTATIONS)):
            detail = f"{len(KINDS)} kinds of files; {self.continued} runs were trained on to their end\n{detail}"
        part = f"damage: {mutation}"
        return Row(part, self.trials[mutation], self.losses[mutation], self.silent[mutation], detail)

    def fresh_home(self) -> Path:
        """A copy of the specimen as it was; that of the trial before is used again."""
        home = self.folder / "home"
        if home.exists():
            _restore(home, self.truth)
        else:
            shutil.copytree(self.specimen.home, home)
        return home

    def trial(self, kind: str, mutation: str) -> None:
        """One damage and everything that is looked at after it; a damage that changes nothing is no trial."""
        home = self.fresh_home()
        done = mutate(home, self.specimen, kind, mutation, self.dice)
        if done is None:
            return
        self.trials[mutation] += 1
        run_dir = RunDir(home / "runs" / "own")
        with at_home(home):
            silent = [*self._unnoticed(run_dir), *self._wrong_loads(run_dir, kind, mutation)]
            losses = [*self._after_doctor(run_dir, kind, done), *self._fallback(run_dir, done)]
            if self.trials.total() % _GO_ON_EVERY == 0 and kind not in _REFUSED and not losses:
                losses += self._end(run_dir)
        self.silent[mutation] += bool(silent)
        self.losses[mutation] += bool(losses)
        self.words += [f"{done.words}: {text}" for text in (*silent, *losses)]

    def _unnoticed(self, run_dir: RunDir) -> Iterator[str]:
        if not _damage(verify_run(run_dir)):
            yield "verify finds nothing"

    def _wrong_loads(self, run_dir: RunDir, kind: str, mutation: str) -> Iterator[str]:
        """What is read without an error and is not what was written; ``kind`` and ``mutation`` were done to it."""
        for name, load in _LOADS.items():
            if name == "limits" and kind != "limits":
                continue  # a slow one
            try:
                found = load(run_dir)
            except OndeviceError:
                continue
            own_word = mutation in _WHOLE and name in _OWN_WORD.get(kind, ())
            if found not in (None, {}, self.written[name]) and not own_word:
                yield f"{name} loads as something else"
        store = Store(run_dir.checkpoints)
        checkpoint, _ = store.latest(complete=True)
        if checkpoint is not None and kind != "checkpoint":
            yield from self._not_as_saved(checkpoint.path, run_dir.path.parent.parent)

    def _not_as_saved(self, path: Path, home: Path) -> Iterator[str]:
        for file in sorted(path.iterdir()):
            if self.truth.get(file.relative_to(home)) != file.read_bytes():
                yield f"{path.name}/{file.name} verifies and is not what was saved"

    def _after_doctor(self, run_dir: RunDir, kind: str, done: Done) -> Iterator[str]:
        before = Before.of(run_dir)
        with offline_lock(run_dir, what="campaign"):
            repair(run_dir, before)
            again = repair(run_dir, Before.of(run_dir))
        if again:
            yield f"a second doctor still mends {again[0].file}: {again[0].text}"
        yield from self._deleted(run_dir, done)
        left = _damage(verify_run(run_dir))
        may_stay = kind in _REFUSED or any("gone, and nothing says" in finding.text for finding in left)
        if left and not may_stay:
            yield f"doctor leaves {left[0].file}: {left[0].text}"
        for path in done.paths:
            if kind in _PAPERS and self._now(run_dir, path) != self.truth[path]:
                yield f"doctor made something else of {path.name}"
        if kind == "status" and not _LOADS["status"](run_dir):
            yield "there is no status"
        if kind in ("limits", "pins") and _LOADS[kind](run_dir) != self.written[kind]:
            yield f"{kind} are not what they were"

    def _now(self, run_dir: RunDir, path: Path) -> bytes:
        file = run_dir.path.parent.parent / path
        return file.read_bytes() if file.is_file() and not file.is_symlink() else b""

    def _deleted(self, run_dir: RunDir, done: Done) -> Iterator[str]:
        """Files that nothing had been done to and that are neither in their place nor set aside."""
        home = run_dir.path.parent.parent
        kept = {file.read_bytes() for file in (run_dir.path / DAMAGED).rglob("*") if file.is_file()}
        for path, data in self.truth.items():
            if {path, *path.parents} & set(done.paths) or path.name in ("status.json", "trainer.lock"):
                continue
            file = home / path
            if (not file.is_file() or file.read_bytes() != data) and data not in kept:
                yield f"{path} is gone or changed"

    def _fallback(self, run_dir: RunDir, done: Done) -> Iterator[str]:
        """The newest complete checkpoint that nothing was done to is the one to go on from."""
        touched = {part for path in done.paths for part in path.parts if part.startswith("step-")}
        store = Store(self.specimen.run.checkpoints)
        expected = max(step for step in store.complete_steps() if store.path(step).name not in touched)
        found, _ = Store(run_dir.checkpoints).latest(complete=True)
        if found is None or found.step != expected:
            yield f"goes on from step {found and found.step}, not from {expected}"
        else:
            yield from self._not_as_saved(found.path, run_dir.path.parent.parent)

    def _end(self, run_dir: RunDir) -> Iterator[str]:
        """Trains on to the last step, whose tensors must be what they were."""
        self.continued += 1
        try:
            go_on(run_dir)
        except OndeviceError as error:
            yield f"does not go on: {error}"
            return
        last = max(Store(self.specimen.run.checkpoints).steps())
        ended, own = Store(run_dir.checkpoints).path(last), Store(self.specimen.run.checkpoints).path(last)
        for name in ("model.safetensors", "optimizer.safetensors"):
            if not (ended / name).is_file() or (ended / name).read_bytes() != (own / name).read_bytes():
                yield f"ends with another {name}"


def bytes_of(home: Path) -> dict[Path, bytes]:
    """Every file below a folder."""
    return {path.relative_to(home): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}


def _restore(home: Path, truth: dict[Path, bytes]) -> None:
    """Back to these files and no others, writing and deleting as little as needed."""
    folders = {folder for path in truth for folder in path.parents}
    for path in sorted(home.rglob("*"), reverse=True):
        name = path.relative_to(home)
        if path.is_dir() and not path.is_symlink():
            if name not in folders and not any(path.iterdir()):
                path.rmdir()
        elif path.is_symlink() or name not in truth:
            path.unlink()
    for name, data in truth.items():
        if not (home / name).is_file() or (home / name).read_bytes() != data:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_bytes(data)


def _damage(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == DAMAGE]


def _tokens(run_dir: RunDir) -> list[list[int]]:
    dataset = open_dataset(run_dir.read_recipe().data)
    streams = [dataset.stream(entry.name, split) for entry in dataset.sources for split in ("train", "val")]
    return [stream.read(0, len(stream)).tolist() for stream in streams]


_LOADS: dict[str, Callable[[RunDir], Any]] = {
    "recipe": lambda run_dir: run_dir.read_recipe().sha256,
    "identity": lambda run_dir: run_dir.read_identity(),
    "limits": lambda run_dir: read_limits(run_dir.limits) if run_dir.limits.exists() else None,
    "pins": lambda run_dir: Store(run_dir.checkpoints).pins(),
    "status": read_status,
    "tokens": _tokens,
    "tokenizer": lambda run_dir: load_tokenizer(run_dir.tokenizer).sha256,
}
_OWN_WORD = {
    "recipe": ("recipe", "tokens"),
    "identity": ("identity",),
    "limits": ("limits",),
    "pins": ("pins",),
    "status": ("status",),
}
