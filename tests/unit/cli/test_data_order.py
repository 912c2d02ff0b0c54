"""``ondevice data order``: the picture is that of what training reads, and warns of what order does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ondevice.cli.data_parts import part_rows
from ondevice.data.parts import StageText, plan_parts
from ondevice.run.directory import RunDir
from ondevice.run.telemetry import read_records

WISH = """
name = "{name}"
[data]
order = "{order}"
split = "hash:0.1"
[tokenizer]
kind = "byte"
[model]
layers = 1
width = 16
heads = 2
context = 32
[train]
steps = 20
batch = 4
lr = 1e-3
precision = "fp32"
[eval]
count = 2
max_tokens = 64
[sample]
count = 0
[fit]
micro_batch = 4
threads = 1
[limits]
min_free_disk_mb = 0
"""
SOURCES = '[[data.sources]]\npath = "{path}"\nname = "{name}"\ngroup = "{group}"\ndocument = "line"\n'


@pytest.fixture
def home(place: Path) -> Path:
    (place / "home").mkdir()
    return place / "home"


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name, lines in (("web", 400), ("wiki", 200), ("poems", 60)):
        found[name] = tmp_path / f"{name}.txt"
        text = "".join(f"{name} line {i} tells of {i * 7919 % 1000} things\n" for i in range(lines))
        found[name].write_text(text, encoding="utf-8")
    return found


def config(folder: Path, texts: dict[str, Path], order: str, *, stages: str = "", name: str = "ordered") -> Path:
    groups = {"web": "general", "wiki": "general", "poems": ""}
    tables = "".join(SOURCES.format(path=path, name=key, group=groups[key]) for key, path in texts.items())
    path = folder / f"{name}.toml"
    path.write_text(WISH.format(order=order, name=name) + tables + stages)
    return path


STAGES = """
[[data.stages]]
name = "general"
groups = ["general"]
[[data.stages]]
name = "poems"
groups = ["poems"]
share = 0.25
replay = 0.2
"""


def test_the_picture_warns_of_a_bias_and_of_repeats(home: Path, texts: dict[str, Path], call: Any) -> None:
    path = config(home, texts, "alphabetical")
    body = call("data", "order", str(path), "--json").json
    assert body["sources"] == ["web", "wiki", "poems"] and body["windows"] == 80
    assert body["shares"][0] == [0.0, 0.0, 1.0] and any("first tenth" in warning for warning in body["warnings"])
    many = call("data", "order", str(path), "--set", "data.order=source_balanced", "--set", "train.steps=400").out
    assert "'poems' is read" in many and "first tenth" not in many


def test_a_staged_run_reads_what_was_shown(home: Path, texts: dict[str, Path], call: Any) -> None:
    path = config(home, texts, "staged", stages=STAGES)
    shown = call("data", "order", str(path), "--json").json
    assert call("train", str(path), "--quiet").code == 0
    run = RunDir(home / "runs" / "ordered")
    recipe = run.read_recipe()
    assert [(stage.name, stage.windows) for stage in recipe.data.stages] == [("general", 60), ("poems", 20)]
    assert recipe.data.groups == {"web": "general", "wiki": "general"}
    last = [record for record in read_records(run.telemetry) if record["kind"] == "eval"][-1]
    assert list(last["trained_tokens"].values()) == shown["tokens"]
    assert list(last["trained_epochs"].values()) == pytest.approx(shown["epochs"], abs=1e-3)
    manifest = json.loads(sorted(run.checkpoints.glob("step-*/manifest.json"))[-1].read_text())
    assert manifest["facts"]["exposure"]["poems"]["tokens"] == last["trained_tokens"]["poems"] == 16 * 32
    assert call("data", "order", "ordered", "--json").json["tokens"] == shown["tokens"]
    assert call("verify", "ordered").code == 0


def test_it_fits_a_phone(home: Path, texts: dict[str, Path], call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "45")
    lines = call("data", "order", str(config(home, texts, "proportional"))).out.splitlines()
    rows = [line for line in lines if "|" in line]
    assert len(rows) == 3 and max(map(len, rows)) <= 45


def test_an_order_is_part_of_the_wish_but_not_of_the_dataset(home: Path, texts: dict[str, Path], call: Any) -> None:
    one = call("data", "build", str(config(home, texts, "proportional")), "--json").json["path"]
    two = call("data", "build", str(config(home, texts, "staged", stages=STAGES)), "--json").json["path"]
    assert one == two


LADDER = """
[data.items]
max_tokens = 24
[data.curriculum]
mixing = 0.3
"""


def test_a_curriculum_reads_what_was_shown(
    home: Path, texts: dict[str, Path], call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts["wiki"].write_text("".join(f"{'long ' * (i % 30)}wiki line {i}.\n" for i in range(300)), encoding="utf-8")
    path = config(home, texts, "curriculum", stages=LADDER)
    shown = call("data", "order", str(path), "--json").json
    means = shown["difficulty"]
    assert means[0] < 0.9 * means[-1] and shown["order"].startswith("Order curriculum, the whole run")
    assert call("train", str(path), "--quiet", "--set", "limits.save_every_steps=10").code == 0
    run = RunDir(home / "runs" / "ordered")
    found = run.read_recipe().data.curriculum
    assert found is not None and (found.by, found.mixing, found.windows) == ("length", 0.3, 80)
    last = [record for record in read_records(run.telemetry) if record["kind"] == "eval"][-1]
    assert list(last["trained_tokens"].values()) == shown["tokens"]
    again = call("data", "order", "ordered", "--json").json
    assert (again["tokens"], again["difficulty"]) == (shown["tokens"], means)
    assert call("verify", "ordered", "--replay").code == 0
    monkeypatch.setenv("COLUMNS", "45")
    rows = [line for line in call("data", "order", "ordered").out.splitlines() if line.startswith("length")]
    assert len(rows) == 1 and len(rows[0]) <= 45
    assert call("fork", "ordered", "--steps", "+5", "--name", "longer").code == 0
    assert RunDir(home / "runs" / "longer").read_recipe().data.order_sha256 == run.read_recipe().data.order_sha256
    other = call("fork", "ordered", "--steps", "+5", "--name", "other", "--set", "data.curriculum.mixing=1")
    assert other.code == 0 and "new order" in other.out


def test_items_are_another_dataset_and_a_curriculum_is_not(home: Path, texts: dict[str, Path], call: Any) -> None:
    def built(order: str, more: str = "") -> Any:
        return call("data", "build", str(config(home, texts, order, stages=more)), "--json").json

    plain, ladder = built("proportional"), built("curriculum", "[data.curriculum]\nmixing = 1.0\n")
    cut = built("proportional", "[data.items]\nmax_tokens = 16\n")
    assert plain["path"] == ladder["path"] != cut["path"]
    assert sum(cut["sources"][0]["cuts"].values()) > 0 and "cuts" not in plain["sources"][0]
    said = call("data", "inspect", cut["path"]).out
    assert " items; cut " in said and "inside sentences or lines" in said


def test_a_chain_has_no_curriculum(home: Path, texts: dict[str, Path], call: Any) -> None:
    path = config(home, texts, "curriculum")
    path.write_text(path.read_text().replace("steps = 20\n", ""))
    result = call("data", "build", str(path), "--parts", "3")
    assert result.code == 2 and "take staged with easier and harder groups" in result.err


def test_parts_are_as_long_as_what_they_read_not_as_what_they_replay_from() -> None:
    stages = [StageText(name="early", windows={"a": 90}), StageText(name="late", windows={"b": 10}, replay=0.1)]
    rows = list(part_rows(plan_parts(stages, parts=2, batch=1, safety=1.0), context=100))
    assert [row.split() for row in rows if "tokens" in row] == [
        ["001", "9,000", "tokens", "a"],
        ["002", "1,000", "tokens", "b,", "a"],
    ]


def test_a_curriculum_of_equals_is_called_a_shuffle(home: Path, texts: dict[str, Path], call: Any) -> None:
    for path in texts.values():
        path.write_text("".join(f"line {i:04}\n" for i in range(int(path.stat().st_size) // 12)))
    path = config(home, texts, "curriculum", stages="[data.curriculum]\n")
    result = call("data", "order", str(path), "--set", "data.deduplicate=false", "--set", "train.steps=5")
    assert "this curriculum is a shuffle" in result.out
    scored = call("data", "order", str(path), "--set", "data.curriculum.by=score")
    assert scored.code == 2 and "'web' has no scores; give it score_field" in scored.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.order=source_balnced", "source_balanced"),
        ("data.order=staged", "needs [[data.stages]]"),
        ("data.temperature=0.5", "at least 1"),
        ("data.order=curriclum", "did you mean 'curriculum'?"),
        ("data.curriculum.mixing=2", "at most 1"),
        ("data.items.max_tokens=4", "at least 8"),
        ("data.items.overlap_tokens=4", "need max_tokens"),
    ],
)
def test_slips(home: Path, texts: dict[str, Path], call: Any, change: str, words: str) -> None:
    result = call("data", "order", str(config(home, texts, "proportional")), "--set", change)
    assert result.code == 2 and words in result.err
