"""The page of one run: how it stands, its curves and cost, its checkpoints, what it wrote, and where it is from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from ondevice.evaluate.trajectory import Settings, advise, diminishing, trajectory
from ondevice.model.counts import count_parameters
from ondevice.report.figures import UNKNOWN, duration, loss, millions, moment, percent, size, source_name
from ondevice.report.gather import RunFacts
from ondevice.report.page import Chart, Curve, Page, Text, thinned_points
from ondevice.report.run_choice import decoding, selection
from ondevice.run.comparison import MIXED
from ondevice.run.digest import best_of
from ondevice.run.series import Series
from ondevice.run.telemetry import as_number
from ondevice.run.usage import rates
from ondevice.study.story import points_of

__all__ = ["run_page"]

_MOST_SOURCES = 8  # curves in one chart
_MOST_COLUMNS = 6
_MOST_ROWS = 60
_HEAT = {"battery_c": "battery", "skin_c": "body", "cpu_c": "processor"}
_SHOWN_STEPS = 6


def run_page(facts: RunFacts) -> Page:
    """Everything that is known; what is not has no section."""
    page = Page(f"Run {facts.run.name}")
    _standing(page, facts)
    _curves(page, facts)
    _evaluations(page, facts)
    _shape(page, facts)
    _generations(page, facts)
    _checkpoints(page, facts)
    selection(page, facts.selection)
    decoding(page, facts.sweep)
    _cost(page, facts)
    _decisions(page, facts)
    _provenance(page, facts)
    for sentence in facts.trouble:
        page.say(f"Not readable: {sentence}")
    return page


def _standing(page: Page, facts: RunFacts) -> None:
    story, recipe = facts.story, facts.recipe
    steps = story.steps or (recipe.train.steps if recipe else 0)
    share = f" ({100 * story.step / steps:.0f} %)" if steps else ""
    rows = [("state", facts.alive.state), ("step", f"{story.step:,} of {steps:,}{share}")]
    if recipe is not None:
        shape = recipe.model
        size_text = f"{count_parameters(shape):,} parameters, {shape.arch}, {shape.layers} x {shape.width}"
        rows.append(("model", f"{size_text}, context {shape.context:,}, vocabulary {shape.vocab_size:,}"))
        if recipe.vocabulary is not None:
            rows.append(("trimmed vocabulary", f"{recipe.vocabulary.told(shape.vocab_size)}; losses are over these"))
    rows += _read_so_far(facts)
    best_step, best_loss = best_of(story, facts.status)
    if best_loss is not None:
        rows.append(("best validation loss", f"{best_loss:.4f} nats a token at step {best_step:,}"))
    page.table(("", ""), rows, words=2)
    for record in [each for each in facts.told if each["kind"] == "advice"][-3:]:
        page.say(f"Advice at step {record['step']:,}: {record.get('text')}")


def _read_so_far(facts: RunFacts) -> Iterator[tuple[str, str]]:
    """Tokens, with the epochs and the different tokens among them beside."""
    yield "tokens", millions(facts.story.tokens)
    if not facts.evals or not facts.intervals:
        return
    last = facts.intervals[-1]
    if last.epochs:
        most = max(last.epochs, key=lambda name: last.epochs[name])
        mean = as_number(facts.evals[-1].get("epochs"))
        text = f"{last.epochs[most]:.2f} of {source_name(most)}" + (", the most read" if len(last.epochs) > 1 else "")
        text = text if mean is None or len(last.epochs) == 1 else f"{mean:.2f}; {text}"
        unique = sum(tokens / max(1.0, last.epochs.get(name, 1.0)) for name, tokens in last.trained.items())
        yield "epochs", f"{text}; about {millions(unique)} different tokens"


def _curves(page: Page, facts: RunFacts) -> None:
    page.head("Curves")
    story = facts.story
    sources = _sources(facts)
    curves = [Curve(name or "all", _points(facts, name)) for name in (MIXED, *sources[:_MOST_SOURCES])]
    if len(sources) == 1:
        curves = curves[1:]
    best = min(points_of(facts.intervals, MIXED), key=lambda point: point.loss, default=None)
    marks = (("best", float(best.tokens), best.loss),) if best else ()
    page.chart(Chart(title="Validation loss", x="tokens", y="nats a token", curves=tuple(curves), marks=marks))
    page.chart(_by_language(facts))
    page.chart(_probes(facts))
    page.chart(_over_steps("Training loss", "nats a token", story.loss))
    page.chart(_over_steps("Learning rate", "of each step", story.lr))
    page.chart(_over_steps("Gradient norm", "before clipping", story.grad_norm))
    page.chart(_over_steps("Rate in steps", "tokens a second", story.tok_s))
    heat = tuple(Curve(name, _felt(facts, key)) for key, name in _HEAT.items())
    page.chart(Chart(title="Temperature", x="hours since the first launch", y="C", curves=heat))
    for key, title, y in (
        ("duty", "Duty", "share of the time at work"),
        ("power_w", "Power", "W from the battery"),
        ("battery_percent", "Charge", "%"),
        ("rss_mb", "Memory", "MB"),
    ):
        page.chart(Chart(title=title, x="hours since the first launch", y=y, curves=(Curve("", _felt(facts, key)),)))
    if len(sources) > _MOST_SOURCES:
        page.say(f"{len(sources) - _MOST_SOURCES} more sources are in the story and not drawn.")


def _by_language(facts: RunFacts) -> Chart:
    """Where a language has several sources; else the curves of the sources say it."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in facts.evals:
        if 1 < len(losses := record.get("val_loss_by_language") or {}) < len(record.get("val_loss") or {}):
            for name, value in losses.items():
                found.setdefault(name, []).append((float(record.get("tokens") or 0), float(value)))
    curves = tuple(Curve(name, thinned_points(points)) for name, points in found.items())
    return Chart(title="Validation loss by language", x="tokens", y="nats a token", curves=curves)


def _probes(facts: RunFacts) -> Chart:
    points = [
        (float(record.get("tokens") or 0), float(record["probes"]["mean_probability"]))
        for record in facts.evals
        if isinstance(record.get("probes"), dict)
    ]
    curve = Curve("", thinned_points(points))
    return Chart(title="Probes", x="tokens", y="probability of the true next token", curves=(curve,))


def _sources(facts: RunFacts) -> list[str]:
    return sorted({name for each in facts.intervals for name in each.losses if name != MIXED})


def _points(facts: RunFacts, source: str) -> tuple[tuple[float, float], ...]:
    return thinned_points([(float(point.tokens), point.loss) for point in points_of(facts.intervals, source)])


def _over_steps(title: str, y: str, series: Series) -> Chart:
    return Chart(title=title, x="step", y=y, curves=(Curve("", thinned_points(series.points)),))


def _felt(facts: RunFacts, name: str) -> tuple[tuple[float, float], ...]:
    return tuple(facts.felt[name].points) if name in facts.felt else ()


def _evaluations(page: Page, facts: RunFacts) -> None:
    if not facts.intervals:
        return
    page.head("Evaluations")
    sources = _sources(facts)[:_MOST_COLUMNS]
    lowest = min((each.losses.get(MIXED, math.inf) for each in facts.intervals), default=math.inf)
    rows = []
    for each in facts.intervals[-_MOST_ROWS:]:
        mixed = each.losses.get(MIXED)
        best = " (best)" if mixed == lowest else ""
        perplexity = UNKNOWN if mixed is None else f"{math.exp(min(mixed, 700.0)):,.1f}"
        losses = [loss(each.losses.get(name)) for name in sources]
        rows.append((f"{each.step:,}{best}", millions(each.tokens), loss(mixed), perplexity, *losses))
    page.table(("step", "tokens", "mixed loss", "perplexity", *sources), rows)
    if len(facts.intervals) > _MOST_ROWS:
        page.say(f"The last {_MOST_ROWS} of {len(facts.intervals)} evaluations; the others are in the story.")


def _shape(page: Page, facts: RunFacts) -> None:
    """Volatility, backslides, spikes, stable phase, and what follows."""
    points = points_of(facts.intervals, MIXED)
    if not points:
        return
    found, train = trajectory(points), facts.recipe.train if facts.recipe else None
    waiting = train is not None and train.schedule == "wsd" and points[-1].step < train.steps - train.tail_steps
    advice, after, told = advise(points, in_stable_phase_of_wsd=waiting), diminishing(found), found.to_json()
    rows = [
        ("rolling volatility now", loss(found.volatility[-1])),
        ("backslides", f"{len(found.backslides)} ({percent(found.backslide_rate)} of the evaluations)"),
        ("largest backslide", loss(told["backslides"]["largest"])),
        ("above the best now", loss(found.drawdown[-1])),
        ("spikes at steps", ", ".join(f"{step:,}" for step in told["spikes"]) or "none"),
        ("stable since step", UNKNOWN if found.stable_since is None else f"{told['stable_since_step']:,}"),
        ("tokens since the best", millions(after.tokens_since_best)),
        ("gain per million tokens since", loss(after.nats_per_million)),
    ]
    page.head("Shape of the validation curve")
    page.table(("", ""), rows, words=2)
    ended = advice.what == "go on" and facts.alive.state == "finished"  # then nothing is to be decided
    page.say(advice.why if ended else f"{advice.what[0].upper()}{advice.what[1:]}: {advice.why}")
    settings = ", ".join(f"{key} {value:g}" for key, value in Settings().to_json().items())
    page.say(f"Formulas: {settings}.")


def _generations(page: Page, facts: RunFacts) -> None:
    """What the same prompt was answered with along the training."""
    chosen = _some(sorted(facts.samples), _SHOWN_STEPS)
    panels = {record["step"]: record for record in facts.evals if isinstance(record.get("generations"), list)}
    if not chosen and not panels:
        return
    page.head("Generations side by side")
    by_prompt: dict[str, list[Text]] = {}
    for step in chosen:
        for record in facts.samples[step]:
            text = Text(f"step {step:,}", str(record.get("text", "")))
            by_prompt.setdefault(str(record.get("prompt", "")), []).append(text)
    prompts = facts.recipe.eval.panel_prompts if facts.recipe else ()
    for place, prompt in list(enumerate(prompts))[:4]:
        for step in _some(sorted(panels), _SHOWN_STEPS):
            texts = panels[step]["generations"]
            if place < len(texts):
                by_prompt.setdefault(prompt, []).append(Text(f"step {step:,}", str(texts[place])))
    for prompt, texts in list(by_prompt.items())[:8]:
        page.texts(f"After: {prompt or '(nothing)'}", texts)


def _some(steps: list[int], count: int) -> list[int]:
    """The first, the last and others evenly between."""
    if len(steps) <= count:
        return steps
    return [steps[index * (len(steps) - 1) // (count - 1)] for index in range(count)]


def _checkpoints(page: Page, facts: RunFacts) -> None:
    if not facts.checkpoints:
        return
    page.head("Checkpoints")
    losses = {each.step: each.losses.get(MIXED) for each in facts.intervals}
    rows = [
        (
            f"{each.step:,}",
            each.pinned or ("" if each.complete else "without optimizer state"),
            loss(losses.get(each.step)),
            UNKNOWN if each.quality is None else f"{each.quality:.1f}",
            size(each.mb),
        )
        for each in facts.checkpoints[-_MOST_ROWS:]
    ]
    page.table(("step", "", "loss", "quality", "size"), rows, words=2)


def _cost(page: Page, facts: RunFacts) -> None:
    usage = facts.story.usage
    eval_s = sum(float(record.get("eval_s") or 0.0) for record in facts.evals)
    rows = [
        ("time allowed to work", duration(usage.open_s)),
        ("time in steps", duration(usage.worked_s)),
        ("time waited", duration(usage.waited_s)),
        ("time in evaluations", duration(eval_s)),
    ]
    burst_tok_s, sustained_tok_s = rates(facts.status, usage)
    if burst_tok_s is not None:
        rows.append(("tokens a second in steps", f"{burst_tok_s:,.0f}"))
    if sustained_tok_s is not None:
        rows.append(("sustained, rests included", f"{sustained_tok_s:,.0f}"))
    if usage.wh_per_mtok is not None:
        rows.append(("energy from the battery", f"{usage.energy_wh:,.2f} Wh"))
        rows.append(("energy a million tokens", f"{usage.wh_per_mtok:,.2f} Wh"))
    else:
        rows.append(("energy", "not known: no battery discharge could be read"))
    if isinstance(parent := facts.identity.get("parent"), dict):
        rows.append(("counted", f"this run alone; before it {parent['run']} was trained to step {parent['step']:,}"))
    page.head("Time and energy")
    page.table(("", ""), rows, words=2)


def _decisions(page: Page, facts: RunFacts) -> None:
    page.head("Decisions")
    if facts.recipe is not None:
        page.table(("derived", "why"), sorted(facts.recipe.why.items()), words=2)
    page.table(("order of the governor", "times"), [(why, str(count)) for why, count in facts.orders.most_common(12)])
    rows = [
        (f"{record['step']:,}", str(record["kind"]), _sentence(record))
        for record in facts.told[-_MOST_ROWS:]
        if record["kind"] != "advice" or record.get("text")
    ]
    page.table(("step", "kind", "told"), rows, words=3)


def _sentence(record: dict[str, Any]) -> str:
    if record["kind"] == "control":
        verdict = "accepted" if record.get("ok") else f"refused: {record.get('why')}"
        return f"{record.get('verb')} {verdict}"
    return str(record.get("text") or record.get("why") or record.get("name") or record["kind"])


def _provenance(page: Page, facts: RunFacts) -> None:
    page.head("Provenance")
    identity, recipe = facts.identity, facts.recipe
    parent = identity.get("parent")
    rows = [
        ("identity", str(identity.get("id", UNKNOWN))),
        ("made", moment(identity.get("created_t"))),
        ("by version", str(identity.get("code_version", UNKNOWN))),
        ("command", " ".join(map(str, identity.get("command", ())))),
        ("launches", f"{facts.story.launches}, of which killed: {facts.story.kills}"),
    ]
    if isinstance(parent, dict):
        rows.append(("parent", f"{parent.get('run')} at step {parent.get('step')}, {parent.get('checkpoint_sha256')}"))
    rows += [(str(key), str(value)) for key, value in (identity.get("environment") or {}).items()]
    if recipe is not None:
        data = recipe.data
        rows += [
            ("recipe", recipe.sha256),
            ("dataset", f"{data.dataset}, {data.dataset_sha256}"),
            ("tokenizer", data.tokenizer_sha256),
            ("order", f"{data.order}, seed {data.seed}, {data.order_sha256}"),
            ("seed of the weights", str(recipe.train.seed)),
        ]
    page.table(("", ""), rows, words=2)
    if recipe is not None:
        train = {key: value for key, value in dataclasses.asdict(recipe.train).items() if value is not None}
        page.table(("training", ""), [(key, str(value)) for key, value in train.items()], words=2)
