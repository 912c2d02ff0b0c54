"""``ondevice config``: every key explained, presets listed, files checked."""

from __future__ import annotations

import tomllib

import pytest

from ondevice.run.config import explain, load_config, parse_config, preset_names


def test_explain_prints_every_key_with_its_meaning(call):
    out = call("config", "explain").out
    rows = list(explain())
    heads = [line for line in out.splitlines() if line and not line.startswith((" ", "["))]
    assert len(heads) == len(rows) > 70
    assert [head.partition(" = ")[0] for head in heads] == [row["key"] for row in rows]
    assert "[[data.sources]]\ndata.sources[].path = required   (text)" in out
    assert "train.lr = derived   (number)" in out
    assert "limits.save_every_s = 300   (number s)" in out
    assert "data.sources[].include = []   (list of text)" in out and "model.tied = true   (true/false)" in out
    assert "limits.max_rss_mb = none   (number MB)" in out and "limits.duty_max = by preset   (number)" in out
    assert "\n\n[limits]\n" in out and "balanced 39, gentle 37, plugged-overnight 39, desk 45." in " ".join(out.split())
    assert "One of: shuffled, sequential, alphabetical, proportional" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("columns", [40, 45, 200])
def test_explain_fits_the_screen(call, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = call("config", "explain").out.splitlines()
    assert max(map(len, lines)) <= min(columns, 76)


def test_one_key_is_explained_closely(call):
    out = call("config", "explain", "max_battery_c").out
    said = " ".join(out.split())
    assert out.startswith("limits.max_battery_c = by preset   (number C)\n    warmest battery;")
    assert "gentle: 37, about the warmth of a hand: nobody notices" in said
    assert said.endswith("`ondevice limit RUN max_battery_c=37` changes it at any time.")
    assert "--set data.order=staged, or [data] of a config file." in call("config", "explain", "data.order").out
    assert "under [[data.sources]] in a config" in call("config", "explain", "data.sources[].weight").out
    (row,) = call("config", "explain", "duty_max", "--json").json["keys"]
    assert row["presets"] == {"balanced": 1.0, "gentle": 0.5, "plugged-overnight": 1.0, "desk": 1.0}
    assert call("config", "explain", "[train]").out.startswith("[train]\ntrain.tokens = ")


@pytest.mark.parametrize(("key", "count"), [("train.lr", 1), ("name", 1), ("limits", 5), ("data.sources[]", 10)])
def test_explain_one_key_or_table(call, key, count):
    rows = call("config", "explain", key, "--json").json["keys"]
    assert len(rows) >= count
    assert all(row["key"] == key or row["key"].startswith(key + ".") for row in rows)
    assert all(row["doc"] for row in rows)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("trian", "(did you mean 'train'?)"),
        ("train.lrr", "(did you mean 'train.lr'?)"),
        ("seed", "(did you mean data.seed, train.seed, sample.seed?)"),
    ],
)
def test_explain_offers_the_nearest_key(call, key, says):
    result = call("config", "explain", key)
    assert result.code == 2
    assert says in result.error


def test_presets_are_listed_with_their_first_comment(call):
    out = call("config", "presets").out
    found = call("config", "presets", "--json").json
    assert [row["name"] for row in found["presets"]] == preset_names()
    for row in found["presets"]:
        assert len(row["about"]) > 20
        assert any(line.split(maxsplit=1) == [row["name"], row["about"]] for line in out.splitlines())


def test_check_prints_the_config_as_it_is_understood(place, call):
    result = call("config", "check", "tiny.toml")
    assert result.code == 0
    assert tomllib.loads(result.out)["model"]["width"] == 32
    assert parse_config(result.out, where="out", base=place) == load_config("tiny.toml")
    assert call("config", "check", "tiny.toml", "--json").json["train"]["steps"] == 12


def test_check_names_file_line_and_key(place, call):
    (place / "my.toml").write_text("[train]\nsteps = 5\nbacth = 3\n")
    result = call("config", "check", "my.toml")
    assert result.code == 2
    assert "my.toml" in result.error and "'train.bacth'" in result.error and "(did you mean 'batch'?)" in result.error
