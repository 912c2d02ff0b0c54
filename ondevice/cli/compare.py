"""``ondevice compare RUN RUN ...``: what the runs have different, and what came of it."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ondevice.cli.common import duration, for_terminal, print_json
from ondevice.errors import UsageError
from ondevice.run.comparison import MIXED, Record, best_within, differences, equal_tokens, read_record
from ondevice.run.directory import RunDir, find_run
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.recipe import Recipe
from ondevice.run.telemetry import read_records
from ondevice.run.usage import rates

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice compare notes notes-tail
  ondevice compare notes ~/copies/notes --json

Losses are the best each run reached within the tokens that all of them had. Runs may be live, dead or copies."""

_LONGEST_VALUE = 24
_UNTOLD = ("data.order_sha256", "eval.", "sample.")  # told apart in --json only


@dataclass(frozen=True)
class _Side:
    """One of the runs."""

    run: RunDir
    state: str
    recipe: Recipe
    record: Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="names or paths of two or more runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    if len(args.runs) < 2:
        raise UsageError("ondevice compare: name at least two runs; `ondevice runs list` shows them.")
    runs = [find_run(name) for name in args.runs]
    if twice := next((each for each in runs if runs.count(each) > 1), None):
        raise UsageError(f"{twice.name}: named twice; name every run once.")
    sides = [_side(each) for each in runs]
    if args.json:
        print_json(_as_json(sides))
    else:
        print(for_terminal("\n".join(_lines(sides, shutil.get_terminal_size().columns))))
    return 0


def _side(run: RunDir) -> _Side:
    return _Side(run, read_liveness(run).state, run.read_recipe(), read_record(read_records(run.telemetry)))


def _measure(sides: Sequence[_Side]) -> str:
    """Losses a token can be compared only where tokens are the same; bits a byte always."""
    return "nats" if len({side.recipe.data.tokenizer_sha256 for side in sides}) == 1 else "bits"


def _as_json(sides: Sequence[_Side]) -> dict[str, Any]:
    measure, tokens = _measure(sides), equal_tokens([side.record for side in sides])
    return {
        "measure": "nats_per_token" if measure == "nats" else "bits_per_byte",
        "equal_tokens": tokens,
        "same_text": _same_text(sides),
        "differences": differences([side.recipe for side in sides]),
        "runs": [_facts(side, tokens, measure) for side in sides],
    }


def _facts(side: _Side, tokens: int | None, measure: str) -> dict[str, Any]:
    from ondevice.model.counts import count_parameters

    story, usage = side.record.story, side.record.story.usage
    burst_tok_s, sustained_tok_s = rates(read_status(side.run), usage)
    return {
        "run": side.run.name,
        "path": str(side.run.path),
        "state": side.state,
        "parameters": count_parameters(side.recipe.model),
        "recipe_sha256": side.recipe.sha256,
        "step": story.step,
        "steps": side.recipe.train.steps,
        "tokens": story.tokens,
        "best_at_equal_tokens": {} if tokens is None else best_within(side.record, tokens, measure=measure),
        "best": best_within(side.record, None, measure=measure),
        "best_step": story.best_step,
        "burst_tok_s": burst_tok_s,
        "sustained_tok_s": sustained_tok_s,
        "wall_s": usage.open_s + usage.waited_s,
        "worked_s": usage.worked_s,
        "waited_s": usage.waited_s,
        "wh_per_mtok": usage.wh_per_mtok,
        "launches": story.launches,
        "kills": story.kills,
    }


def _same_text(sides: Sequence[_Side]) -> bool:
    return len({side.recipe.data.dataset_sha256 for side in sides}) == 1


# --- for people -------------------------------------------------------------------------------------------------------

_Row = tuple[str, list[str]]


def _lines(sides: Sequence[_Side], width: int) -> Iterator[str]:
    names = [_letter(index) for index in range(len(sides))]
    for name, side in zip(names, sides, strict=True):
        yield f"{name}  {_title(side, sides)}: {side.state}"
    tokens, measure = equal_tokens([side.record for side in sides]), _measure(sides)
    facts = [_facts(side, tokens, measure) for side in sides]
    yield from ("", *_table(names, _progress(facts), width))
    yield from ("", *_loss_lines(facts, names, tokens, measure, width))
    if not _same_text(sides):
        yield "Their text is not the same, so that losses are of different validation text."
    if len({side.recipe.vocabulary for side in sides}) > 1:
        yield "Their losses are over different tokens (model.vocabulary); `ondevice eval` measures each over all."
    yield from ("", *_recipe_lines(sides, names, width))


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def _title(side: _Side, sides: Sequence[_Side]) -> str:
    same = sum(other.run.name == side.run.name for other in sides) > 1
    return str(side.run.path) if same else side.run.name


def _progress(facts: list[dict[str, Any]]) -> list[_Row]:
    def row(name: str, key: str, form: str) -> _Row:
        return name, ["-" if fact[key] is None else form.format(fact[key]) for fact in facts]

    rows = [
        row("parameters", "parameters", "{:,}"),
        ("step", [f"{fact['step']:,}/{fact['steps']:,}" for fact in facts]),
        row("tokens", "tokens", "{:,}"),
        row("tok/s", "burst_tok_s", "{:,.0f}"),
        row("sustained", "sustained_tok_s", "{:,.0f}"),
        ("wall time", [duration(fact["wall_s"]) for fact in facts]),
        ("in steps", [duration(fact["worked_s"]) for fact in facts]),
        ("waited", [duration(fact["waited_s"]) for fact in facts]),
        row("Wh/M tokens", "wh_per_mtok", "{:,.3g}"),
        row("kills", "kills", "{}"),
    ]
    return [(name, values) for name, values in rows if set(values) not in ({"-"}, {"0s"}, {"0"})]


def _loss_lines(
    facts: list[dict[str, Any]], names: list[str], tokens: int | None, measure: str, width: int
) -> Iterator[str]:
    if tokens is None:
        yield "One of them was never evaluated, so no losses."
        return
    unit = "nats a token" if measure == "nats" else "bits a byte"
    yield f"Best validation loss, {unit},"
    yield f"within {tokens:,} tokens"
    yield from _table(names, _loss_rows(facts, "best_at_equal_tokens"), width)
    if any(fact["best"] != fact["best_at_equal_tokens"] for fact in facts):
        yield "with all tokens of each"
        yield from _table(names, _loss_rows(facts, "best"), width)


def _loss_rows(facts: list[dict[str, Any]], key: str) -> list[_Row]:
    """A row for each source, the mixture last."""
    sources = sorted(dict.fromkeys(source for fact in facts for source in fact[key]), key=lambda name: name == MIXED)
    return [(source or "(all)", _starred([fact[key].get(source) for fact in facts])) for source in sources]


def _starred(losses: list[float | None]) -> list[str]:
    """The lowest is marked, where there is one."""
    known = [loss for loss in losses if loss is not None]
    best = min(known) if len(set(known)) > 1 else None
    return ["-" if loss is None else f"{loss:.4f}" + ("*" if loss == best else " ") for loss in losses]


def _recipe_lines(sides: Sequence[_Side], names: list[str], width: int) -> Iterator[str]:
    found = differences([side.recipe for side in sides])
    rows = [(key, [_shown(value) for value in row]) for key, row in found.items() if not key.startswith(_UNTOLD)]
    if not rows:
        yield "Their recipes are the same" + ("." if not found else ", but for how they are watched.")
        return
    yield "Recipes differ in"
    yield from _table(names, rows, width)


def _shown(value: Any) -> str:
    text = "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 2] + ".."


def _table(names: list[str], rows: list[_Row], width: int) -> Iterator[str]:
    """A column for each run where the screen is wide enough, else a line for each value."""
    if not rows:
        return
    first = max(len(name) for name, _ in rows)
    columns = [max(len(names[index]), *(len(values[index]) for _, values in rows)) for index in range(len(names))]
    if first + sum(column + 2 for column in columns) > width:
        for name, values in rows:
            yield name
            yield from (f"  {letter}  {value}" for letter, value in zip(names, values, strict=True))
        return
    for name, values in [("", names), *rows]:
        cells = [f"{value:>{column}}" for value, column in zip(values, columns, strict=True)]
        yield (f"{name:<{first}}  " + "  ".join(cells)).rstrip()
