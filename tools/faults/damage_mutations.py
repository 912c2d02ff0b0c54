"""How files go bad: flipped bits, zeroed pages, truncations, deletions, swaps, stale versions, links.

A mutation is one of ``MUTATIONS`` applied to one file of a kind; `mutate` gives None where it would change nothing.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .damage_specimen import Specimen

__all__ = ["KINDS", "MUTATIONS", "Done", "allowed", "files_of", "mutate"]

KINDS: dict[str, str] = {
    "weights": "runs/{run}/checkpoints/step-*/model.safetensors",
    "optimizer": "runs/{run}/checkpoints/step-*/optimizer.safetensors",
    "state": "runs/{run}/checkpoints/step-*/state.json",
    "manifest": "runs/{run}/checkpoints/step-*/manifest.json",
    "checkpoint": "runs/{run}/checkpoints/step-*",
    "recipe": "runs/{run}/recipe.json",
    "config": "runs/{run}/config.toml",
    "identity": "runs/{run}/run.json",
    "fit": "runs/{run}/fit.json",
    "tokenizer": "runs/{run}/tokenizer/*",
    "telemetry": "runs/{run}/telemetry/*.jsonl",
    "status": "runs/{run}/status.json",
    "limits": "runs/{run}/limits.json",
    "pins": "runs/{run}/checkpoints/pins.json",
    "quality": "runs/{run}/evals/quality.json",
    "chunks": "datasets/*/chunks/*/*.chunk",
    "dataset": "datasets/*/dataset.json",
}


@dataclass
class Done:
    """What was done, in words, and to which paths inside the home."""

    words: str
    paths: list[Path] = field(default_factory=list)


def files_of(home: Path, kind: str, run: str = "own") -> list[Path]:
    """Files (of the kind ``checkpoint`` folders) in a fixed order."""
    return sorted(home.glob(KINDS[kind].format(run=run)))


def allowed(kind: str, mutation: str) -> bool:
    """Whole checkpoints can only change places or vanish. Scores may be deleted and made again at any time, so another
    whole version of them is no damage."""
    whole = mutation in ("swap", "foreign", "stale", "delete")
    if kind == "checkpoint":
        return whole
    if mutation == "link" and kind in ("chunks", "dataset"):
        return False  # a dataset may lie elsewhere
    return not (kind == "quality" and whole)


def mutate(home: Path, specimen: Specimen, kind: str, mutation: str, dice: random.Random) -> Done | None:
    """Does it to a random file of the kind. None where nothing changed, or there is nothing to do it with."""
    files = files_of(home, kind)
    for path in dice.sample(files, len(files)):
        before = _content(path)
        done = MUTATIONS[mutation](path, home, specimen, kind, dice)
        if done is not None and (path.is_symlink() or not path.exists() or _content(path) != before):
            done.words = f"{mutation} of {path.relative_to(home)}{done.words}"
            done.paths = [each.relative_to(home) for each in (path, *done.paths)]
            return done
    return None


def _content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return {each.name: each.read_bytes() for each in files}


def _edit(change: Callable[[bytearray, random.Random], str]) -> Mutation:
    def edit(path: Path, home: Path, specimen: Specimen, kind: str, dice: random.Random) -> Done | None:
        data = bytearray(path.read_bytes())
        words = change(data, dice)
        path.write_bytes(data)
        return Done(words)

    return edit


def _flip(data: bytearray, dice: random.Random) -> str:
    at, bit = dice.randrange(len(data)), dice.randrange(8)
    data[at] ^= 1 << bit
    return f" at byte {at}, bit {bit}"


def _zero(data: bytearray, dice: random.Random) -> str:
    size = dice.choice((512, 4096))
    at = dice.randrange(0, len(data), size)
    data[at : at + size] = bytes(len(data[at : at + size]))
    return f" at byte {at}, page of {size}"


def _truncate(data: bytearray, dice: random.Random) -> str:
    size = dice.choice((0, len(data) - 1, dice.randrange(len(data))))
    del data[size:]
    return f" to {size} bytes"


def _append(data: bytearray, dice: random.Random) -> str:
    more = dice.choice((b"\n", bytes(512), dice.randbytes(40)))
    data += more
    return f" of {len(more)} bytes"


def _delete(path: Path, home: Path, specimen: Specimen, kind: str, dice: random.Random) -> Done | None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return Done("")


def _swap(path: Path, home: Path, specimen: Specimen, kind: str, dice: random.Random) -> Done | None:
    """Exchanges two files of one kind and name (chunks of any name)."""
    alike = [each for each in files_of(home, kind) if each != path and (kind != "tokenizer" or each.name == path.name)]
    if not alike:
        return None
    other, aside = dice.choice(alike), path.with_name("aside")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)
    return Done(f" with {other.relative_to(home)}", [other])


def _foreign(path: Path, home: Path, specimen: Specimen, kind: str, dice: random.Random) -> Done | None:
    """The same file of another run."""
    found = files_of(specimen.other, kind, "other")
    return _put(path, [each for each in found if each.name == path.name or kind == "chunks"], dice)


def _stale(path: Path, home: Path, specimen: Specimen, kind: str, dice: random.Random) -> Done | None:
    """The same file as it was after an earlier launch."""
    found = [past / path.relative_to(home) for past in specimen.past]
    return _put(path, [each for each in found if each.exists()], dice)


def _put(path: Path, found: list[Path], dice: random.Random) -> Done | None:
    found = [each for each in found if _content(each) != _content(path)]
    if not found:
        return None
    source = dice.choice(found)
    _delete(path, path, None, "", dice)  # type: ignore[arg-type]
    shutil.copytree(source, path) if source.is_dir() else shutil.copyfile(source, path)
    return Done(f" from {source.parent.parent.name}/{source.parent.name}/{source.name}")


def _link(path: Path, home: Path, specimen: Specimen, kind: str, dice: random.Random) -> Done | None:
    """The same bytes, but outside of the run."""
    elsewhere = home.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    return Done("")


Mutation = Callable[[Path, Path, Specimen, str, random.Random], Done | None]

MUTATIONS: dict[str, Mutation] = {
    "flip": _edit(_flip),
    "zero": _edit(_zero),
    "truncate": _edit(_truncate),
    "append": _edit(_append),
    "delete": _delete,
    "swap": _swap,
    "foreign": _foreign,
    "stale": _stale,
    "link": _link,
}
