"""Named ways to choose tokens, and which settings hold: a flag before a preset before a sweep's recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import UsageError, nearest
from ondevice.infer.generation_config import GENERATION_CONFIG, describe, read_generation_config
from ondevice.infer.sampling import Sampling

__all__ = ["PRESETS", "Chosen", "choose_settings", "preset"]

PRESETS = {
    "default": Sampling(),
    "balanced": Sampling(temperature=0.7, top_k=50, top_p=0.9, repetition_penalty=1.05),
    "creative": Sampling(temperature=1.0, top_k=0, top_p=0.95, repetition_penalty=1.1),
    "precise": Sampling(temperature=0.3, top_k=20, top_p=0.85, repetition_penalty=1.1),
    "greedy": Sampling(temperature=0.0),
}


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """``length`` is the most new tokens, None where nothing says so; ``note`` tells people who recommended what."""

    sampling: Sampling
    length: int | None
    note: str = ""


def preset(name: str) -> Sampling:
    """Raises UsageError for an unknown name."""
    if name not in PRESETS:
        raise UsageError(f"'{name}' is not a preset{nearest(name, PRESETS)}; there are {', '.join(PRESETS)}.")
    return PRESETS[name]


def choose_settings(folder: Path, *, preset_name: str | None, given: Mapping[str, Any]) -> Chosen:
    """``given`` are fields of `Sampling` and ``max_new_tokens``; ``folder`` is where a recommendation may lie.

    Raises UsageError for bad values, DataError for a recommendation that cannot be read.
    """
    recommended = {} if preset_name else read_generation_config(folder)
    base = vars(preset(preset_name)) if preset_name else recommended
    chosen = {**base, **given}
    length = chosen.pop("max_new_tokens", None)
    if length is not None and length < 0:
        raise UsageError(f"max_new_tokens = {length}: must be 0 or more.")
    by = "recommended by a sweep" if "seed" in recommended else f"by its {GENERATION_CONFIG}"  # only ours says a seed
    note = f"{by}: {describe(recommended)}" if recommended else ""
    return Chosen(sampling=Sampling(**chosen), length=length, note=note)
