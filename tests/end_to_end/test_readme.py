"""What README, docs and help texts tell people to type exists: commands, flags, scripts, config keys, exit codes."""

from __future__ import annotations

import importlib
import os
import re
import shlex
from pathlib import Path

import pytest

from ondevice import errors
from ondevice.cli.main import COMMANDS, make_parser, parse
from ondevice.data.contract import read_contract
from ondevice.run.config import parse_config
from ondevice.run.schema import DataConfig

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {path: path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
ALL = "\n".join(PAGES.values())


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", ALL, re.M | re.S)


def parts(line):
    """The commands in a line of shell: without comments, cut at ``;`` and ``|``."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|")
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if set(word) <= {";", "|"}:
            yield words
            words = []
        else:
            words.append(word)
    yield words


def readme_commands():
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    lines += re.findall(r"`(ondevice [a-z][^`]*)`", README)
    return [words for line in lines for words in parts(line) if words]


def example_commands():
    """Examples may be followed, after two spaces or more, by an explanation or another example."""
    for module in sorted({module for module, _ in COMMANDS.values()}):
        text = importlib.import_module(f"ondevice.cli.{module}").EXAMPLES
        for line in text.partition("\n")[2].splitlines():
            for piece in re.split(r"\s{2,}", line.strip()):
                for words in parts(piece) if re.match(r"ondevice |echo ", piece) else ():
                    if words and words[0] == "ondevice":
                        yield words


def check(words):
    """Parses as the program would; fails where it would not."""
    program, name, *rest = words
    assert Path(program).name == "ondevice"
    assert name in COMMANDS, words
    args, unknown = parse(make_parser(name), rest)
    assert unknown == [], words
    return args


ON_README = [words for words in readme_commands() if Path(words[0]).name == "ondevice" and "COMMAND" not in words]


def test_the_readme_shows_the_commands_of_every_day():
    assert len(ON_README) >= 12
    assert {"doctor", "train", "status", "pause", "resume", "sample", "export", "generate", "quickstart"} <= {
        words[1] for words in ON_README
    }


@pytest.mark.parametrize("words", ON_README, ids=" ".join)
def test_every_command_of_the_readme_parses(words):
    assert check(words)


@pytest.mark.parametrize("words", list(example_commands()), ids=" ".join)
def test_every_example_of_the_help_parses(words):
    assert check(words)


def test_every_command_has_at_least_one_example_that_is_checked():
    assert {words[1] for words in example_commands()} == set(COMMANDS)


def test_a_command_that_does_not_exist_would_be_noticed():
    for words in (["trian"], ["train", "--dta", "x"], ["data", "inspect", "x", "--verfy"], ["status", "a", "b"]):
        with pytest.raises(AssertionError):
            check(["ondevice", *words])
    with pytest.raises(errors.UsageError):
        check(["ondevice", "runs", "lst"])


def test_other_programs_of_the_readme_exist():
    others = [words for words in readme_commands() if Path(words[0]).name != "ondevice"]
    assert ["sh", "tools/quickstart"] in others and ["sh", "tools/test"] in others
    scripts = re.search(r"\[project\.scripts\]\n(.*?)\n\n", (ROOT / "pyproject.toml").read_text(), re.S)
    for words in others:
        if words[0] == "sh":
            assert (ROOT / words[1]).is_file(), words
        elif words[0].startswith("tools/"):
            assert os.access(ROOT / words[0], os.X_OK), words
        else:
            assert scripts and re.search(rf"^{re.escape(words[0])} = ", scripts[1], re.M), words


@pytest.mark.parametrize("block", blocks("toml"))
def test_every_config_of_the_readme_is_understood(block, tmp_path):
    if block.startswith("# contract.toml"):
        (tmp_path / "contract.toml").write_text(block)
        assert read_contract(tmp_path / "contract.toml").decision
        return
    config = parse_config(block, where="README.md", base=Path("/"))
    assert config.data != DataConfig()


def test_the_table_of_exit_codes_is_that_of_the_errors():
    section = README.partition("## Exit codes\n")[2].partition("\n## ")[0]
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.M)}
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.OndeviceError)
    ]
    assert table == {0} | {kind.exit_code for kind in kinds}
    assert len({kind.exit_code for kind in kinds}) == len(kinds)


def test_every_file_the_readme_leads_to_is_there():
    for page, text in PAGES.items():
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            assert (page.parent / target).exists(), (page, target)


def test_the_readme_stays_short_and_leads_to_every_page():
    assert len(README.splitlines()) <= 220
    assert all(f"docs/{page.name}" in README for page in PAGES if page.parent.name == "docs")
