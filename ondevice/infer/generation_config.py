"""``generation_config.json``: recommended settings beside a model, in the names that transformers reads.

Written by the decoding sweep into a run's ``evals`` and copied into its exports; the defaults of ``ondevice generate``.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from ondevice.errors import DataError, OndeviceError
from ondevice.infer.sampling import Sampling
from ondevice.run.files import make_folder, read_json, write_json

__all__ = [
    "GENERATION_CONFIG",
    "copy_generation_config",
    "describe",
    "read_generation_config",
    "to_generation_config",
    "write_generation_config",
]

GENERATION_CONFIG = "generation_config.json"
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
_NAMES = {"temperature": float, "top_k": int, "top_p": float, "repetition_penalty": float}


def to_generation_config(
    settings: Sampling, *, max_new_tokens: int, eot_id: int, origin: dict[str, Any]
) -> dict[str, Any]:
    """What transformers understands, and under ``ondevice`` where it is from. Greedy is ``do_sample`` false."""
    chosen = {name: getattr(settings, name) for name in _NAMES}
    if settings.temperature == 0.0:
        chosen = {"repetition_penalty": settings.repetition_penalty}
    return {
        "do_sample": settings.temperature > 0.0,
        **chosen,
        "max_new_tokens": max_new_tokens,
        "eos_token_id": eot_id,
        "bos_token_id": eot_id,
        "ondevice": {"seed": settings.seed, **origin},
    }


def write_generation_config(folder: Path, config: dict[str, Any]) -> None:
    """Durably and at once. Raises ResourceError or DataError."""
    write_json(folder / GENERATION_CONFIG, config)


def copy_generation_config(source: Path, target: Path) -> None:
    """Puts what one folder recommends into another, but for tokens that are said there already; nothing where it
    recommends nothing. Raises as reading does."""
    if read_generation_config(source):
        make_folder(target)
        there = read_json(target / GENERATION_CONFIG) if (target / GENERATION_CONFIG).is_file() else {}
        kept = {name: value for name, value in there.items() if name in _TOKENS}
        found = {name: value for name, value in read_json(source / GENERATION_CONFIG).items() if name not in kept}
        write_json(target / GENERATION_CONFIG, {**kept, **found})


def read_generation_config(folder: Path) -> dict[str, Any]:
    """The fields of `Sampling`, and ``max_new_tokens``, that a folder recommends; empty where it recommends none.

    Raises DataError for a file that is none, or values that are out of bounds.
    """
    path = folder / GENERATION_CONFIG
    if not path.is_file():
        return {}
    raw = read_json(path)
    try:
        if not isinstance(raw, dict):
            raise TypeError("not an object")
        found: dict[str, Any] = {name: kind(raw[name]) for name, kind in _NAMES.items() if raw.get(name) is not None}
        if raw.get("do_sample") is False:
            found["temperature"] = 0.0
        ours = raw.get("ondevice")
        if isinstance(ours, dict) and "seed" in ours:
            found["seed"] = int(ours["seed"])
        Sampling(**found)
        if raw.get("max_new_tokens") is not None:
            found["max_new_tokens"] = max(1, int(raw["max_new_tokens"]))
    except (OndeviceError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not generation settings ({error}); delete it or make it again.") from error
    return found


def describe(settings: dict[str, Any]) -> str:
    """In one line, for people.

    >>> describe({"temperature": 0.7, "top_k": 40})
    'temperature 0.7, top k 40'
    """
    names = [name.name for name in fields(Sampling) if name.name in settings]
    return ", ".join(f"{name.replace('_', ' ')} {json.dumps(settings[name])}" for name in names)
