"""The evaluation of one model: losses, degeneration, quality, probes, language use; raw generations kept.

Deterministic: the same model, prompts and settings give the same file, byte for byte, under a name made of their
hashes, so that a repeated evaluation reads it instead. Results are ``panel-<step>-<key>.json`` (sealed) and the
generations beside it as JSONL, both written beside and renamed; ``panel-<step>-<key>.part`` holds what an evaluation
that was cut off had found, and the next goes on from it.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ondevice.errors import DeviceError, OndeviceError, UsageError
from ondevice.evaluate.backend_losses import backend_losses
from ondevice.evaluate.code_lexer import is_code
from ondevice.evaluate.degeneration import DEGENERATION_VERSION, Tokens, degeneration
from ondevice.evaluate.losses import Evaluation, SourceLoss, language_losses, mixed_loss
from ondevice.evaluate.natural_language import LANGUAGE_VERSION, language_use, open_identifier
from ondevice.evaluate.probes import Probe, measure_probes, probe_summary
from ondevice.evaluate.task import TASK_VERSION, judge, task_score
from ondevice.infer.batch import Written, generate_batch
from ondevice.infer.sampling import Sampling
from ondevice.run.files import json_bytes, make_folder, read_sealed, sha256_of, write_atomic, write_error, write_sealed
from ondevice.study.journal import Journal
from ondevice.study.judges import JUDGES_VERSION, Judges
from ondevice.study.prompts import Prompt, PromptSet, cut_prompts
from ondevice.study.target import Target

__all__ = ["PANEL_VERSION", "Wish", "default_prompts", "evaluate"]

PANEL_VERSION = 2
_LOSSES = "losses"
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is measured. ``prompts`` None: cut from the validation text, ``per_source`` each. ``loss_tokens`` of each
    source (0 or None: all); ``losses`` False leaves them out, for sweeps. ``cache_mb`` bounds the keys and values of
    the prompts that are written at once."""

    prompts: PromptSet | None = None
    per_source: int = 20
    prompt_tokens: int = 48
    max_new_tokens: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    loss_tokens: int | None = None
    losses: bool = True
    cache_mb: float = 128.0


def default_prompts(target: Target, wish: Wish) -> PromptSet:
    """The prompts of a wish. Raises UsageError where there is no text to cut them from."""
    if wish.prompts is not None:
        return wish.prompts
    if target.dataset is None:
        raise UsageError(f"{target.name}: no text to cut prompts from ({target.no_dataset}) Give some with --prompts.")
    size = max(1, min(wish.prompt_tokens, target.backend.context // 2))
    return cut_prompts(target.dataset, per_source=wish.per_source, prompt_tokens=size, new_tokens=wish.max_new_tokens)


def evaluate(
    target: Target,
    wish: Wish,
    *,
    judges: Judges | None = None,
    told: Mapping[str, SourceLoss] | None = None,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """The result as it is kept. ``judges`` saves making them again for many checkpoints of one dataset; ``told`` are
    the losses that the trainer measured of these weights on the windows that the wish names.

    Raises UsageError without prompts, CheckpointError for broken weights, ResourceError on a full disk.
    """
    wish = replace(wish, prompts=default_prompts(target, wish))
    key = _key(target, wish)
    place = target.evals / f"panel-{target.step or 0:08d}-{key[:12]}.json"
    kept = _kept(place, key)
    if kept is not None:
        return kept
    journal = Journal(place.with_suffix(".part"), key=key)
    if told and journal.get(_LOSSES) is None:
        journal.put(_LOSSES, {name: asdict(loss) for name, loss in told.items()})
    result, rows = _measure(target, wish, judges, progress, journal)
    result["losses_from"] = "telemetry" if told else "measured"
    raw = b"".join(json_bytes(row) for row in rows)
    try:
        make_folder(target.evals)
        write_atomic(place.with_suffix(".jsonl"), raw)
    except OSError as error:
        raise write_error(place, error) from error
    body = {"v": PANEL_VERSION, "key": key, **result}
    body["generations"] = {"file": place.with_suffix(".jsonl").name, "sha256": hashlib.sha256(raw).hexdigest()}
    write_sealed(place, body)
    journal.remove()
    return body


def _key(target: Target, wish: Wish) -> str:
    assert wish.prompts is not None
    parts = {
        "versions": [PANEL_VERSION, TASK_VERSION, DEGENERATION_VERSION, LANGUAGE_VERSION, JUDGES_VERSION],
        "model": target.identity,
        "backend": target.backend.name,
        "dataset": target.dataset.sha256 if target.dataset else None,
        "prompts": wish.prompts.sha256,
        "sampling": asdict(wish.sampling),
        "numbers": [wish.max_new_tokens, wish.loss_tokens or 0, wish.losses],
        "identifier": _identifier_or_reason()[1],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _kept(place: Path, key: str) -> dict[str, Any] | None:
    """An earlier result of the same key whose generations are still what they were."""
    with suppress(OndeviceError, OSError, KeyError, TypeError):
        body = read_sealed(place, version=PANEL_VERSION)
        raw = place.with_suffix(".jsonl")
        if body["key"] == key and sha256_of(raw) == body["generations"]["sha256"]:
            return body
    return None


def _measure(
    target: Target, wish: Wish, judges: Judges | None, progress: Progress, journal: Journal
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    assert wish.prompts is not None
    losses = _losses(target, wish, progress, journal) if wish.losses else {}
    prompts = wish.prompts.prompts
    progress(f"{len(prompts)} texts of {wish.max_new_tokens} tokens")
    written, texts = write_all(target, prompts, wish, journal)
    judged: list[dict[str, Any]] | None = None
    if target.dataset is not None:
        judges = judges or Judges(target.dataset)
        judged = judges.judge(prompts, written, texts, own_tokens=target.own_tokens)
    probes = _probes(target, prompts)
    result = {
        "target": target.name,
        "step": target.step,
        "identity": target.identity,
        "backend": target.backend.name,
        "context": target.backend.context,
        "own_tokenizer": None if target.dataset is None else target.own_tokens,
        "prompts": {"origin": wish.prompts.origin, "n": len(prompts), "sha256": wish.prompts.sha256},
        "sampling": {**asdict(wish.sampling), "max_new_tokens": wish.max_new_tokens},
        **_loss_record(target, losses),
        "degeneration": _by_group(prompts, written, lambda some: _degeneration(some).to_json()),
        "quality": _quality(prompts, judged) if judged else {"skipped": target.no_dataset},
        "confusion": judges.confusion if judges else None,
        "probes": _probe_summary(prompts, probes),
        "task": _task(prompts, texts),
        "language_use": _language_use(prompts, texts),
        "notes": sorted({each.note for each in written if each.note})[:8],
    }
    rows = [
        {
            **{name: value for name, value in asdict(prompt).items() if name != "before"},
            "text": text,
            "ids": list(each.ids),
            "finish": each.finish,
            "note": each.note,
            "quality": judged[index] if judged else None,
            "probe": None if probe is None else probe.to_json(),
        }
        for index, (prompt, each, text, probe) in enumerate(zip(prompts, written, texts, probes, strict=True))
    ]
    return result, rows


def write_all(
    target: Target, prompts: Sequence[Prompt], wish: Wish, journal: Journal | None = None
) -> tuple[list[Written], list[str]]:
    """Tokens and text after each prompt, those of like length together; a journal keeps each group that is done."""
    tokenizer = target.tokenizer
    ids = [tokenizer.encode(prompt.prompt) for prompt in prompts]
    order, size = sorted(range(len(ids)), key=lambda index: len(ids[index])), _rows(target, wish)
    written: dict[int, Written] = {}
    for first in range(0, len(order), size):
        group, name = order[first : first + size], f"texts {size} {first}"
        kept = journal.get(name) if journal else None
        texts = [_unpacked(row) for row in kept] if kept else _write_group(target, [ids[each] for each in group], wish)
        if journal and not kept:
            journal.put(name, [asdict(each) for each in texts])
        written.update(zip(group, texts, strict=True))
    in_order = [written[index] for index in range(len(ids))]
    return in_order, [tokenizer.decode(list(each.ids)) for each in in_order]


def _write_group(target: Target, group: list[list[int]], wish: Wish) -> list[Written]:
    tokenizer = target.tokenizer
    return generate_batch(
        target.backend,
        group,
        settings=wish.sampling,
        stop_ids={tokenizer.eot_id},
        max_new_tokens=wish.max_new_tokens,
        eot_id=tokenizer.eot_id,
        vocab_size=tokenizer.vocab_size,
        batch=len(group),
    )


def _unpacked(row: dict[str, Any]) -> Written:
    return Written(ids=tuple(row["ids"]), finish=row["finish"], note=row["note"])


def _rows(target: Target, wish: Wish) -> int:
    """Prompts at a time."""
    shape = target.shape
    token_bytes = 2 * 4 * shape.layers * shape.kv_heads * shape.head_dim
    columns = min(shape.context, wish.prompt_tokens + wish.max_new_tokens)
    return max(1, min(64, int(wish.cache_mb * 2**20 / (token_bytes * columns))))


def _losses(target: Target, wish: Wish, progress: Progress, journal: Journal) -> dict[str, SourceLoss]:
    text = target.validation
    if text is None:
        return {}
    if kept := journal.get(_LOSSES):
        return {name: SourceLoss(**loss) for name, loss in kept.items()}
    progress("losses of the validation text")
    if target.model is None:
        losses = backend_losses(target.backend, text, max_tokens=wish.loss_tokens or 0, batch=8)
    else:
        evaluation = Evaluation(target.model, text, max_tokens=wish.loss_tokens or 0, batch=8, loss_chunk_tokens=2048)
        for _ in evaluation.batches():
            pass
        losses = evaluation.losses
    journal.put(_LOSSES, {name: asdict(loss) for name, loss in losses.items()})
    return losses


def _loss_record(target: Target, losses: Mapping[str, SourceLoss]) -> dict[str, Any]:
    languages = {entry.name: entry.language for entry in target.dataset.sources} if target.dataset else {}
    return {
        "val_loss": {name: loss.nats for name, loss in losses.items()},
        "bits_per_byte": {name: loss.bits_per_byte for name, loss in losses.items()},
        "val_tokens": {name: loss.tokens for name, loss in losses.items()},
        "val_loss_by_language": language_losses(losses, languages),
        "val_loss_mixed": mixed_loss(losses),
    }


def _degeneration(written: Iterable[Written]) -> Any:
    return degeneration([Tokens(ids=each.ids, finish=each.finish) for each in written])


def _by_group(prompts: Sequence[Prompt], values: Sequence[Any], summary: Callable[[list[Any]], Any]) -> dict[str, Any]:
    """``all``, and each group of prompts where there are several."""
    groups: dict[str, list[Any]] = {}
    for prompt, value in zip(prompts, values, strict=True):
        groups.setdefault(prompt.group or "unnamed", []).append(value)
    found = {"all": summary(list(values))}
    return {**found, "groups": {name: summary(some) for name, some in groups.items()}}


def _quality(prompts: Sequence[Prompt], judged: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def mean(some: list[dict[str, Any]]) -> dict[str, Any]:
        names = [name for name in some[0] if name != "v"] if len({tuple(each) for each in some}) == 1 else ["score"]
        return {"n": len(some), **{name: statistics.fmean(each[name] for each in some) for name in names}}

    return {
        "versions": JUDGES_VERSION,
        **_by_group(prompts, judged, mean),
        "scores": [each["score"] for each in judged],
        "prompt_groups": [prompt.group or "unnamed" for prompt in prompts],
    }


def _task(prompts: Sequence[Prompt], texts: Sequence[str]) -> dict[str, Any] | None:
    """Of the prompts that want an answer: how often it parses, has the fields, and each field the value; every field
    that all answers have counts as a label."""
    rows = [(text, json.loads(prompt.answer)) for prompt, text in zip(prompts, texts, strict=True) if prompt.answer]
    if not rows:
        return None
    labels = sorted(set.intersection(*(set(expected) for _, expected in rows)))
    score = task_score([judge(text, expected, labels=labels) for text, expected in rows])
    return {"v": TASK_VERSION, "n": len(rows), **{name: asdict(found) for name, found in score.items()}}


def _probes(target: Target, prompts: Sequence[Prompt]) -> list[Probe | None]:
    """Of the prompts that say what is expected."""
    tokenizer = target.tokenizer
    expected = [tokenizer.encode(prompt.expected)[: target.backend.context] for prompt in prompts]
    known = [index for index, ids in enumerate(expected) if ids]
    pairs = [(tokenizer.encode(prompts[index].prompt) or [tokenizer.eot_id], expected[index]) for index in known]
    found = dict(zip(known, measure_probes(target.backend, pairs), strict=True))
    return [found.get(index) for index in range(len(prompts))]


def _probe_summary(prompts: Sequence[Prompt], probes: Sequence[Probe | None]) -> dict[str, Any] | None:
    pairs = [(prompt, probe) for prompt, probe in zip(prompts, probes, strict=True) if probe is not None]
    if not pairs:
        return None

    return _by_group([prompt for prompt, _ in pairs], [probe for _, probe in pairs], probe_summary)


def _identifier_or_reason() -> tuple[Any, str]:
    try:
        return open_identifier(), ""
    except DeviceError as error:
        return None, str(error)


def _language_use(prompts: Sequence[Prompt], texts: Sequence[str]) -> dict[str, Any]:
    identifier, reason = _identifier_or_reason()
    if identifier is None:
        return {"skipped": reason}
    prose = [(prompt, text) for prompt, text in zip(prompts, texts, strict=True) if not is_code(prompt.language)]
    if not prose:
        return {"skipped": "Every prompt is code."}
    wanted = [prompt.language if len(prompt.language) == 2 else prompt.prompt for prompt, _ in prose]
    return language_use(list(zip(wanted, [text for _, text in prose], strict=True)), identifier).to_json()
