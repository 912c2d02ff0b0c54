"""The page of a study: question and findings, trajectories with spread over seeds, comparisons, provenance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ondevice.report.figures import UNKNOWN, duration, interval, loss, millions, moment, source_name
from ondevice.report.findings import findings
from ondevice.report.page import Chart, Curve, Page
from ondevice.report.rises import RISE_HEAD, rise_rows, seed_advice
from ondevice.report.study_orders import orders
from ondevice.report.study_quality import quality
from ondevice.run.comparison import MIXED
from ondevice.run.studies import StudyDir

__all__ = ["study_page"]

_MOST_SOURCES = 12
_WORDS = (
    ("arm", "one of the ways of training that are compared"),
    ("seed", "the same training again from other random numbers, to tell an effect from chance"),
    ("nats a token", "how surprised the model is by text it was not trained on; perplexity is e to the power of it"),
    (
        "a (b to c)",
        "a is the mean over seeds, and the true value lies between b and c, with 95 % unless another share is told",
    ),
    ("effect size", "the difference in units of its spread between seeds: 0.2 is small, 0.8 large"),
    ("epochs", "how often the text of a source was read"),
    ("forgotten", "its loss rose after the last time that it was read"),
    ("over-trained", "its loss rose while it was read again"),
    ("step", "one update of the weights"),
)


def study_page(study: StudyDir) -> Page:
    """Raises DataError or CheckpointError where the record cannot be read."""
    record = study.read()
    results, page = record["results"], Page(f"Study {record['name']}")
    arms = {name: arm for name, arm in results["arms"].items() if arm["tokens"]}
    if record["question"]:
        page.say(record["question"])
    _answer(page, record)
    _standing(page, record)
    _trajectories(page, arms)
    _ends(page, arms)
    _statistics(page, arms)
    _comparisons(page, results)
    quality(page, arms, results["comparisons"])
    orders(page, results["order_effects"])
    _rates(page, record["lr_range"])
    _words(page)
    _provenance(page, study, record)
    return page


def _answer(page: Page, record: dict[str, Any]) -> None:
    """First what came out, then of how much; of a study that is not finished the other way round."""
    page.head("In short")
    done, planned = sum(cell["state"] == "finished" for cell in record["cells"]), len(record["planned"])
    size = (
        f"{len(record['arms'])} arms, seeds {', '.join(map(str, record['seeds']))}, {record['intervals']} evaluations"
    )
    if done < planned:
        page.say(f"Not finished: what follows is of {done} of {planned} runs ({size} a run).")
    for sentence in findings(record["results"], reference=record["reference"]):
        page.say(sentence)
    if done == planned:
        page.say(f"All {planned} runs are finished: {size} a run.")
    for sentence in record["results"]["cannot"]:
        page.say(sentence)


def _standing(page: Page, record: dict[str, Any]) -> None:
    page.head("Arms")
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
    sources = sorted({name for arm in arms.values() for name in arm["loss"]} - {MIXED})
    shown = [MIXED, *(sources if len(sources) > 1 else [])]
    for source in shown[: _MOST_SOURCES + 1]:
        curves = tuple(_curve(name, arm, source) for name, arm in arms.items() if source in arm["loss"])
        title = f"Validation loss of {source_name(source)}" if source else "Validation loss, all sources mixed"
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
    rises = list(rise_rows(arms))
    page.table(RISE_HEAD, rises, words=2)
    if rises:
        page.say(
            "Nats a token above the lowest mean by the last reading, and above that of the last reading, with "
            "intervals over seeds adjusted for the number of sources. A source that rises while it is read again is "
            "over-trained; one that rises after its last reading is forgotten. The lowest is chosen by the same "
            "losses, so a small rise looks a little surer than it is."
        )


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
        words=2,
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
            pair, shown = f"{each['second']} - {each['first']}", source_name(source) or "all"
            rows.append((pair, shown, interval(found), sure, effect, at))
    page.table(("pair", "source", "difference in nats", "differs", "effect size", "at tokens"), rows, words=2)
    page.say(
        f"Intervals of {results['level']:.1%}, adjusted for {_pairs(results)}; effect size: Hedges' g, the mean of the "
        "paired differences over their standard deviation, made smaller for few seeds; of two seeds there is none."
    )


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


def _words(page: Page) -> None:
    page.head("Words")
    page.table(("word", "what it means here"), _WORDS, words=2)


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
