"""The shipped studies: each is understood, and has the size that its question needs."""

from __future__ import annotations

from pathlib import Path

import pytest

import ondevice
from ondevice.model.counts import count_parameters
from ondevice.run.recipe import ModelShape
from ondevice.study.conduct import cells_of
from ondevice.study.design import read_design

FOLDER = Path(ondevice.__file__).parents[1] / "configs" / "studies"
NAMES = ("code-order", "decay-tails", "recipes-small", "stage-orders", "unique-tokens")


def test_there_are_these():
    assert tuple(sorted(path.stem for path in FOLDER.glob("*.toml"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_understood_and_its_command_stands_in_it(name, tmp_path):
    path = FOLDER / f"{name}.toml"
    design = read_design(str(path), base=tmp_path)
    assert design.name == name and design.question.endswith("?")
    assert len(design.seeds) >= (2 if name == "recipes-small" else 3)  # there the sizes repeat each question
    assert design.intervals == 21 and len(cells_of(design)) == len(design.seeds) * len(design.arms)
    assert f"ondevice study run configs/studies/{name}.toml" in path.read_text("utf-8")
    for arm in design.arms:
        assert all(source.path.startswith(str(tmp_path)) for source in arm.config.data.sources)


def test_unique_tokens_has_the_published_size(tmp_path):
    design = read_design(str(FOLDER / "unique-tokens.toml"), base=tmp_path)
    model, caps = design.arms[0].config.model, [arm.config.data.max_unique_tokens for arm in design.arms]
    shape = ModelShape(
        arch="llama", vocab_size=4096, context=model.context, layers=model.layers, width=model.width,
        heads=model.heads, kv_heads=model.heads, hidden=model.hidden,
    )  # fmt: skip
    assert count_parameters(shape) == 4_262_144
    assert caps == [200_000, None] and len(design.seeds) == 6
    assert all(arm.config.train.tokens == 3_000_000 for arm in design.arms)


def test_recipes_are_compared_at_three_sizes(tmp_path):
    arms = read_design(str(FOLDER / "recipes-small.toml"), base=tmp_path).arms
    plain = [arm for arm in arms if arm.name.rpartition("-")[2][0].isdigit()]
    rates = {name: [arm.config.train.lr for arm in plain if arm.name.startswith(name)] for name in ("03m", "1m", "3m")}
    all_four = [2.5e-3, 5e-3, 1e-2, 2e-2]
    assert rates == {"03m": all_four, "1m": all_four, "3m": all_four[1:]}
    of = {name: [arm.config.train for arm in arms if arm.name.endswith(name)] for name in ("-last", "-fanin", "-b8")}
    assert [train.average for train in of["-last"]] == [0.0, 0.0]
    assert [train.init for train in of["-fanin"]] == ["fan-in"] * 2 and [train.batch for train in of["-b8"]] == [8, 8]


def test_the_others_have_the_sizes_asked_for(tmp_path):
    code, tails = (read_design(str(FOLDER / f"{name}.toml"), base=tmp_path) for name in NAMES[:2])
    assert len(code.arms[0].config.data.sources) == 6 and code.arms[0].config.train.tokens >= 1_000_000
    assert code.panel is not None and code.panel.per_source >= 50
    assert [arm.config.data.order for arm in code.arms] == ["shuffled", "alphabetical", "interleaved"]
    assert tails.arms[0].config.train.tokens >= 4_000_000 and sum(arm.tail is not None for arm in tails.arms) == 2
