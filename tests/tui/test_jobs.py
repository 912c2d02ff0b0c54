"""Programs that the terminal UI starts: in a session of their own, logged, and told about when they end."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.errors import OndeviceError
from tui import jobs
from tui.jobs import Jobs, ask_json, last_words

FAKE = """#!{python}
import os, sys, time
words = sys.argv[1:]
print("session", os.getsid(0) == os.getpid(), flush=True)
if "slow" in words: time.sleep(60)
if "bad" in words: sys.exit("error: the disk is full.")
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program of one's own in the place of ``python -m ondevice``."""

    def make(body: str) -> None:
        script = tmp_path / "python"
        script.write_text(body.replace("{python}", sys.executable), "utf-8")
        script.chmod(0o755)
        monkeypatch.setattr(jobs.sys, "executable", str(script))

    return make


def ended(found: Jobs) -> list[tuple[bool, str]]:
    for _ in range(400):
        if news := found.news():
            return news
        time.sleep(0.02)
    raise AssertionError("nothing ended")


def test_a_job_has_its_own_session_and_its_last_words_are_told(fake: Any, tmp_path: Path) -> None:
    fake(FAKE)
    found = Jobs()
    found.start(["export"], what="export of notes", log=tmp_path / "logs" / "a.log")
    assert found.words.startswith("export of notes: under way")
    assert ended(found) == [(True, "export of notes: session True")]
    assert found.words == "" and found.news() == []


def test_a_trainer_that_refuses_says_why(fake: Any, tmp_path: Path) -> None:
    fake(FAKE)
    found = Jobs()
    found.start(["bad"], what="notes", log=tmp_path / "t.log", run=tmp_path)
    assert ended(found) == [(False, "notes: the disk is full.")]


def test_one_trainer_is_started_once_and_let_go(fake: Any, tmp_path: Path) -> None:
    fake(FAKE)
    found = Jobs()
    job = found.start(["slow"], what="notes", log=tmp_path / "t.log", run=tmp_path)
    try:
        assert found.starting(tmp_path)
        with pytest.raises(OndeviceError, match="starting already"):
            found.start(["slow"], what="notes", log=tmp_path / "t.log", run=tmp_path)
        found.let_go()
        assert found.words == "" and os.getsid(job.process.pid) == job.process.pid
    finally:
        os.kill(job.process.pid, 9)
        os.waitpid(job.process.pid, 0)


def test_a_log_without_words(tmp_path: Path) -> None:
    assert last_words(tmp_path / "no") == "ended without a word."
    (tmp_path / "empty").write_bytes(b"\n\n")
    assert last_words(tmp_path / "empty") == "ended without a word."


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('print("[1]")', "another kind"),
        ('print("no json")', "without an answer"),
        ('print(\'{"error": "notes: no such run."}\')', "notes: no such run"),
        ("import time; time.sleep(60)", "did not answer"),
    ],
)
def test_an_answer_that_is_none(fake: Any, body: str, said: str) -> None:
    fake("#!{python}\n" + body)
    with pytest.raises(OndeviceError, match=said):
        asyncio.run(ask_json("doctor", timeout_s=1.0))


def test_an_answer(fake: Any) -> None:
    fake('#!{python}\nimport json, sys\nprint(json.dumps({"words": sys.argv[3:]}))')
    answer = asyncio.run(ask_json("generate", "notes", "--", "-x"))
    assert answer == {"words": ["generate", "notes", "--json", "--", "-x"]}


def test_a_question_that_nobody_waits_for_ends(fake: Any, tmp_path: Path) -> None:
    fake('#!{python}\nimport os, time\nopen(os.environ["MARK"], "w").write(str(os.getpid()))\ntime.sleep(60)')
    mark = tmp_path / "pid"
    os.environ["MARK"] = str(mark)

    async def scenario() -> None:
        question = asyncio.create_task(ask_json("plan"))
        while not mark.exists() or not mark.read_text():
            await asyncio.sleep(0.02)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question

    asyncio.run(scenario())
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
