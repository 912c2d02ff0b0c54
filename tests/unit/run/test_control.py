"""Control letters: in order, each answered once, and no letter can hurt the trainer."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ondevice.errors import DataError, UsageError
from ondevice.run import control
from ondevice.run.directory import RunDir


def drop(run: RunDir, content: Any, name: str = "00000000000000000001-0000aaaa.json") -> None:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (run.inbox / name).write_bytes(data)


def letter(**changes: Any) -> dict[str, Any]:
    return {"v": 1, "id": "0000aaaa", "t": 5.0, "verb": "pause", "args": {}, "from": "test", **changes}


def test_a_letter_arrives_and_is_discarded(run: RunDir) -> None:
    sent = control.send(run, "limit", {"keep_last": 5, "max_rss_mb": None}, sender="test")
    (found,) = control.pending(run)
    assert (found.id, found.verb, found.sender, found.fault) == (sent, "limit", "test", "")
    assert found.args == {"keep_last": 5, "max_rss_mb": None}
    assert abs(found.t - time.time()) < 60
    control.discard(run, found)
    control.discard(run, found)
    assert control.pending(run) == []


def test_a_letter_that_the_system_will_not_delete_is_given_once(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    control.send(run, "pause", sender="test")
    (first,) = control.pending(run)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        control.discard(run, first)
        assert control.pending(run) == []
        control.send(run, "resume", sender="test")
        assert [found.verb for found in control.pending(run)] == ["resume"]
    assert len(list(run.inbox.iterdir())) == 2
    assert [found.verb for found in control.pending(run)] == ["resume"]
    assert len(list(run.inbox.iterdir())) == 1  # by now it could be deleted


def test_letters_keep_their_order_when_the_clock_is_set_back(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9_000, 5_000, 9_000, 20_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    sent = [control.send(run, verb, sender="test") for verb in ("pause", "resume", "stop", "save")]
    drop(run, letter(), "99999999999999999999-ffffffff.json")
    assert [found.id for found in control.pending(run)] == [*sent, "0000aaaa"]


def test_a_bogus_date_far_ahead_does_not_drag_others_along(run: RunDir) -> None:
    drop(run, letter(), "99999999999999999999-ffffffff.json")
    control.send(run, "stop", sender="test")
    assert [found.verb for found in control.pending(run)] == ["stop", "pause"]


def test_unknown_verbs_are_refused_with_the_nearest(run: RunDir) -> None:
    with pytest.raises(UsageError, match=r"'puase': not a control verb \(did you mean 'pause'\?\); known: pause, "):
        control.send(run, "puase", sender="test")
    with pytest.raises(UsageError, match="make its text shorter"):
        control.send(run, "sample", {"prompt": "x" * 70_000}, sender="test")


def test_a_prompt_of_odd_bytes_arrives(run: RunDir) -> None:
    control.send(run, "sample", {"prompt": "ü\udcff\n"}, sender="test")
    assert control.pending(run)[0].args == {"prompt": "ü\udcff\n"}


def test_only_momentary_letters_expire() -> None:
    assert sorted(control.EXPIRING) == ["eval", "pause", "resume", "sample", "save", "stop"]
    assert set(control.VERBS) - control.EXPIRING == {"limit", "pin"}


FAULTY = [
    (b"", "unreadable letter (JSONDecodeError)"),
    (b"\xff{", "unreadable letter (UnicodeDecodeError)"),
    (b"[" * 50_000, "unreadable letter ("),  # too deep, or never closed: from Python 3.14 on the stack is deep enough
    (b" " * 70_000 + b"{}", "unreadable letter (OSError)"),
    (b"[]", "unreadable letter (not a JSON object)"),
    (b"null", "unreadable letter (not a JSON object)"),
    ({}, "letter version None, expected 1"),
    (letter(v=2), "letter version 2, expected 1"),
    (letter(v="1"), "letter version 1, expected 1"),
    (letter(v=True), "letter version True, expected 1"),
    (letter(verb="puase"), "unknown verb 'puase' (did you mean 'pause'?)"),
    (letter(verb=["pause"]), "unknown verb"),
    (letter(verb="x" * 60_000), "unknown verb 'xxxxxxxx"),
    (letter(id=5), "unreadable letter (id, t or from is missing"),
    (letter(t="now"), "unreadable letter (id, t or from is missing"),
    (letter(t=10**400), "unreadable letter (id, t or from is missing"),
    (letter(**{"from": None}), "unreadable letter (id, t or from is missing"),
    (letter(args=[["a", 1]]), "unreadable letter (args must be an object of plain values)"),
    (letter(args="ab"), "unreadable letter (args must be an object of plain values)"),
    (letter(args={"a": {"b": 1}}), "unreadable letter (args must be an object of plain values)"),
    (b'{"v":1,"id":"a","t":1,"verb":"pin","from":"x","args":{"step":1e999}}', "unreadable letter (args must be"),
]


@pytest.mark.parametrize(("content", "fault"), FAULTY)
def test_a_malformed_letter_carries_its_fault(run: RunDir, content: Any, fault: str) -> None:
    drop(run, content)
    (found,) = control.pending(run)
    assert found.fault.startswith(fault) and len(found.fault) < 120
    assert found.args == {} and isinstance(found.id, str) and isinstance(found.t, float)
    control.discard(run, found)
    assert control.pending(run) == []


def test_what_is_not_a_letter_is_left_alone(run: RunDir) -> None:
    (run.inbox / "folder.json").mkdir()
    os.mkfifo(run.inbox / "pipe.json")
    (run.inbox / "link.json").symlink_to(run.identity)
    for name in (".tmp-1.json", ".json", "letter.txt"):
        (run.inbox / name).write_text("{}")
    assert control.pending(run) == []


def test_a_missing_inbox_is_empty_and_made_again(run: RunDir) -> None:
    run.inbox.rmdir()
    assert control.pending(run) == []
    control.send(run, "stop", sender="test")
    assert [found.verb for found in control.pending(run)] == ["stop"]


def test_an_inbox_that_cannot_be_written_is_one_sentence(run: RunDir) -> None:
    run.inbox.rmdir()
    run.inbox.write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written \(Not a directory\)\.$"):
        control.send(run, "stop", sender="test")
