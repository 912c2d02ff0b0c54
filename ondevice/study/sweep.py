"""The decoding sweep: presets and grids judged on tuning prompts, the winner judged again on prompts held out.

Rule, version 1: the highest mean quality on the tuning prompts wins; of equals the higher diversity, then the earlier.
The holdout score of the winner is the figure to quote: the tuning score was chosen for being high. The default
settings are always among the arms, and the winner's paired difference to them on the holdout is stated.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ondevice.errors import UsageError
from ondevice.evaluate.intervals import paired_mean
from ondevice.infer.generation_config import to_generation_config
from ondevice.infer.presets import PRESETS, preset
from ondevice.infer.sampling import Sampling
from ondevice.run.files import make_folder, write_atomic, write_error, write_sealed
from ondevice.study.evaluation import Wish, default_prompts, evaluate
from ondevice.study.judges import Judges
from ondevice.study.prompts import PromptSet, overlap
from ondevice.study.sweep_record import SWEEP_VERSION
from ondevice.study.target import Target

__all__ = ["Arm", "arms_of", "leaderboard", "sweep"]

_MOST_ARMS = 200
_GRID = ("temperature", "top_k", "top_p", "repetition_penalty")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Settings with a name for the leaderboard."""

    name: str
    sampling: Sampling


def arms_of(presets: Sequence[str], grid: Mapping[str, Sequence[float]], *, seed: int) -> list[Arm]:
    """The presets, then every combination of the grid; the default always, equal settings once.

    Raises UsageError for unknown names, values out of bounds, or more arms than make sense.
    """
    arms = [Arm(name=name, sampling=replace(preset(name), seed=seed)) for name in ("default", *presets)]
    names = [name for name in _GRID if grid.get(name)]
    for values in itertools.product(*(grid[name] for name in names)) if names else ():
        chosen = dict(zip(names, values, strict=True))
        text = " ".join(f"{name}={value:g}" for name, value in chosen.items())
        exact = {name: int(value) if name == "top_k" else float(value) for name, value in chosen.items()}
        arms.append(Arm(name=text, sampling=Sampling(seed=seed, **exact)))  # type: ignore[arg-type]
    first: dict[Sampling, Arm] = {}
    for arm in arms:
        first.setdefault(arm.sampling, arm)
    unique = list(first.values())
    if len(unique) > _MOST_ARMS:
        raise UsageError(f"{len(unique)} settings are more than {_MOST_ARMS}; use a smaller grid.")
    return unique


def sweep(
    target: Target,
    wish: Wish,
    arms: Sequence[Arm],
    *,
    holdout: PromptSet | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Judges every arm and keeps leaderboards, the winner and its generation config beside the other results.

    Without ``holdout`` every other prompt of each group is held out. Raises UsageError where prompts are in both, or
    nothing can judge them.
    """
    if target.dataset is None:
        raise UsageError(f"{target.name}: nothing can judge its text ({target.no_dataset})")
    prompts = default_prompts(target, wish)
    tuning, holdout = prompts.split() if holdout is None else (prompts, holdout)
    _assert_disjoint(tuning, holdout)
    judges = Judges(target.dataset)

    def judged(arm: Arm, prompts: PromptSet) -> dict[str, Any]:
        asked = replace(wish, prompts=prompts, sampling=arm.sampling, losses=False)
        return evaluate(target, asked, judges=judges)

    panels = []
    for place, arm in enumerate(arms, 1):
        progress(f"{arm.name} ({place} of {len(arms)})")
        panels.append(judged(arm, tuning))
    rows = sorted((_row(arm, panel) for arm, panel in zip(arms, panels, strict=True)), key=_rank)
    winner = next(arm for arm in arms if arm.name == rows[0]["arm"])
    progress(f"{winner.name} on the holdout")
    held, base = judged(winner, holdout), judged(arms[0], holdout)
    return _keep(target, wish, rows, winner, held, base, tuning, holdout)


def _assert_disjoint(tuning: PromptSet, holdout: PromptSet) -> None:
    if not tuning.prompts or not holdout.prompts:
        raise UsageError("A sweep needs at least two different prompts, one to tune on and one held out.")
    both = overlap(tuning.prompts, holdout.prompts)
    if both:
        raise UsageError(
            f"{len(both)} prompts are for tuning and held out too, such as {both[0][:40]!r}; separate them."
        )


def _row(arm: Arm, panel: dict[str, Any]) -> dict[str, Any]:
    group = panel["degeneration"]["all"]
    return {
        "arm": arm.name,
        **{name: getattr(arm.sampling, name) for name in _GRID},
        "quality": panel["quality"]["all"]["score"],
        "diversity": group["diversity"],
        "repeated_4gram_ratio": group["repeated_4gram_ratio"],
        "loop_rate": group["loop_rate"],
        "completion_rate": group["completion_rate"],
        "n": group["n"],
        **{f"quality {name}": each["score"] for name, each in panel["quality"]["groups"].items()},
    }


def _rank(row: dict[str, Any]) -> tuple[float, float]:
    return -row["quality"], -row["diversity"]


def leaderboard(rows: Sequence[dict[str, Any]]) -> bytes:
    """CSV, best first."""
    file = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def _keep(
    target: Target,
    wish: Wish,
    rows: list[dict[str, Any]],
    winner: Arm,
    held: dict[str, Any],
    base: dict[str, Any],
    tuning: PromptSet,
    holdout: PromptSet,
) -> dict[str, Any]:
    pairs = zip(held["quality"]["scores"], base["quality"]["scores"], strict=True)
    difference = paired_mean([a - b for a, b in pairs])
    score = held["quality"]["all"]["score"]
    stem = f"sweep-{target.step or 0:08d}"
    origin = {"model": target.identity, "step": target.step, "arm": winner.name, "holdout_quality": round(score, 4)}
    result = {
        "v": SWEEP_VERSION,
        "target": target.name,
        "step": target.step,
        "winner": {"arm": winner.name, **asdict(winner.sampling)},
        "tuning": {"n": len(tuning.prompts), "sha256": tuning.sha256, "quality": rows[0]["quality"]},
        "holdout": {"n": len(holdout.prompts), "sha256": holdout.sha256, "quality": score},
        "holdout_of_default": base["quality"]["all"]["score"],
        "holdout_difference": _finite(asdict(difference)),
        "leaderboard": rows,
        "files": [f"{stem}-tuning.csv", f"{stem}-holdout.csv"],
        "generation_config": to_generation_config(
            winner.sampling, max_new_tokens=wish.max_new_tokens, eot_id=target.tokenizer.eot_id, origin=origin
        ),
    }
    held_rows = [_row(winner, held), _row(Arm(name="default", sampling=PRESETS["default"]), base)]
    try:
        make_folder(target.evals)
        for name, some in zip(result["files"], (rows, held_rows), strict=True):
            write_atomic(target.evals / name, leaderboard(some))
    except OSError as error:
        raise write_error(target.evals, error) from error
    write_sealed(target.evals / f"{stem}.json", result)
    return result


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no infinity, which is how wide an interval of one prompt is."""
    return {name: None if value in (float("inf"), float("-inf")) else value for name, value in values.items()}
