"""A model's answers to the held-out rows of a rule, judged: raw outputs as JSONL, scores in a sealed file beside them.

Baseline and tuned model answer in the same runtime: the same program, torch, an adapter beside its base and not merged
in, greedy, the prompt cut off. The baseline is the model as it was before the first step.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import DataError
from ondevice.evaluate.task import Judged, task_score
from ondevice.evaluate.task_answers import judge_answer
from ondevice.infer.backend import BatchBackend
from ondevice.infer.batch import generate_batch
from ondevice.infer.sampling import Sampling
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.base import build_for
from ondevice.model.decoder import Decoder
from ondevice.run.directory import RunDir
from ondevice.run.files import json_bytes, read_regular, read_sealed, sha256_of, write_atomic, write_sealed
from ondevice.run.recipe import ModelShape
from ondevice.study.task_rule import StatedRule

__all__ = ["Scored", "baseline_model", "read_scored", "score"]

SCORED_VERSION = 1
_CACHE_BYTES = 64 << 20  # keys and values of the rows that are answered at once
_LARGEST = 1 << 28  # bytes of raw outputs


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Answers that were judged, row by row. ``facts`` is the body of their file."""

    facts: dict[str, Any]
    rows: tuple[dict[str, Any], ...]

    @property
    def judged(self) -> list[Judged]:
        return [Judged(parsed=None, right=row["right"]) for row in self.rows]


def baseline_model(run: RunDir) -> Decoder:
    """The model that a run begins with."""
    return build_for(run.read_recipe(), fresh=True).eval()


def score(
    model: Decoder, tokenizer: Tokenizer, rule: StatedRule, folder: Path, *, name: str, about: dict[str, Any]
) -> Scored:
    """Answers, judges and writes ``NAME.jsonl`` and ``NAME.json``; ``about`` says which model it is."""
    began = time.monotonic()
    rows = answer(TorchBackend(model), model.shape, tokenizer, rule)
    raw = b"".join(json_bytes(row) for row in rows)
    scores = task_score([Judged(parsed=None, right=row["right"]) for row in rows])
    body = {
        "v": SCORED_VERSION,
        **about,
        "rule_sha256": rule.sha256,
        "runtime": {
            "backend": "torch",
            "torch": torch.__version__,
            "decoding": "greedy",
            "batch": _batch(model.shape, rule),
        },
        "scored_t": round(time.time(), 3),
        "seconds": round(time.monotonic() - began, 1),
        "scores": {metric: asdict(interval) for metric, interval in scores.items()},
        "outputs": {"file": f"{name}.jsonl", "sha256": hashlib.sha256(raw).hexdigest(), "rows": len(rows)},
    }
    write_atomic(folder / f"{name}.jsonl", raw)
    write_sealed(folder / f"{name}.json", body)
    return Scored(facts=body, rows=tuple(rows))


def answer(backend: BatchBackend, shape: ModelShape, tokenizer: Tokenizer, rule: StatedRule) -> list[dict[str, Any]]:
    """Each row's prompt, what was expected, what was answered, and which metrics are right."""
    written = generate_batch(
        backend,
        [row.ids for row in rule.rows],
        settings=Sampling(temperature=0.0),
        stop_ids=rule.stop_ids,
        max_new_tokens=min(rule.max_new_tokens, shape.context - 1),
        eot_id=tokenizer.eot_id,
        vocab_size=tokenizer.vocab_size,
        batch=_batch(shape, rule),
    )
    found = []
    for row, each in zip(rule.rows, written, strict=True):
        text = tokenizer.decode(list(each.ids))
        right = dict(judge_answer(text, row.expected, rule.contract.output).right)
        asked = {"line": row.line, "prompt": row.prompt, "expected": row.expected}
        found.append({**asked, "answer": text, "finish": each.finish, "note": each.note, "right": right})
    return found


def _batch(shape: ModelShape, rule: StatedRule) -> int:
    columns = min(shape.context, max(len(row.ids) for row in rule.rows) + rule.max_new_tokens)
    row_bytes = 2 * 4 * shape.layers * shape.kv_heads * shape.head_dim * columns
    return max(1, min(16, _CACHE_BYTES // row_bytes))


def read_scored(folder: Path, name: str, rule: StatedRule) -> Scored | None:
    """What `score` wrote; None where it never did. Raises DataError where it was changed, or is of another rule."""
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    facts = read_sealed(path, version=SCORED_VERSION)
    outputs = folder / facts["outputs"]["file"]
    if not outputs.exists() or sha256_of(outputs) != facts["outputs"]["sha256"]:
        raise DataError(
            f"{outputs}: changed or gone since it was scored; put it back, or delete {path} and score anew."
        )
    if facts["rule_sha256"] != rule.sha256:
        raise DataError(f"{path}: was scored by another rule; delete it and score anew.")
    return Scored(facts=facts, rows=tuple(_parse_rows(outputs)))


def _parse_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read_regular(path, limit=_LARGEST).splitlines()]
