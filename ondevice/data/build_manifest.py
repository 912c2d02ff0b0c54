"""What a dataset's manifest says of its sources, and the manifest of a dataset and a piece that came later.

The manifest of both names the old chunks and the new ones; it is kept under its hash, like that of an earlier build.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict
from typing import Any

from ondevice.data.dataset import seal_manifest, tokens_hash
from ondevice.data.documents import Problems
from ondevice.data.tokenizer_base import content_hash
from ondevice.errors import DataError
from ondevice.run.schema import ItemsConfig, SourceConfig

__all__ = ["given_items", "joined", "source_entry", "totals_of"]

_NOT_DROPPED = ("invalid_utf8_line", "duplicate_document", "near_duplicate", "unknown_symbol")


def given_items(items: ItemsConfig) -> dict[str, Any]:
    """The rule for items as it decides tokens; empty where documents stay whole."""
    return asdict(items) if items.max_tokens else {}


def joined(old: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
    """The sealed manifest of a dataset and a piece. Raises DataError for a source name that both have."""
    sources, chunks = [*old["sources"], *piece["sources"]], [*old["chunks"], *piece["chunks"]]
    names = [source["name"] for source in sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"There is a source '{twice[0]}' already; give the new text another name.")
    problems = Problems.from_json(old["problems"])
    problems.merge(Problems.from_json(piece["problems"]))
    body = {
        **{key: value for key, value in old.items() if key != "seal"},
        "id": secrets.token_hex(8),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "sha256": tokens_hash(old["tokenizer"]["sha256"], names, chunks),
        "inputs": content_hash([old["inputs"], piece["inputs"]]),
        "sources": sources,
        "chunks": chunks,
        "problems": problems.to_json(),
        "totals": {key: value + piece["totals"][key] for key, value in old["totals"].items()},
    }
    return seal_manifest(body)


def source_entry(source: dict[str, Any], wish: SourceConfig, problems: Problems) -> dict[str, Any]:
    """A source as the manifest has it (the fields of `SourceEntry`)."""
    return {
        "name": source["name"],
        "language": source["language"],
        "weight": wish.weight,
        "group": wish.group,
        "documents": source["documents"],
        "duplicates": source["duplicates"],
        "dropped": sum(n for name, why, n in problems if name == source["name"] and why not in _NOT_DROPPED),
        **{
            f"{split}_{key}": source[split][key]
            for split in ("train", "val")
            for key in ("documents", "tokens", "bytes")
        },
        **({"score": wish.score} if wish.score is not None else {}),
        **{key: source[key] for key in ("cuts", "overlap_tokens", "scores") if source.get(key)},
    }


def totals_of(sources: list[dict[str, Any]]) -> dict[str, int]:
    """Documents, tokens and bytes of a manifest's sources, added up by key."""
    keys = ("documents", "duplicates", "train_documents", "val_documents", "train_tokens", "val_tokens")
    totals = {key: sum(source[key] for source in sources) for key in (*keys, "train_bytes", "val_bytes", "dropped")}
    return {**totals, "tokens": totals["train_tokens"] + totals["val_tokens"]}
