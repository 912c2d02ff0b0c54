"""What autotune found before on this device, so that the next run of its kind starts without timing anything.

One sealed file under the home. A key is everything the answer depends on: the machine, its power state, torch, the
class of the model's shape and what there was to choose from. A damaged, older or newer file counts as empty and is
replaced.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ondevice.device.cpu import cpu_model, parse_cpuinfo
from ondevice.device.readings import Sensors
from ondevice.device.unknown import attempt
from ondevice.errors import OndeviceError
from ondevice.model.counts import flops_per_token
from ondevice.run.directory import home
from ondevice.run.files import make_folder, read_sealed, write_sealed
from ondevice.run.recipe import AdapterRecipe, Fit, ModelShape
from ondevice.run.telemetry import as_number
from ondevice.train.autotune import Choice, choose, timed

__all__ = ["VERSION", "key_of", "recall", "remember", "tuned_choice"]

VERSION = 1
MOST = 64  # the newest are kept
OLD_S = 60 * 86_400.0
POWER_S = 3.0  # for a phone to say whether it is plugged in
_CPUINFO = Path("/proc/cpuinfo")


def tuned_choice(
    shape: ModelShape,
    fit: Fit,
    wanted: Sequence[Choice],
    sizes: Sequence[int],
    *,
    batch: int,
    optimizer: str,
    adapter: AdapterRecipe | None = None,
    top_layers: int | None = None,
    again: bool = False,
    rate: bool = False,
) -> tuple[Choice, bool]:
    """The best of the wanted ways and micro-batches, and whether it was known before. ``again``: time them anyway.

    ``rate``: what is known is timed alone, since a budget in minutes depends on how fast the device is now.
    """
    key = key_of(shape, fit, wanted, sizes, batch=batch, optimizer=optimizer)
    if adapter is not None:
        key |= {"adapter": [adapter.rank, list(adapter.targets), adapter.base_format]}
    if top_layers is not None:
        key |= {"top_layers": top_layers}
    known = None if again else recall(key, shape)
    if known is not None:
        return timed(
            shape, fit, known, batch=batch, optimizer=optimizer, adapter=adapter, top_layers=top_layers
        ) if rate else known, True
    choice = choose(
        shape,
        fit,
        wanted,
        batch=batch,
        optimizer=optimizer,
        micro_batches=sizes,
        adapter=adapter,
        top_layers=top_layers,
    )
    remember(key, shape, choice)
    return choice, False


def key_of(
    shape: ModelShape, fit: Fit, wanted: Sequence[Choice], sizes: Sequence[int], *, batch: int, optimizer: str
) -> dict[str, Any]:
    """What a choice depends on, as plain values."""
    return {
        "machine": platform.machine(),
        "cpu": attempt({}, "", lambda: cpu_model(parse_cpuinfo(_CPUINFO.read_text("utf-8", "replace")))),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": _cores(),
        "power": _power(),
        "torch": torch.__version__,
        "shape": _shape_class(shape),
        "recompute": fit.activation_checkpointing,
        "optimizer": optimizer,
        "batch": batch,
        "wanted": [[choice.precision, choice.threads] for choice in wanted],
        "micro_batches": list(sizes),
    }


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _power() -> str:
    """A device on its battery often runs at another speed than on the charger."""
    sensors = Sensors(home())
    try:
        plugged = sensors.settle(POWER_S).plugged
    finally:
        sensors.close()
    return {True: "plugged", False: "battery", None: "unknown"}[plugged]


def _shape_class(shape: ModelShape) -> dict[str, Any]:
    """Shapes whose steps have the same proportions: depth and vocabulary to a power of two."""
    values = dataclasses.asdict(shape)
    rounded = {name: 2 ** round(math.log2(values[name])) for name in ("layers", "vocab_size")}
    return {**{name: values[name] for name in ("arch", "context", "width", "heads", "kv_heads", "hidden")}, **rounded}


def recall(key: dict[str, Any], shape: ModelShape) -> Choice | None:
    """What was found for that key; its rate scaled to a model of that shape."""
    found = _entries().get(_name(key))
    if not isinstance(found, dict) or found.get("key") != key:
        return None
    t, rate = as_number(found.get("t")), as_number(found.get("flops_s"))
    threads, size, precision = (found.get(name) for name in ("threads", "micro_batch", "precision"))
    if t is None or abs(time.time() - t) > OLD_S or rate is None or rate <= 0:
        return None
    if [precision, threads] not in key["wanted"] or size not in key["micro_batches"]:
        return None
    tok_s = rate / flops_per_token(shape, shape.context)
    return Choice(precision=str(precision), threads=int(str(threads)), micro_batch=int(str(size)), tok_s=tok_s)


def remember(key: dict[str, Any], shape: ModelShape, choice: Choice) -> None:
    """Keeps a timed choice for later runs; a disk that cannot take it is no reason to fail."""
    if choice.tok_s is None:
        return
    entry = {
        "t": round(time.time(), 1),
        "key": key,
        "precision": choice.precision,
        "threads": choice.threads,
        "micro_batch": choice.micro_batch,
        "flops_s": choice.tok_s * flops_per_token(shape, shape.context),
    }
    entries = {**_entries(), _name(key): entry}
    newest = sorted(entries.items(), key=lambda item: as_number(item[1].get("t")) or 0.0)[-MOST:]
    with suppress(OndeviceError, OSError):
        make_folder(home())
        write_sealed(_path(), {"v": VERSION, "choices": dict(newest)})


def _path() -> Path:
    return home() / "tuned.json"


def _name(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _entries() -> dict[str, dict[str, Any]]:
    try:
        raw = read_sealed(_path(), version=VERSION).get("choices")
    except OndeviceError:
        return {}
    return {name: entry for name, entry in raw.items() if isinstance(entry, dict)} if isinstance(raw, dict) else {}
