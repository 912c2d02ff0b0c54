"""The wish is read strictly: every refusal names the file, the line, the key and what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ondevice.errors import CheckpointError, DataError, UsageError
from ondevice.run.config import (
    change_limits,
    changed_keys,
    load_config,
    parse_config,
    preset_names,
    read_limits,
    to_toml,
    write_limits,
)
from ondevice.run.files import write_json, write_sealed
from ondevice.run.schema import Config, Limits


def parse(text: str, *changes: str) -> Config:
    return parse_config(text, where="my.toml", base=Path("/texts"), changes=changes)


def refusal(text: str, *changes: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text, *changes)
    return str(caught.value)


TWO_SOURCES = """\
[data]
split = "tail:0.1"

[[data.sources]]
path = "a"

[[data.sources]]
path = "b"
"""

REFUSED = [
    # unknown keys
    ("[train]\nlr = 1\nstesp = 5\n", "my.toml:3: unknown key 'train.stesp' (did you mean 'steps'?)."),
    ("[trian]\nlr = 1\n", "my.toml:1: unknown key 'trian' (did you mean 'train'?)."),
    ("[budget]\nxyz = 1\n", "my.toml:2: unknown key 'budget.xyz'; known here: minutes, memory_mb."),
    ("train.stesp = 5\n", "my.toml:1: unknown key 'train.stesp' (did you mean 'steps'?)."),
    ('[train]\n"stesp" = 5\n', "my.toml:2: unknown key 'train.stesp' (did you mean 'steps'?)."),
    ('[train]\n"a.b" = 5\n', "unknown key 'train.a.b'"),
    ("\n\ntrain = { lr = 1, stesp = 5 }\n", "my.toml:3: unknown key 'train.stesp' (did you mean 'steps'?)."),
    (TWO_SOURCES + "wight = 2\n", "my.toml:9: unknown key 'data.sources.1.wight' (did you mean 'weight'?)."),
    (
        '# sources\n[data]\nsources = [\n  { path = "a" },\n  { path = "b", wight = 2 },\n]\n',
        "my.toml:3: unknown key 'data.sources.1.wight' (did you mean 'weight'?).",
    ),
    # a line that only looks like a table or a key
    ('[sample]\nprompts = ["""\n[train]\nlr = 0\n"""]\n[train]\nlr = 0\n', "my.toml:7: 'train.lr' must be more"),
    ("[train]\n# lr = 0\nlr = 0 # lr = 1\n", "my.toml:3: 'train.lr' must be more than 0, not 0.0."),
    ("[train]\r\nlr = 1.0\r\nsteps = 0\r\n", "my.toml:3: 'train.steps' must be at least 1, not 0."),
    ('name = "a\u2028b"\n[train]\nsteps = 0\n', "my.toml:3: 'train.steps' must be at least 1, not 0."),
    # wrong types
    ("train = 5\n", "my.toml:1: 'train' must be a table, not a whole number."),
    ("[[train]]\n", "my.toml:1: 'train' must be a table, not a list."),
    ("[data.sources]\n", "my.toml:1: 'data.sources' must be a list of tables: [[data.sources]]."),
    ('[data]\nsources = ["a"]\n', "my.toml:2: 'data.sources.0' must be a table, not text."),
    ('[train]\nlr = "high"\n', "my.toml:2: 'train.lr' must be a number, not text ('high')."),
    ("[train]\nsteps = 1.5\n", "my.toml:2: 'train.steps' must be a whole number, not a number (1.5)."),
    ("[train]\nsteps = true\n", "my.toml:2: 'train.steps' must be a whole number, not true or false (True)."),
    ("[model]\ntied = 1\n", "my.toml:2: 'model.tied' must be true or false, not a whole number (1)."),
    ("name = 2024-01-01\n", "my.toml:1: 'name' must be text, not a date (datetime.date(2024, 1, 1))."),
    ('[sample]\nprompts = "a"\n', "my.toml:2: 'sample.prompts' must be a list, not text ('a')."),
    ('[sample]\nprompts = ["a", 2]\n', "my.toml:2: 'sample.prompts.1' must be text, not a whole number (2)."),
    (TWO_SOURCES + 'weight = "x"\n', "my.toml:9: 'data.sources.1.weight' must be a number, not text ('x')."),
    ("[train]\nlr = nan\n", "my.toml:2: 'train.lr' must be a finite number."),
    ("[train]\nlr = -inf\n", "my.toml:2: 'train.lr' must be a finite number."),
    (f"[train]\nlr = 1{'0' * 400}\n", "my.toml:2: 'train.lr' must be a finite number."),
    (f"[train]\nsteps = -1{'0' * 400}\n", "my.toml:2: 'train.steps' must be a whole number of at most 64 bits."),
    # missing and empty
    ('[[data.sources]]\nname = "a"\n', "my.toml:1: 'data.sources.0' needs the key 'path'."),
    ('[[data.sources]]\nname = "a"\npath = ""\n', "my.toml:3: 'data.sources.0.path' must not be empty."),
    # bounds and choices
    (TWO_SOURCES + "weight = 0\n", "my.toml:9: 'data.sources.1.weight' must be more than 0, not 0.0."),
    ("[model]\ndropout = 1.5\n", "my.toml:2: 'model.dropout' must be at most 0.99, not 1.5."),
    ("[train]\nbatch = 1000000000\n", "my.toml:2: 'train.batch' must be at most 65,536, not 1000000000."),
    ("[budget]\nminutes = 1e308\n", "my.toml:2: 'budget.minutes' must be at most 1,000,000, not 1e+308."),
    ("[train]\nseed = -1234567\n", "my.toml:2: 'train.seed' must be at least 0, not -1234567."),
    (
        '[data]\norder = "shufled"\n',
        "my.toml:2: 'data.order' must be one of shuffled, sequential, alphabetical, proportional, weighted, "
        "interleaved, source_balanced, curriculum, staged, not 'shufled' (did you mean "
        "'shuffled'?).",
    ),
    # not TOML
    ("[train]\nlr =\n", "my.toml:2: not valid TOML: Invalid value."),
    ("[train]\nlr = 1\nlr = 2\n", "my.toml:3: not valid TOML: Cannot overwrite a value."),
    ("[train", "my.toml:1: not valid TOML:"),
    ("a = " + "[" * 3000, "my.toml"),
    ("[train]\nsteps = 1" + "0" * 5000, "my.toml: not valid TOML: Exceeds the limit"),
]


@pytest.mark.parametrize(("text", "sentence"), REFUSED)
def test_a_refusal_names_file_line_key_and_cure(text: str, sentence: str) -> None:
    said = refusal(text)
    assert said.startswith(sentence) if not sentence.startswith("unknown") else sentence in said
    assert said.endswith(".") and "\n" not in said


CHANGES: list[tuple[str, Any]] = [
    ("train.lr=1e-3", 1e-3),
    ("train.lr = 2", 2.0),
    ("train.lr=.5", 0.5),
    ("train . lr=5.", 5.0),
    ("train.tokens=1_000_000", 1_000_000),
    ("train.tokens=1e6", 1_000_000),
    ("model.tied=false", False),
    ("fit.activation_checkpointing=true", True),
    ("name=notes", "notes"),
    ('name="two words"', "two words"),
    ("name='single'", "single"),
    ("name=123", "123"),
    ("name=1979-05-27", "1979-05-27"),
    ("name=a=b", "a=b"),
    ("name=", ""),
    ('sample.prompts=["a", "b, c"]', ("a", "b, c")),
    ("sample.prompts=[]", ()),
]


@pytest.mark.parametrize(("change", "value"), CHANGES)
def test_set_takes_every_type(change: str, value: Any) -> None:
    config: Any = parse("[train]\nlr = 1.0\n", change)
    for part in change.partition("=")[0].split("."):
        config = getattr(config, part.strip())
    assert config == value and type(config) is type(value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("train.lr", "--set train.lr: write it as key=value, such as train.lr=1e-3."),
        ("=5", "--set =5: write it as key=value, such as train.lr=1e-3."),
        ("train..lr=5", "--set train..lr=5: write it as key=value, such as train.lr=1e-3."),
        ("name.first=5", "--set name.first=5: 'name' is a value, not a table."),
        ("train.stesp=5", "--set: unknown key 'train.stesp' (did you mean 'steps'?)."),
        ("train=5", "--set: 'train' must be a table, not a whole number."),
        ("train.lr=-1", "--set: 'train.lr' must be more than 0, not -1.0."),
        ("train.lr=", "--set: 'train.lr' must be a number, not text ('')."),
        ("model.tied=True", "--set: 'model.tied' must be true or false, not text ('True')."),
        ('data.sources=[{path="a", wight=1}]', "--set: unknown key 'data.sources.0.wight' (did you mean 'weight'?)."),
        ("name=\udcff", "--set: 'name' is not UTF-8 ('\\udcff')."),
    ],
)
def test_set_refusals_say_set(change: str, sentence: str) -> None:
    assert refusal('name = "x"\n[train]\nlr = 1.0\n', change) == sentence


def test_the_last_change_wins_over_the_file() -> None:
    assert parse("[train]\nlr = 1.0\n", "train.lr=2", "train.lr=3").train.lr == 3.0
    assert parse("", 'data.sources=[{path="/a"}]').data.sources[0].path == "/a"


def test_paths_count_from_the_config_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/me")
    text = '[[data.sources]]\npath = "{}"\n[tokenizer]\npath = "tok"\n'
    found = {given: parse(text.format(given)).data.sources[0].path for given in ("a/b", "/a", "~/a", "~no-such-user/a")}
    assert found == {"a/b": "/texts/a/b", "/a": "/a", "~/a": "/me/a", "~no-such-user/a": "/texts/~no-such-user/a"}
    assert parse(text.format("a")).tokenizer.path == "/texts/tok"


def test_paths_on_the_command_line_count_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/me")
    text = '[[data.sources]]\npath = "a"\n[tokenizer]\npath = "tok"\n'
    found = {given: parse(text, f"tokenizer.path={given}").tokenizer.path for given in ("b/c", "/b", "~/b", "")}
    assert found == {"b/c": f"{tmp_path}/b/c", "/b": "/b", "~/b": "/me/b", "": ""}
    config = parse(text, 'data.sources=[{path="x"}]')
    assert (config.data.sources[0].path, config.tokenizer.path) == (f"{tmp_path}/x", "/texts/tok")
    config = parse(text, 'tokenizer={path="x"}')
    assert (config.data.sources[0].path, config.tokenizer.path) == ("/texts/a", f"{tmp_path}/x")


def test_what_changes_say_about_one_table() -> None:
    changes = ["limits.keep_last=5", "train.lr=1", "limits.max_rss_mb=800.", "limits.keep_last=6"]
    assert changed_keys(changes, "limits") == {"keep_last": 6, "max_rss_mb": 800.0}
    assert changed_keys(changes, "fit") == {}


def test_a_file_is_found_by_path_or_as_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_bytes(b'\xef\xbb\xbfname = "with-mark"\r\n')
    assert load_config("my.toml").name == "with-mark"
    (tmp_path / "shakespeare-char").mkdir()
    assert load_config("shakespeare-char").name == "shakespeare-char"
    assert load_config(None, changes=["name=bare"]).name == "bare"


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_parses_and_comes_back_from_toml(name: str) -> None:
    config = load_config(name)
    assert parse_config(to_toml(config), where="copy", base=Path("/")) == config


def test_unreadable_files_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"\n')
    (tmp_path / "folder.toml").mkdir()
    for name, words in (
        ("latin.toml", "not a config file: it is not UTF-8 at byte 8."),
        ("folder.toml", "cannot be read as a config file (Is a directory)."),
        ("x" * 300, "cannot be read as a config file"),
    ):
        with pytest.raises(UsageError, match=r"^[^\n]*$") as caught:
            load_config(str(tmp_path / name))
        assert words in str(caught.value)
    with pytest.raises(UsageError, match=r"^shakespere-char: .*did you mean 'shakespeare-char'.*; presets: "):
        load_config("shakespere-char")


def test_limits_change_key_by_key_and_are_checked() -> None:
    assert change_limits(Limits(max_rss_mb=500.0), {"keep_last": 5}) == Limits(max_rss_mb=500.0, keep_last=5)
    assert change_limits(Limits(max_rss_mb=500.0), {"max_rss_mb": None}) == Limits()
    for changes, sentence in (
        ({"keep_lats": 5}, "limits: unknown key 'limits.keep_lats' (did you mean 'keep_last'?)."),
        ({"keep_last": 1}, "limits: 'limits.keep_last' must be at least 2, not 1."),
        ({"keep_last": None}, "limits: 'limits.keep_last' must be a whole number, not nothing (None)."),
        ({"save_every_s": "x"}, "limits: 'limits.save_every_s' must be a number, not text ('x')."),
    ):
        with pytest.raises(UsageError) as caught:
            change_limits(Limits(), changes)
        assert str(caught.value) == sentence


def test_limits_survive_the_disk(tmp_path: Path) -> None:
    limits = Limits(keep_last=7, max_rss_mb=900.5, fixed_fit=True)
    write_limits(tmp_path / "limits.json", limits)
    assert read_limits(tmp_path / "limits.json") == limits


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ({"v": 2}, CheckpointError, "limits.json: format 2, this program reads 1; update ondevice."),
        ({"v": 1, "keep_last": []}, UsageError, "'limits.keep_last' must be a whole number, not a list"),
        ({"v": 1, "x": 1}, UsageError, "unknown key 'limits.x'"),
    ],
)
def test_malformed_limits_are_one_sentence(tmp_path: Path, content: Any, error: type, words: str) -> None:
    write_sealed(tmp_path / "limits.json", content)
    with pytest.raises(error, match=r"^\S*limits.json") as caught:
        read_limits(tmp_path / "limits.json")
    assert words in str(caught.value)


@pytest.mark.parametrize("content", [[], {}, {"v": 1}, {"v": "1"}, {"v": 1, "keep_last": 5, "sha256": "0" * 64}])
def test_limits_that_nobody_sealed_are_not_believed(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "limits.json", content)
    with pytest.raises(DataError, match=r"limits\.json: damaged, it"):
        read_limits(tmp_path / "limits.json")
