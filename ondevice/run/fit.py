"""How the work is cut to fit the device: sticky, but it may change between optimizer steps, and never changes what is
learned but by rounding. A plain value and its JSON form; ``ondevice.train.fitting`` chooses it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields
from typing import Any

from ondevice.errors import CheckpointError

__all__ = ["Fit"]

_EARLIER = {"layerwise": False, "kept_blocks": 0, "repeated_blocks": 0}  # what earlier versions had not


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How the work is cut to fit the device. A step's micro-batches have ``micro_batch`` sequences, the last maybe
    fewer. ``layerwise``: gradients are used block by block, inside the backward pass; then ``kept_blocks`` (from the
    last on) keep their activations, and ``repeated_blocks`` compute their gradients twice rather than hold them until
    the norm of all is known."""

    micro_batch: int
    threads: int
    activation_checkpointing: bool
    loss_chunk_tokens: int
    layerwise: bool = False
    kept_blocks: int = 0
    repeated_blocks: int = 0

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, raw: Any, *, where: str) -> Fit:
        """Reads `to_json`'s form, and what a step of it took (``measured``) past. Raises CheckpointError for anything
        else."""
        names = {item.name: bool if str(item.type) == "bool" else int for item in fields(cls)}
        if isinstance(raw, dict):
            raw = {**_EARLIER, **{key: value for key, value in raw.items() if key != "measured"}}
        if not isinstance(raw, dict) or {name: type(value) for name, value in raw.items()} != names:
            raise CheckpointError(f"{where}: not a fit; restore the file from a copy of the run.")
        counts = (raw["micro_batch"], raw["threads"], raw["loss_chunk_tokens"])
        if min(counts) < 1 or min(raw["kept_blocks"], raw["repeated_blocks"]) < 0:
            raise CheckpointError(f"{where}: a fit counts from 1; restore the file from a copy of the run.")
        return cls(**raw)
