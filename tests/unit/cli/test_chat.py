"""``ondevice chat`` over pipes and on a terminal of 40 columns; many prompts and the bench of ``ondevice generate``."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ondevice.cli.chat_words import Wrapped
from ondevice.cli.folding import columns
from ondevice.cli.main import main


@pytest.fixture(scope="module")
def talking(trained, tmp_path_factory):
    """A home with the run ``tiny``, whose context holds a few turns."""
    home = tmp_path_factory.mktemp("talking")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_HOME", str(home))
        patch.chdir(trained)
        assert main(["train", "tiny.toml", "--quiet", "--set", "model.context=96", "--set", "train.steps=2"]) == 0
    return home


@pytest.fixture
def home(talking, trained, monkeypatch):
    monkeypatch.setenv("ONDEVICE_HOME", str(talking))
    monkeypatch.chdir(trained)


def lines(out):
    return [json.loads(line) for line in out.splitlines()]


def chat(call, monkeypatch, typed, *words):
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    return call("chat", "tiny", "--max-new-tokens", "6", *words)


def test_answers_over_a_pipe(home, call, monkeypatch):
    first = chat(call, monkeypatch, "the cat\nand\nsat\n", "--json", "--seed", "3")
    assert (first.code, first.err) == (0, "")
    told = lines(first.out)
    assert [each["role"] for each in told] == ["assistant"] * 3 and all(each["tokens"] <= 6 for each in told)
    assert chat(call, monkeypatch, "the cat\nand\nsat\n", "--json", "--seed", "3").out == first.out
    assert told[2]["dropped_messages"] > 0  # the context of 32 bytes holds no three turns


def test_commands(home, call, monkeypatch, tmp_path):
    kept = tmp_path / "talk.json"
    typed = (
        f"/set temperature=0\nhi\n/undo\nyo\n/retry\n/show\n/preset precise\n/system S\n/save {kept}\n/quit\nnever\n"
    )
    result = chat(call, monkeypatch, typed)
    assert result.code == 0
    assert "temperature 0.0" in result.err and "Taken back." in result.err and "temperature 0.3" in result.err
    assert "tokens read" in result.err and "plain transcript" in result.err
    told = json.loads(kept.read_text())
    assert told["system"] == "S" and [each["role"] for each in told["messages"]] == ["user", "assistant"]
    again = chat(call, monkeypatch, "/retry\n", "--load", kept)
    assert again.code == 0 and "2 messages." in again.err
    assert "/retry" in chat(call, monkeypatch, "/help\n").out


def test_a_line_may_go_on_below(home, call, monkeypatch, tmp_path):
    chat(call, monkeypatch, f"a\\\nb\n/save {tmp_path / 'x'}\n")
    assert json.loads((tmp_path / "x").read_text())["messages"][0]["content"] == "a\nb"


@pytest.mark.parametrize(
    ("typed", "words", "said"),
    [
        ("/rety\n", (), "did you mean 'retry'"),
        ("/set temprature=1\n", (), "did you mean 'temperature'"),
        ("/set temperature=hot\n", (), "not a number"),
        ("/set top_k=1.5\n", (), "not a whole number"),
        ("/set temperature=-1\n", (), "0 or more"),
        ("/preset wild\n", (), "not a preset"),
        ("/save\n", (), "Name a file"),
        ("/save /nowhere/x\n", (), "/nowhere"),
        ("/load words.txt\n", (), "words.txt"),
        ("/retry\n", (), "Nothing was said"),
        ("x" * 100 + "\n", (), "make it shorter"),
        ("", ("--preset", "balance"), "did you mean 'balanced'"),
        ("", ("--load", "absent.json"), "absent.json"),
    ],
)
def test_mistakes_are_said(home, call, monkeypatch, typed, words, said):
    result = chat(call, monkeypatch, typed, *words)
    assert result.code != 0 and said in result.error


@pytest.mark.slow
def test_a_terminal_of_forty_columns(home):
    """A person types, makes a mistake, goes on, and leaves with Ctrl-D."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": "40", "LINES": "20"}
    words = [sys.executable, "-m", "ondevice", "chat", "tiny", "--max-new-tokens", "14", "--threads", "1"]
    seen = b""
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as program:
        os.close(theirs)
        try:
            for typed in (b"/nope\n", b"the cat\n", b"\x04"):
                before = seen.count(b"> ")
                while seen.count(b"> ") == before:
                    assert select.select([ours], [], [], 60)[0], seen
                    seen += os.read(ours, 4096)
                os.write(ours, typed)
            assert program.wait(30) == 0
        finally:
            program.kill()
    os.close(ours)
    shown = seen.decode("utf-8", "replace").replace("\r\n", "\n")
    assert "/nope is no command" in shown and "Traceback" not in shown and "### " not in shown.split("> the cat")[-1]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(st.sampled_from("ab  \n日e\u0301")), max_size=30), st.integers(2, 12))
def test_lines_fit_and_words_are_kept(pieces, width):
    out = Wrapped(width)
    shown = "".join(out.feed(piece) for piece in pieces) + out.flush()
    assert all(columns(line) <= width for line in shown.split("\n"))
    assert "".join(shown.split()) == "".join("".join(pieces).split())


def test_many_prompts_and_going_on_after_a_kill(reading, call, tmp_path):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "texts.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"the {word}", "id": word}) + "\n" for word in "abcde"))
    words = ("generate", "tiny", "--prompts", rows, "--out", out, "--max-new-tokens", "5", "--batch", "2")
    assert call(*words).code == 0
    whole = out.read_bytes()
    told = [json.loads(line) for line in whole.splitlines()]
    assert [each["id"] for each in told] == list("abcde") and all(each["tokens"] <= 5 for each in told)
    alone = call("generate", "tiny", "the c", "--max-new-tokens", "5", "--json").json
    assert told[2]["text"] == alone["text"] and told[2]["finish"] == alone["finish"]
    out.write_bytes(whole[: whole.index(b"\n", 200) + 20])  # torn in the middle of a row
    result = call(*words)
    assert result.code == 0 and "are there already" in result.err and out.read_bytes() == whole
    rows.write_text('{"prompt": "other"}\n')
    assert "another prompt" in call(*words).error


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ("", (), "no rows"),
        ("{", (), "rows.jsonl:1"),
        ('{"prompt": 5}', (), "'prompt' holds a number"),
        ("\udcff", (), "not UTF-8"),
        ('{"prompt": "x"}', ("--bench",), "goes without"),
        ('{"prompt": "x"}', ("--limit", "duty_max=7"), "duty_max"),
    ],
)
def test_rows_that_are_none(reading, call, tmp_path, content, words, said):
    (tmp_path / "rows.jsonl").write_bytes(content.encode("utf-8", "surrogateescape"))
    result = call("generate", "tiny", "--prompts", tmp_path / "rows.jsonl", "--out", tmp_path / "o", *words)
    assert result.code in (2, 3) and said in result.error
    assert "belong together" in call("generate", "tiny", "--prompts", "x").error


def test_the_bench_measures(reading, call):
    told = call("generate", "tiny", "--bench", "--max-new-tokens", "8", "--json").json
    assert told["prompt_tokens"] == 24 and told["prefill_tok_s"] > 0 and told["decode_tok_s"] > 0
    assert told["first_token_s"] > 0 and told["peak_rss_mb"] > 50
    assert "tokens a second" in call("generate", "tiny", "--bench").out
    assert "do not fit" in call("generate", "tiny", "--bench", "--max-new-tokens", "99").error
