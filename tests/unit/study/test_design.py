"""The study file: what is understood, and every refusal in one sentence with file, line and key."""

from __future__ import annotations

import pytest

from ondevice.errors import UsageError
from ondevice.study.design import parse_design, read_design

GOOD = """
name = "orders"
seeds = [1, 2]
intervals = 5
reference = "shuffled"
[config.train]
tokens = 1000
batch = 4
[config.model]
layers = 2
width = 32
[[config.data.sources]]
path = "text.txt"
[[arms]]
name = "shuffled"
[[arms]]
name = "alphabetical"
config.data.order = "alphabetical"
config.train.lr = 1e-3
[[arms]]
name = "tail"
from = "shuffled"
at_tokens = 500
tokens = 100
tail = "linear"
config.train.lr_min = 1e-5
config.limits.fixed_fit = true
"""


def design(text, tmp_path):
    return parse_design(text, where="orders.toml", base=tmp_path, name="orders")


def test_arms_share_the_config_and_change_it(tmp_path):
    found = design(GOOD, tmp_path)
    first, second, tail = found.arms
    assert (found.seeds, found.intervals, found.reference) == ((1, 2), 5, "shuffled")
    assert (first.config.data.order, second.config.data.order) == ("shuffled", "alphabetical")
    assert first.config.train.lr is None and second.config.train.lr == 1e-3
    assert first.config.train.tokens == second.config.train.tokens == 1000
    assert first.config.data.sources[0].path == str(tmp_path / "text.txt")
    assert first.config.train.precision == "fp32"  # what a timed probe would decide must not differ between arms
    assert (tail.parent, tail.at_tokens, tail.tokens, tail.tail) == ("shuffled", 500, 100, "linear")
    assert tail.changes == ("train.lr_min=1e-05", "limits.fixed_fit=true")


def test_a_study_without_arms_has_one(tmp_path):
    found = design(GOOD.partition("[[arms]]")[0].replace('reference = "shuffled"', ""), tmp_path)
    assert [arm.name for arm in found.arms] == ["run"]


def test_relative_paths_count_from_the_file(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "orders.toml").write_text(GOOD, "utf-8")
    found = read_design(str(tmp_path / "deep" / "orders.toml"))
    assert found.arms[0].config.data.sources[0].path == str(tmp_path / "deep" / "text.txt")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("intervals = 5", "intervalls = 5", "orders.toml:4: unknown key 'intervalls' (did you mean 'intervals'?)"),
        ("intervals = 5", "intervals = 1", "orders.toml:4: 'intervals' must be a whole number from 2"),
        ("seeds = [1, 2]", "seeds = [1, 1]", "orders.toml:3: 'seeds': a seed is named twice"),
        ("seeds = [1, 2]", "seeds = []", "orders.toml:3: 'seeds' must be a list"),
        ("seeds = [1, 2]", "seeds = [1, -2]", "orders.toml:3: 'seeds': -2 is no seed"),
        ('reference = "shuffled"', 'reference = "shufled"', "'reference' 'shufled' is no arm (did you mean"),
        ("batch = 4", "batches = 4", "orders.toml:8: unknown key 'train.batches' (did you mean 'batch'?)"),
        ("batch = 4", "", "say train.batch"),
        ("tokens = 1000", "", "say how many: train.tokens"),
        ("width = 32", "", "say model.layers and model.width"),
        ("tokens = 1000", "tokens = 1000\nseed = 3", "'train.seed' is set by the study; use 'seeds' for it"),
        ("[config.train]", "[config.eval]\ncount = 3\n[config.train]", "use 'intervals' for it"),
        ('config.data.order = "alphabetical"', 'config.data.order = "alfabetical"', "orders.toml:18: 'data.order'"),
        ('name = "alphabetical"', 'name = "shuffled"', "orders.toml:17: two arms are called 'shuffled'"),
        ('name = "alphabetical"', 'name = "A B"', "use lower case letters"),
        ('name = "alphabetical"', 'name = "alphabetical"\ntail = "linear"', "add from = ARM"),
        ('from = "shuffled"', 'from = "shufled"', "'from' 'shufled' is no earlier arm"),
        ("at_tokens = 500", "", "an arm with 'from' needs 'at_tokens'"),
        ('tail = "linear"', 'tail = "straight"', "'tail' must be one of"),
        ("config.train.lr_min = 1e-5", "config.data.sources = []", "a fork cannot change this"),
        ("[[arms]]", "[arms]", "not valid TOML"),
        ('name = "orders"', 'name = "orders"\n[panel]\nper_sources = 3\n[x]', "unknown key 'x'"),
    ],
)
def test_refusals(old, new, says, tmp_path):
    with pytest.raises(UsageError) as caught:
        design(GOOD.replace(old, new, 1), tmp_path)
    assert says in str(caught.value)
    assert str(caught.value).startswith("orders.toml")


def test_panel_keys_are_checked(tmp_path):
    text = GOOD.replace("[config.train]", "[panel]\nper_sources = 3\n[config.train]")
    with pytest.raises(UsageError, match=r"orders.toml:7: unknown key 'panel.per_sources' \(did you mean"):
        design(text, tmp_path)


def test_files_that_are_no_study(tmp_path):
    with pytest.raises(UsageError, match="no such study file"):
        read_design(str(tmp_path / "missing.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8 at byte 0"):
        read_design(str(tmp_path / "binary.toml"))


def test_the_intervals_of_a_chain_are_its_parts(tmp_path):
    chain = GOOD.split("[[arms]]")[0].replace("tokens = 1000\n", "").replace('reference = "shuffled"\n', "")
    for parts, refused in ((4, False), (5, True)):
        text = chain.replace("[config.train]", f"[config.chain]\nparts = {parts}\n[config.train]")
        if refused:
            with pytest.raises(UsageError, match=r"orders\.toml:4.*chain\.parts = 4, not 5"):
                design(text, tmp_path)
            assert design(text.replace("intervals = 5\n", ""), tmp_path).intervals == 21
        else:
            assert design(text, tmp_path).intervals == 5
