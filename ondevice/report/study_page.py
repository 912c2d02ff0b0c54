"""The page of a study: question, trajectories with spread over seeds, comparisons, order effects, provenance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ondevice.report.figures import UNKNOWN, duration, interval, loss, millions, moment, percent
from ondevice.report.page import Chart, Curve, Page
from ondevice.report.rises import RISE_HEAD, advice, rise_rows, seed_advice
from ondevice.run.studies import StudyDir

__all__ = ["study_page"]

_MIXED = ""
_MOST_SOURCES = 12


def study_page(study: StudyDir) -> Page:
    """Raises DataError or CheckpointError where the record cannot be read."""
    record = study.read()
    results, page = record["results"], Page(f"Study {record['name']}")
    arms = {name: arm for name, arm in results["arms"].items() if arm["tokens"]}
    if record["question"]:
        page.say(record["question"])
    _standing(page, record)
    for sentence in results["cannot"]:
        page.say(sentence)
    _trajectories(page, arms)
    _ends(page, arms)
    _statistics(page, arms)
    _comparisons(page, results)
    _quality(page, arms, results["comparisons"])
    _orders(page, results["order_effects"])
    _rates(page, record["lr_range"])
    _provenance(page, study, record)
    return page


def _standing(page: Page, record: dict[str, Any]) -> None:
    done = sum(cell["state"] == "finished" for cell in record["cells"])
    seeds = ", ".join(map(str, record["seeds"]))
    page.say(
        f"{done} of {len(record['planned'])} runs finished: {len(record['arms'])} arms, seeds {seeds}, "
        f"{record['intervals']} evaluations a run."
    )
    rows = [(arm["name"], _told_arm(arm)) for arm in record["arms"]]
    page.table(("arm", "what it is"), rows, words=2)


def _told_arm(arm: dict[str, Any]) -> str:
    learned = [change for change in arm["changes"] if not change.startswith(("limits.", "fit."))]
    changes = f"; {', '.join(learned)}" if learned else ""
    if arm["from"] is None:
        stages = f" ({', then '.join(arm['stages'])})" if arm.get("stages") else ""
        return f"order {arm['order']}{stages}{changes}"
    tail = f"{arm['tail']} tail" if arm["tail"] else "no tail"
    return f"from {arm['from']} at {millions(arm['at_tokens'])} tokens, {millions(arm['tokens'])} more, {tail}{changes}"


def _trajectories(page: Page, arms: dict[str, Any]) -> None:
    """One chart of the mixture, then one for every source; bands are one standard deviation between seeds."""
    page.head("Trajectories, mean over seeds")
    sources = sorted({name for arm in arms.values() for name in arm["loss"]} - {_MIXED})
    shown = [_MIXED, *(sources if len(sources) > 1 else [])]
    for source in shown[: _MOST_SOURCES + 1]:
        curves = tuple(_curve(name, arm, source) for name, arm in arms.items() if source in arm["loss"])
        title = f"Validation loss of {source}" if source else "Validation loss, all sources mixed"
        page.chart(Chart(title=title, x="tokens", y="nats a token", curves=curves))
    page.say("Bands: one standard deviation between seeds on either side of the mean.")


def _curve(name: str, arm: dict[str, Any], source: str) -> Curve:
    rows = [(x, each) for x, each in zip(arm["tokens"], arm["loss"][source], strict=True) if each is not None]
    points = tuple((float(x), each["mean"]) for x, each in rows)
    band = tuple(
        (float(x), each["mean"] - each["standard_deviation"], each["mean"] + each["standard_deviation"])
        for x, each in rows
        if each["standard_deviation"] is not None
    )
    return Curve(name, points, band)


def _ends(page: Page, arms: dict[str, Any]) -> None:
    """Best interval against endpoint, and what the tokens after the best cost."""
    page.head("Best interval and end")
    rows = []
    for name, arm in arms.items():
        if "best" in arm:
            effect = arm["end_minus_best"]["effect_size"]
            rows.append(
                (
                    name,
                    f"{loss(arm['best']['loss'])} at {millions(arm['best']['tokens'])}",
                    f"{loss(arm['end']['loss'])} at {millions(arm['end']['tokens'])}",
                    interval(arm["end_minus_best"]),
                    UNKNOWN if effect is None else f"{effect:+.2f}",
                    duration(arm["cost"]["after_best_s"]),
                )
            )
    page.table(("arm", "lowest mean", "end", "end - lowest (95 %)", "effect size", "time after best"), rows)
    for name, arm in arms.items():
        if "best" in arm:
            page.say(f"{name}: {advice(arm)}")
    rises = list(rise_rows(arms))
    page.table(RISE_HEAD, rises, words=2)
    if rises:
        page.say(
            "Nats a token above the lowest mean by the last reading, and above that of the last reading, with "
            "intervals over seeds adjusted for the number of sources. A source that rises while it is read again is "
            "over-trained; one that rises after its last reading is forgotten."
        )
    read = [
        (name, str(source), millions(tokens), f"{arm['exposure']['epochs'].get(source, 0.0):.2f}")
        for name, arm in arms.items()
        for source, tokens in arm["exposure"]["tokens"].items()
    ]
    page.table(("arm", "source", "tokens read", "epochs"), read, words=2)


def _statistics(page: Page, arms: dict[str, Any]) -> None:
    page.head("Repeated measures over seeds")
    rows = []
    for name, arm in arms.items():
        found = arm["anova"]
        if found is None or "skipped" in found:
            page.say(f"{name}: {'not measured' if found is None else found['skipped']}")
            continue
        df = f"{found['df1'] * found['epsilon']:.2f}, {found['df2'] * found['epsilon']:.2f}"
        rows.append(
            (
                name,
                f"{found['subjects']} x {found['levels']}",
                f"{found['f']:.2f}",
                df,
                f"{found['epsilon']:.3f}",
                f"{found['partial_eta_squared']:.3f}",
                f"{found['p_corrected']:.2g}",
            )
        )
    page.table(("arm", "seeds x intervals", "F", "df", "epsilon", "partial eta squared", "p"), rows)
    if rows:
        page.say("Analysis of variance of the interval within seeds; df and p are corrected by Greenhouse and Geisser.")
    page.table(
        ("arm", "seed", "volatility", "backslides", "spikes", "best step", "advice"),
        [row for name, arm in arms.items() for row in _shapes(name, arm)],
    )


def _shapes(name: str, arm: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for seed, shape in arm["shape"].items():
        yield (
            name,
            seed,
            loss(shape["volatility"][-1]),
            str(shape["backslides"]["count"]),
            str(len(shape["spikes"])),
            f"{shape['best_step']:,}",
            seed_advice(shape["advice"]["what"], arm.get("rises", {})),
        )


def _comparisons(page: Page, results: dict[str, Any]) -> None:
    if not results["comparisons"]:
        return
    page.head("Arms in pairs of seeds")
    rows = []
    for each in results["comparisons"]:
        at = millions(each["tokens"]) + (" (between evaluations)" if each["interpolated"] else "")
        for source, found in each["loss"].items():
            effect = UNKNOWN if found["effect_size"] is None else f"{found['effect_size']:+.2f}"
            sure = "yes" if found["surely"] else "not sure"
            rows.append((f"{each['second']} - {each['first']}", source or "all", at, interval(found), effect, sure))
    page.table(("pair", "source", "tokens", "difference in nats", "effect size", "differs"), rows, words=2)
    page.say(
        f"Intervals of {results['level']:.1%}, adjusted for {_pairs(results)}; effect size: Hedges' g, the mean of the "
        "paired differences over their standard deviation, made smaller for few seeds; of two seeds there is none."
    )


def _quality(page: Page, arms: dict[str, Any], comparisons: list[dict[str, Any]]) -> None:
    judged = {name: arm["quality"] for name, arm in arms.items() if arm["quality"]}
    if not judged:
        return
    page.head("Quality of what is written")
    rows = [
        (name, group or "all", _spread(found["end"][group]), _spread(found["best"][group]))
        for name, found in judged.items()
        for group in found["end"]
    ]
    page.table(("arm", "group", "last checkpoint", "best checkpoint"), rows, words=2)
    for name, found in judged.items():
        best = ", ".join(f"{step:,}" for step in found["best_steps"].values())
        lowest = ", ".join(UNKNOWN if step is None else f"{step:,}" for step in found["lowest_loss_steps"].values())
        page.say(
            f"{name}: best by quality at steps {best}, by loss at {lowest}; difference in quality "
            f"{interval(found['best_minus_lowest_loss'], digits=1)} points (never below 0, since the best was chosen "
            "by it: what is sure of it stands in the selection of each run)."
        )

    pairs = [
        (
            f"{each['second']} - {each['first']}",
            group or "all",
            interval(found, digits=1),
            UNKNOWN if found["effect_size"] is None else f"{found['effect_size']:+.2f}",
            "yes" if found["surely"] else "not sure",
        )
        for each in comparisons
        for group, found in (each["quality"] or {}).items()
    ]
    page.table(("pair", "group", "difference in points", "effect size", "differs"), pairs, words=2)
    if pairs:
        page.say(
            "Of the last judged checkpoint of each run, in pairs of seeds, with the intervals of the losses above."
        )


def _spread(found: dict[str, Any] | None) -> str:
    if found is None:
        return UNKNOWN
    deviation = found["standard_deviation"]
    return f"{found['mean']:.1f}" + ("" if deviation is None else f" (sd {deviation:.1f})")


def _orders(page: Page, effects: dict[str, Any]) -> None:
    if not effects:
        return
    page.head("Order effects")
    for name, found in effects.items():
        if found["gap"] is None:
            page.say(f"{name}: its sources were read side by side, so that none is early or late.")
            continue
        against = "beyond that of the reference" if found["against_reference"] else "no reference to subtract"
        page.say(
            f"{name}: early {', '.join(found['early'])}; late {', '.join(found['late'])}. Late - early at the end: "
            f"{interval(found['gap']['end'])} nats, {against}; on the mean of the training "
            f"{interval(found['gap']['mean_over_training'])}."
        )
        if found["gap"]["quality"] is not None:
            page.say(f"{name}: late - early in quality {interval(found['gap']['quality'], digits=1)} points.")
    curves = tuple(
        Curve(name, tuple(zip(map(float, found["gap"]["tokens"]), found["gap"]["curve"], strict=True)))
        for name, found in effects.items()
        if found["gap"] is not None
    )
    page.chart(Chart(title="Late half - early half", x="tokens", y="nats a token", curves=curves))
    rows = [
        (
            name,
            source,
            percent(found["centres"][source]),
            percent(each["since_read"]),
            interval(each["forgotten"]),
        )
        for name, found in effects.items()
        for source, each in found["recency"]["sources"].items()
    ]
    page.table(("arm", "source", "read on the mean at", "since it was read", "nats above its best"), rows, words=2)
    for name, found in effects.items():
        slope = found["recency"]["nats_forgotten_over_whole_training"]
        if slope is not None:
            page.say(f"{name}: recency, nats forgotten if the whole training went by: {interval(slope)}.")


def _rates(page: Page, tests: dict[str, Any]) -> None:
    if not tests:
        return
    page.head("Learning-rate range test")
    curves = []
    for name, found in tests.items():
        page.say(
            f"{name}: about {found['suggested']:.2g} ({found['lowest']:.2g} to {found['highest']:.2g} over "
            f"{len(found['seeds'])} seeds)."
        )
        first = found["tests"][0]
        curves.append(Curve(name, tuple(zip(first["lrs"], first["losses"], strict=True))))
    page.chart(Chart(title="Smoothed loss", x="learning rate", y="first seed", curves=tuple(curves), log_x=True))


def _provenance(page: Page, study: StudyDir, record: dict[str, Any]) -> None:
    page.head("Provenance")
    versions = ", ".join(f"{name} {number}" for name, number in record["results"]["versions"].items())
    rows = [
        ("version of ondevice", record["code_version"]),
        ("formulas", versions),
        ("design", record["design_sha256"]),
        ("command", f"ondevice study run {study.design.name}"),
    ]
    page.table(("", ""), rows, words=2)
    page.table(
        ("run", "state", "recipe", "ended"),
        [(cell["name"], cell["state"], cell["recipe_sha256"], moment(cell["noted_t"])) for cell in record["cells"]],
        words=4,
    )


def _pairs(results: dict[str, Any]) -> str:
    count = len(results["comparisons"])
    return "1 pair" if count == 1 else f"{count} pairs"
