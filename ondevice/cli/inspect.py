"""``ondevice inspect PATH``: what a file or folder of weights is, and whether it is safe to read."""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.cli.common import print_json
from ondevice.cli.folding import tell
from ondevice.errors import UsageError

if TYPE_CHECKING:
    from ondevice.model.foreign import Weights

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice inspect ~/Download/model.safetensors
  ondevice inspect pytorch_model.bin --json
  ondevice inspect ~/models/gpt2          a folder, whole or in shards
  ondevice inspect notes                  a run: its newest checkpoint

Nothing in the file is run, and nothing is read that its size does not account for; what is not sound is refused."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="a weights file, its folder, or a run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    path = _place(args.path)
    from ondevice.model.foreign import open_weights

    facts = _facts(path, open_weights(path, available_mb=_available_mb()))
    if args.json:
        print_json(facts)
    else:
        _print(facts)
    return 0


def _place(word: str) -> Path:
    """The path a person named, or the run of that name."""
    from ondevice.run.directory import home

    if not word.strip():
        raise UsageError("The path is empty; name a file or folder of weights.")
    path = Path(os.path.expanduser(word))
    run = home() / "runs" / word
    if not os.path.lexists(path) and os.path.isfile(run / "run.json"):
        return run
    if not os.path.lexists(path):
        raise UsageError(f"{path}: no such file or folder, nor a run of that name.")
    return path


def _available_mb() -> float | None:
    """Free memory in MiB, None where it cannot be read."""
    from ondevice.device.memory import machine_memory

    with suppress(OSError, LookupError, ImportError):
        return machine_memory().available_mb
    return None


def _facts(path: Path, weights: Weights) -> dict[str, Any]:
    """Tied weights, two names for the same bytes, count once among the parameters."""
    dtypes: dict[str, dict[str, int]] = {}
    seen: set[tuple[Any, ...]] = set()
    for tensor in weights.values():
        dtype = dtypes.setdefault(str(tensor.dtype).removeprefix("torch."), {"tensors": 0, "parameters": 0, "bytes": 0})
        dtype["tensors"] += 1
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and place not in seen:
            seen.add(place)
            dtype["parameters"] += tensor.numel()
            dtype["bytes"] += tensor.numel() * tensor.element_size()
    return {
        "path": str(path),
        "format": weights.format,
        "what": weights.what,
        "files": [str(file) for file in weights.files],
        "tensors": len(weights),
        "parameters": sum(dtype["parameters"] for dtype in dtypes.values()),
        "bytes": sum(dtype["bytes"] for dtype in dtypes.values()),
        "tied": sum(1 for tensor in weights.values() if tensor.numel()) - len(seen),
        "dtypes": dtypes,
        "sound": True,
    }


def _print(facts: dict[str, Any]) -> None:
    tied = f" ({facts['tied']} tied to another)" if facts["tied"] else ""
    dtypes = ", ".join(f"{name} {dtype['parameters']:,}" for name, dtype in facts["dtypes"].items())
    tell(f"{facts['path']}: {facts['what']}, sound.")
    tell(f"Tensors     {facts['tensors']:,}{tied}")
    tell(f"Parameters  {facts['parameters']:,}{f' ({dtypes})' if dtypes else ''}")
    tell(f"Bytes       {facts['bytes']:,}")
