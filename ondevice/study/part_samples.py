"""What the checkpoint of every part of a chain writes after the same prompts, and what got worse from part to part.

Generations are kept as ``evals/part-<step>-<key>.jsonl``, a slice of prompts at a time, so that a killed study goes on
behind the last whole slice, to the same bytes; ``part-<step>-<key>.json`` (sealed, written last) has their measures and
says that they are complete. The key is a hash over weights, prompts and settings. ``parts-<key>.json`` has it all.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ondevice.errors import CheckpointError, DataError, OndeviceError, RunBusy, UsageError
from ondevice.evaluate.degeneration import DEGENERATION_VERSION, Tokens, degeneration
from ondevice.infer.sampling import Sampling
from ondevice.run.directory import RunDir
from ondevice.run.files import (
    fsync_folder,
    json_bytes,
    make_folder,
    read_sealed,
    sha256_of,
    write_all,
    write_error,
    write_sealed,
)
from ondevice.run.schedule import Part, schedule_of
from ondevice.run.telemetry import read_records
from ondevice.study import evaluation
from ondevice.study.prompts import Prompt, PromptSet
from ondevice.study.regressions import REGRESSIONS_VERSION, Answers, changes, is_right
from ondevice.study.target import Target, open_run_step

__all__ = ["PARTS_VERSION", "sample_parts"]

PARTS_VERSION = 1
_SLICE = 64  # prompts; of another number the batches, and with them the last bits, would be others

Progress = Callable[[str], None]


def sample_parts(
    run: RunDir,
    prompts: PromptSet,
    *,
    sampling: Sampling,
    max_new_tokens: int,
    threads: int | None = None,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """The study as it is kept. Parts whose checkpoint is gone or damaged are named and passed over.

    Raises UsageError for a run without parts or with none done, RunBusy where another process writes the same,
    ResourceError on a full disk.
    """
    recipe = run.read_recipe()
    if not recipe.data.parts:
        raise UsageError(f"{run.name}: is trained in one go, not in parts; `ondevice select` compares its checkpoints.")
    done = [part for part in schedule_of(recipe, read_records(run.telemetry)).parts if part.state == "done"]
    if not done:
        raise UsageError(f"{run.name}: no part is done yet; train one with `ondevice train {run.name} --parts 1`.")
    wish = evaluation.Wish(prompts=prompts, sampling=sampling, max_new_tokens=max_new_tokens, losses=False)
    found, skipped, dataset = list[dict[str, Any]](), list[dict[str, Any]](), None
    for place, part in enumerate(done, 1):
        try:
            with open_run_step(run, part.last_step, threads=threads, dataset=dataset) as target:
                _refuse_other(target, part)
                dataset = dataset or target.dataset
                progress(f"part {part.name} ({place} of {len(done)})")
                found.append(_of_part(target, part, prompts, wish))
        except CheckpointError as error:
            skipped.append({"part": part.name, "step": part.last_step, "why": str(error)})
            progress(f"part {part.name} left out: {error}")
    return _keep(run, found, skipped, prompts, wish)


def _refuse_other(target: Target, part: Part) -> None:
    promoted = part.results.get("checkpoint_out") or {}
    if promoted.get("sha256") not in (None, target.identity):
        raise CheckpointError(f"step {part.last_step}: not the checkpoint that part {part.name} led to.")


def _key(target: str, prompts: PromptSet, wish: evaluation.Wish) -> str:
    parts = [PARTS_VERSION, REGRESSIONS_VERSION, DEGENERATION_VERSION, target, prompts.sha256]
    return hashlib.sha256(json.dumps([*parts, asdict(wish.sampling), wish.max_new_tokens]).encode()).hexdigest()


def _of_part(target: Target, part: Part, prompts: PromptSet, wish: evaluation.Wish) -> dict[str, Any]:
    """The measures of a part, with its rows; generated where they are not there."""
    key = _key(target.identity, prompts, wish)
    place = target.evals / f"part-{part.last_step:08d}-{key[:12]}.json"
    raw = place.with_suffix(".jsonl")
    kept = _complete(place, raw, key)
    if kept is None:
        try:
            make_folder(target.evals)
            _write_rows(raw, target, prompts.prompts, wish)
            fsync_folder(target.evals)
        except OSError as error:
            raise write_error(raw, error) from error
        kept = _measured(key, part, raw, _rows(raw))
        write_sealed(place, kept)
    return {**kept, "rows": _rows(raw)}


def _complete(place: Path, raw: Path, key: str) -> dict[str, Any] | None:
    with suppress(OndeviceError, OSError, KeyError, TypeError):
        body = read_sealed(place, version=PARTS_VERSION)
        if body["key"] == key and sha256_of(raw) == body["generations"]["sha256"]:
            return {name: value for name, value in body.items() if name != "sha256"}
    return None


def _write_rows(raw: Path, target: Target, prompts: tuple[Prompt, ...], wish: evaluation.Wish) -> None:
    """Appends the slices of prompts that the file has not."""
    with _alone(raw) as descriptor:
        size, count = _whole_slices(raw)
        os.ftruncate(descriptor, size)
        for start in range(count, len(prompts), _SLICE):
            some = prompts[start : start + _SLICE]
            written, texts = evaluation.write_all(target, some, wish)
            rows = zip(range(start, len(prompts)), some, written, texts, strict=False)
            lines = [
                json_bytes(
                    {
                        "n": number,
                        **{name: value for name, value in asdict(prompt).items() if name != "before"},
                        "text": text,
                        "ids": list(each.ids),
                        "finish": each.finish,
                        "note": each.note,
                        "right": is_right(text, expected=prompt.expected, contains=prompt.contains),
                    }
                )
                for number, prompt, each, text in rows
            ]
            write_all(descriptor, b"".join(lines))
            os.fsync(descriptor)


@contextmanager
def _alone(raw: Path) -> Iterator[int]:
    """The file open for appending, for one process at a time."""
    descriptor = os.open(raw, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    except BlockingIOError as error:
        raise RunBusy(f"{raw}: another process writes these samples now; wait for it to end.") from error
    finally:
        os.close(descriptor)


def _whole_slices(raw: Path) -> tuple[int, int]:
    """Bytes and rows up to the last whole slice of sound rows."""
    size = count = at = 0
    with open(raw, "rb") as file:
        for number, line in enumerate(file):
            try:
                row = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or not isinstance(row, dict) or row.get("n") != number:
                break
            at += len(line)
            if (number + 1) % _SLICE == 0:
                size, count = at, number + 1
    return size, count


def _rows(raw: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in raw.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{raw}: cannot be read back ({error}); repeat the command.") from error


def _measured(key: str, part: Part, raw: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    tokens = [Tokens(ids=tuple(row["ids"]), finish=row["finish"]) for row in rows]
    asked = [row["right"] for row in rows if row["right"] is not None]
    return {
        "v": PARTS_VERSION,
        "key": key,
        "part": part.name,
        "stage": part.stage,
        "step": part.last_step,
        "degeneration": degeneration(tokens).to_json(),
        "answers": {"n": len(asked), "right": sum(asked)} if asked else None,
        "generations": {"file": raw.name, "sha256": sha256_of(raw)},
    }


def _keep(
    run: RunDir,
    found: list[dict[str, Any]],
    skipped: list[dict[str, Any]],
    prompts: PromptSet,
    wish: evaluation.Wish,
) -> dict[str, Any]:
    if not found:
        raise CheckpointError(f"{run.name}: no checkpoint of a part is sound ({skipped[0]['why']}).")
    answers = [
        Answers(
            part=each["part"],
            step=each["step"],
            ids=tuple(tuple(row["ids"]) for row in each["rows"]),
            right=tuple(row["right"] for row in each["rows"]),
        )
        for each in found
    ]
    body = {
        "v": PARTS_VERSION,
        "run": run.name,
        "prompts": {"origin": prompts.origin, "n": len(prompts.prompts), "sha256": prompts.sha256},
        "sampling": {**asdict(wish.sampling), "max_new_tokens": wish.max_new_tokens},
        "parts": [{name: value for name, value in each.items() if name not in ("rows", "v")} for each in found],
        "changes": [change.to_json() for change in changes(answers)],
        "skipped": skipped,
    }
    write_sealed(run.evals / f"parts-{_key('', prompts, wish)[:12]}.json", body)
    return body
