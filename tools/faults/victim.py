"""What a trainer does to its run's folder, one act at a time, in a process that a fault may hit at any system call.

    python -m tools.faults.victim ACT FOLDER [--fsize BYTES]

Works through the public functions of ``ondevice.run`` and on a folder made by `prepare`; starts no torch. Asks for
two files that never exist, ``.begin`` and ``.end``, around the act, so that a trace shows where it is. Ends with the
exit code and the sentence of an error, as the program itself does.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import DataError, OndeviceError
from ondevice.run.config import write_limits
from ondevice.run.control import discard, pending, send
from ondevice.run.create import create_run, remove_run, rename_run
from ondevice.run.directory import RunDir, offline_lock
from ondevice.run.files import is_gone, write_atomic
from ondevice.run.liveness import write_status
from ondevice.run.recipe import DataRecipe, EvalRecipe, Fit, ModelShape, Recipe, SampleRecipe, TrainRecipe
from ondevice.run.schema import Limits
from ondevice.run.store import Store
from ondevice.run.telemetry import TelemetryWriter

__all__ = ["ACTS", "FIT", "RECIPE", "Act", "content", "do", "environment", "main", "make_run", "prepare", "save"]

RECIPE = Recipe(
    model=ModelShape(arch="llama", vocab_size=256, context=64, layers=2, width=32, heads=2, kv_heads=2, hidden=64),
    data=DataRecipe(
        dataset="d",
        dataset_sha256="0" * 64,
        tokenizer_sha256="1" * 64,
        order="shuffled",
        order_sha256="2" * 64,
        seed=1,
        weights={"text": 1.0},
        train_tokens=10_000,
    ),
    train=TrainRecipe(
        steps=100,
        tokens=25_600,
        batch=4,
        optimizer="adamw",
        optimizer_state="fp32",
        lr=1e-3,
        lr_min=1e-4,
        schedule="cosine",
        warmup_steps=1,
        tail="none",
        tail_steps=0,
        weight_decay=0.1,
        beta1=0.9,
        beta2=0.95,
        eps=1e-8,
        clip=1.0,
        seed=1,
        precision="fp32",
    ),
    eval=EvalRecipe(steps=(0, 100), max_tokens=1024),
    sample=SampleRecipe(
        steps=(),
        prompts=(),
        max_new_tokens=8,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        repetition_penalty=1.0,
        seed=1,
    ),
)
FIT = Fit(micro_batch=4, threads=1, activation_checkpointing=False, loss_chunk_tokens=256)
ROOT = Path(__file__).resolve().parents[2]
SIZES = {"model.safetensors": 50_000, "optimizer.safetensors": 100_000}


def environment() -> dict[str, str]:
    """A victim finds the code, and computes with one thread."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def content(name: str, step: int) -> bytes:
    """The bytes that a file of a checkpoint must have."""
    if name not in SIZES:
        return json.dumps({"step": step, "cursor": [step] * 40}).encode()
    return random.Random(f"{name} {step}").randbytes(SIZES[name])


def save(store: Store, step: int, **facts: Any) -> str:
    """Commits a checkpoint as the trainer does, two files of several writes and a small one; gives its hash."""
    with store.draft(step) as draft:
        for name in SIZES:
            data = content(name, step)
            with draft.file(name) as file:
                for begin in (0, 8, 1_000, 30_000):
                    end = {0: 8, 8: 1_000, 1_000: 30_000}.get(begin, len(data))
                    file.write(data[begin:end])
        with draft.file("state.json") as file:
            file.write(content("state.json", step))
        return draft.commit({"step": step, "recipe_sha256": RECIPE.sha256, **facts}).sha256


def make_run(path: Path) -> RunDir:
    """A new run with its papers."""

    def tokenizer(folder: Path) -> None:
        folder.mkdir(mode=0o700)
        write_atomic(folder / "tokenizer.json", b'{"kind": "byte"}\n')

    return create_run(path, config_toml="# a wish\n", recipe=RECIPE, fit=FIT, save_tokenizer=tokenizer)


def prepare(root: Path) -> None:
    """A folder of one run with checkpoints 1, 2 and 3, the first one pinned, a status, limits, a story, a letter."""
    run = make_run(root / "first")
    store = Store(run.checkpoints)
    for step in (1, 2, 3):
        save(store, step)
    store.pin(1, "first")
    _status(run, step=3)
    write_limits(run.limits, Limits(keep_last=3))
    _story(run)
    send(run, "pause", sender="test")
    with offline_lock(run, what="test"):
        pass


def _status(run: RunDir, *, step: int) -> None:
    write_status(run, {"step": step, "state": "waiting", "hold": "disk full"}, durable=True)


def _story(run: RunDir) -> None:
    """A launch of six lines, made durable after the third and the last. Raises DataError when a line was lost."""
    story = TelemetryWriter(run.telemetry, run.next_launch())
    try:
        for number in range(6):
            story.write("step", number, loss=1.0 / (1 + number), note="x" * 40 * number)
            if number in (2, 5):
                story.sync()
    finally:
        story.close()
    if story.lost_lines:
        raise DataError(f"{story.path}: {story.lost_lines} lines were lost.")


def _lighten(run: RunDir) -> None:
    if not Store(run.checkpoints).lighten(1):
        raise DataError(f"{run.checkpoints}: step 1 is left for the next time.")


def _prune(run: RunDir) -> None:
    store = Store(run.checkpoints)
    store.prune({1, 3} | store.pins().keys())
    if 2 in store.steps():
        raise DataError(f"{store.path(2)}: left for the next time.")


def _save_and_prune(run: RunDir) -> None:
    """The order in which the trainer keeps checkpoints: commit, read back, prune."""
    store = Store(run.checkpoints)
    save(store, 4)
    store.open(4)
    store.prune({3, 4} | store.pins().keys())
    if 2 in store.steps():
        raise DataError(f"{store.path(2)}: left for the next time.")


def _discard(run: RunDir) -> None:
    for letter in pending(run):
        discard(run, letter)
    if pending(run):
        raise DataError(f"{run.inbox}: letters are left.")


def _create(run: RunDir) -> None:
    if not os.path.lexists(run.path.parent / "second"):
        make_run(run.path.parent / "second")


def _rename(run: RunDir) -> None:
    if not is_gone(run.path):
        rename_run(run, "renamed")


def _remove(run: RunDir) -> None:
    if not is_gone(run.path):
        remove_run(run)


@dataclass(frozen=True)
class Act:
    """Something that is done to a run. ``locked``: by the holder of the run's lock, as the trainer is."""

    name: str
    do: Callable[[RunDir], object]
    locked: bool = True


def _acts() -> list[Act]:
    def store(run: RunDir) -> Store:
        return Store(run.checkpoints)

    return [
        Act("save", lambda run: save(store(run), 4)),
        Act("save again", lambda run: save(store(run), 3)),
        Act("read back", lambda run: store(run).open(3)),
        Act("prune", _prune),
        Act("save and prune", _save_and_prune),
        Act("lighten", _lighten),
        Act("pin", lambda run: store(run).pin(2, "best")),
        Act("unpin", lambda run: store(run).pin(1, None)),
        Act("status", lambda run: _status(run, step=4)),
        Act("limits", lambda run: write_limits(run.limits, Limits(keep_last=5))),
        Act("story", _story),
        Act("lock", lambda run: None, locked=False),
        Act("letter", lambda run: send(run, "save", sender="test"), locked=False),
        Act("answered letter", _discard),
        Act("create run", _create, locked=False),
        Act("rename run", _rename, locked=False),
        Act("remove run", _remove, locked=False),
    ]


ACTS = {act.name: act for act in _acts()}


def do(name: str, root: Path) -> None:
    """Does an act between its two marks. Raises OndeviceError."""
    run = RunDir(root / "first")
    act = ACTS[name]
    with offline_lock(run, what="test") if act.locked else nullcontext():
        os.access(root / ".begin", os.F_OK)
        if name == "lock":
            with offline_lock(run, what="test"):
                pass
        act.do(run)
        os.access(root / ".end", os.F_OK)


def main(words: list[str]) -> int:
    """Does what the command says; gives the exit code."""
    name, folder, *options = words
    if options:
        size = int(options[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        do(name, Path(folder))
    except OndeviceError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
