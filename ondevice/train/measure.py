"""The measured step of a plan: arithmetic picks a fit, one real step in a process of its own says what it takes.

Where it needs more than may be used, the next leaner fit is measured, and so on. The child is thrown away, so its peak
is its own and nothing of it gets into the run. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ondevice
from ondevice.device.command import ask_command
from ondevice.errors import OndeviceError, ResourceError
from ondevice.run.directory import home
from ondevice.run.files import make_folder, write_json
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.schema import Config
from ondevice.train.fitting import Way, describe, fastest
from ondevice.train.memory import estimate_run

__all__ = ["Measured", "Probed", "is_worth_measuring", "measure", "measured_fit"]

TIGHT = 0.8  # of what may be used: below it an estimate may be wrong without harm
MOST_PROBES = 5
LONGEST_S = 1800.0
_LEANER = 0.9  # of the estimate, after a step that died and so told no figure
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); from ondevice.train.probe_step import main; "
    "sys.exit(main(sys.argv[2]))"
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one step took. ``peak_mb``: of the whole process, infinite where memory killed it."""

    estimated_mb: float
    peak_mb: float
    step_s: float

    def to_json(self) -> dict[str, float]:
        return {key: round(value, 3) for key, value in dataclasses.asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Probed:
    """The fit that measuring ended with; ``measured`` None where no step could be measured. ``said``: sentences."""

    fit: Fit
    measured: Measured | None
    said: list[str] = field(default_factory=list)


def is_worth_measuring(config: Config, recipe: Recipe, fit: Fit, memory_mb: float) -> bool:
    """As ``fit.probe`` says; where it says nothing, fine-tunes whose estimate is near a budget that was given."""
    if config.fit.probe is not None:
        return config.fit.probe
    given = recipe.base is not None and config.budget.memory_mb is not None
    return given and estimate_run(recipe, fit).total_mb > TIGHT * memory_mb


def measure(recipe: Recipe, fit: Fit, *, kept: Sequence[int] | None = None) -> Measured:
    """One step of this fit in a process of its own; ``kept``: the tokens of a trimmed vocabulary.

    Raises OndeviceError where it did not come to an end."""
    make_folder(home())
    asked = home() / f".ondevice-step-{secrets.token_hex(4)}.json"
    root = Path(ondevice.__file__).parents[1]
    estimated_mb = estimate_run(recipe, fit).total_mb
    try:
        write_json(asked, {"recipe": recipe.to_json(), "fit": fit.to_json(), "kept": kept})
        argv = [sys.executable, "-P", "-c", _PROGRAM, str(root), str(asked)]
        told = json.loads(ask_command(argv, name="the measured step", timeout_s=LONGEST_S))
    except ChildProcessError as error:
        if not _was_memory(str(error)):
            raise OndeviceError(f"{error}.") from error
        return Measured(estimated_mb=estimated_mb, peak_mb=math.inf, step_s=math.inf)
    except (OSError, ValueError) as error:
        raise OndeviceError(f"{error}.") from error
    finally:
        with suppress(OSError):
            asked.unlink()
    return _measured(told, estimated_mb)


def _was_memory(why: str) -> bool:
    """Killed by the system, or told by the allocator (exit code 12 of ``ondevice.train.probe_step``)."""
    return why.endswith(("killed by SIGKILL", "exit code 12"))


def _measured(told: dict[str, Any], estimated_mb: float) -> Measured:
    if "error" in told:
        raise OndeviceError(str(told["error"]))
    if told["peak_mb"] is None:
        raise OndeviceError("this system does not tell how much memory a process held.")
    return Measured(estimated_mb=estimated_mb, peak_mb=float(told["peak_mb"]), step_s=float(told["step_s"]))


def measured_fit(
    recipe: Recipe,
    fit: Fit,
    known: Sequence[Way],
    *,
    memory_mb: float,
    ask: Callable[[Recipe, Fit], Measured] = measure,
) -> Probed:
    """``fit``, or the cheapest of the ``known`` ways in time that a real step shows to need at most ``memory_mb``.

    Raises ResourceError where none does; where a step cannot be measured at all the arithmetic holds, and says so.
    """
    said: list[str] = []
    for _ in range(MOST_PROBES):
        try:
            found = ask(recipe, fit)
        except OndeviceError as error:
            return Probed(fit=fit, measured=None, said=[*said, f"No step could be measured: {error}"])
        if found.peak_mb <= memory_mb:
            return Probed(fit=fit, measured=found, said=said)
        needed = "was killed for want of memory" if found.peak_mb == math.inf else f"took {found.peak_mb:,.0f} MB"
        leaner = _leaner(found, known, memory_mb)
        if leaner is None:
            raise ResourceError(
                f"A real step {needed} where {memory_mb:,.0f} MB may be used, and no leaner fit is left: make "
                "model.context smaller, or allow more with --memory."
            )
        said.append(f"A real step ({describe(fit)}) {needed}, more than {memory_mb:,.0f} MB: a leaner fit is taken.")
        fit = leaner.fit
    raise ResourceError(
        f"{MOST_PROBES} fits took more than {memory_mb:,.0f} MB in real steps: make model.context smaller, or raise "
        "budget.memory_mb."
    )


def _leaner(found: Measured, known: Sequence[Way], memory_mb: float) -> Way | None:
    """The fastest way that fits when what the estimate was short of is added to every estimate."""
    room_mb = _LEANER * found.estimated_mb
    if found.peak_mb != math.inf:
        room_mb = min(memory_mb - (found.peak_mb - found.estimated_mb), found.estimated_mb - 1.0)
    return fastest(known, room_mb)
