"""``ondevice runs``: list, rename, remove, and what they take on disk."""

from __future__ import annotations

import builtins

import pytest

from ondevice.run.directory import RunDir, RunLock


@pytest.fixture
def answering(monkeypatch):
    """``answering("y")``: what a person types when asked."""

    def make(answer):
        def fake(question):
            assert "[y/N]" in question
            if answer is None:
                raise EOFError
            return answer

        monkeypatch.setattr(builtins, "input", fake)

    return make


@pytest.mark.parametrize("words", [("list",), ("du",)])
def test_nothing_yet(place, call, words):
    assert call("runs", *words).code == 0
    assert call("runs", *words, "--json").json == {"runs": []}
    assert not (place / "home").exists()


def test_list_points_to_quickstart_where_there_is_nothing(place, call):
    assert "ondevice quickstart" in call("runs", "list").out


def test_list_shows_state_share_and_best(reading, call):
    row = call("runs", "list", "--json").json["runs"][0]
    assert (row["run"], row["state"], row["step"], row["steps"], row["share"]) == ("tiny", "finished", 12, 12, 1.0)
    assert row["best_step"] in (6, 12)
    line = call("runs", "list").out
    assert line.split() == ["finished", "100%", "best", f"{row['best_loss']:.3f}", "tiny"]


def test_a_run_that_was_not_started_is_listed_as_new(fresh, call):
    assert call("runs", "list").out.split() == ["new", "0%", "best", "-", "tiny"]


def test_du_adds_up(reading, call):
    row = call("runs", "du", "tiny", "--json").json["runs"][0]
    size = sum(path.stat().st_size for path in (reading / "runs" / "tiny").rglob("*") if path.is_file())
    assert row["total_mb"] == pytest.approx(size / 2**20, abs=0.051)
    assert 0 < row["checkpoints_mb"] <= row["total_mb"]
    assert call("runs", "du").out.split()[2] == "tiny"


def test_rename_keeps_the_run_usable(own, call):
    assert call("runs", "rename", "tiny", "notes-2").out == "Renamed to notes-2.\n"
    assert call("status", "notes-2").code == 0
    assert call("generate", "notes-2", "the", "--max-new-tokens", 2).code == 0
    assert call("status", "tiny").code == 2


@pytest.mark.parametrize(
    ("name", "says"),
    [("My Notes", "such as 'my-notes'"), ("../up", "use lower case letters"), ("tiny", "exists"), ("", "use lower")],
)
def test_rename_refuses_names_that_are_taken_or_no_names(own, call, name, says):
    result = call("runs", "rename", "tiny", name)
    assert result.code == 2
    assert says in result.error
    assert [path.name for path in (own / "runs").iterdir()] == ["tiny"]


@pytest.mark.parametrize("answer", ["n", "", "yikes", None])
def test_rm_asks_and_keeps_without_a_yes(own, call, answering, answer):
    answering(answer)
    result = call("runs", "rm", "tiny")
    assert result.code == 2
    assert "--yes" in result.error
    assert call("status", "tiny").code == 0


@pytest.mark.parametrize("flags", [(), ("--yes",)])
def test_rm_deletes_everything(own, call, answering, flags):
    answering("Y" if not flags else "never asked")
    assert "Deleted tiny" in call("runs", "rm", "tiny", *flags).out
    assert list((own / "runs").iterdir()) == []


@pytest.mark.parametrize("words", [("rm", "tiny", "--yes"), ("rename", "tiny", "other")])
def test_a_run_in_use_is_left_alone(own, call, words):
    lock = RunLock(RunDir(own / "runs" / "tiny"))
    try:
        result = call("runs", *words)
    finally:
        lock.release()
    assert result.code == 7
    assert "another process holds this run" in result.error
    assert call("status", "tiny").code == 0


@pytest.mark.parametrize("words", [("rm", "tinny", "--yes"), ("rename", "tinny", "x"), ("du", "tinny")])
def test_an_unknown_run_offers_the_nearest(own, call, words):
    result = call("runs", *words)
    assert result.code == 2
    assert "tinny: no such run (did you mean 'tiny'?)." in result.error
