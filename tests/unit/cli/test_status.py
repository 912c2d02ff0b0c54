"""``ondevice status``: numbers of the future, one line for a bar, and the view that stays until the run ends."""

from __future__ import annotations

import errno
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from ondevice.cli.folding import columns
from ondevice.cli.progress import status_line
from ondevice.cli.status_text import one_line, outlook, pace_lines, read_lines, story_lines
from ondevice.run import telemetry
from ondevice.run.digest import Digest, digest
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.files import write_all
from ondevice.run.liveness import Liveness, read_status, write_status
from ondevice.run.usage import Usage

WATCH = [sys.executable, "-m", "ondevice", "status", "tiny", "--watch"]
LIVE, DEAD = Liveness("running", 0.5, "trainer pid 1"), Liveness("killed", 9.0)
USAGE = Usage(
    open_s=7200.0,
    worked_s=3600.0,
    tokens=1e6,
    recent_open_s=3600.0,
    recent_worked_s=1800.0,
    recent_tokens=900_000.0,
    energy_wh=10.0,
    energy_s=7200.0,
    energy_tokens=1e6,
)
STATUS = {
    "step": 250,
    "steps": 1000,
    "tokens": 1_000_000,
    "tokens_total": 4_000_000,
    "tok_s": 500.0,
    "done_t": 20_000.0,
    "eta_s": 18_010.0,
    "heartbeat_t": 1_990.0,
    "open_s": 12_000.0,
    "battery_s": 3_600.0,
    "loss": 3.25,
    "battery_c": 38.4,
    "cpu_c": 71.2,
}


def test_a_live_run_is_shown_as_its_trainer_foretells_it():
    found = outlook(LIVE, STATUS, USAGE, price=None, now=2_000.0)
    assert (found["burst_tok_s"], found["sustained_tok_s"], found["duty"]) == (500.0, 250.0, 0.5)
    assert (found["eta_s"], found["done_t"], found["battery_s"]) == (18_000.0, 20_000.0, 3_600.0)
    assert (found["wh_per_mtok"], found["wh_left"], found["mean_power_w"]) == (10.0, 30.0, 5.0)
    assert found["price_per_mtok"] is None and found["price_left"] is None
    lines = list(pace_lines(STATUS, found, live=True))
    assert lines[:2] == ["  tok/s     500 in steps", "  sustained 250 tok/s, rests included"]
    assert lines[2].startswith("  left      5h00m, done ")
    assert lines[3:] == [
        "  battery   lasts 1h00m, then the charger",
        "  heat      battery 38 C, cpu 71 C",
        "  energy    10 Wh a million tokens",
        "  to come   30 Wh",
    ]
    assert max(map(len, lines)) <= 45


def test_what_was_read_is_of_the_step_that_is_shown():
    """The status of a run that was killed is older than its story: by 49 steps, where a step takes 20 ms."""
    story, status = Digest(), {"step": 356, "tokens": 45_568, "unique_tokens": 38_016, "epochs": 0.6}
    story.fold({"kind": "launch", "steps": 595})
    story.fold({"kind": "step", "step": 405, "tokens": 51_840, "loss": 2.0})
    assert next(story_lines(story, status)) == "  step      405 of 595 (68 %)"
    assert next(read_lines(status, story)) == "  read      51,840 tokens, 0.68 epochs"
    assert next(read_lines(status, Digest())) == "  read      45,568 tokens, 0.60 epochs"


def test_the_best_is_shown_whose_line_a_full_disk_lost(place, call, monkeypatch):
    def full(fd, data):
        if b'"kind":"eval","step":12,' in data:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(fd, data)

    monkeypatch.setattr(telemetry, "write_all", full)
    assert call("train", "tiny.toml", "--quiet").code == 0
    run = RunDir(place / "home" / "runs" / "tiny")
    told, status = digest(telemetry.read_records(run.telemetry)), read_status(run)
    assert told.best_step < 12 == status["best_step"] and status["best_loss"] < told.best_loss
    for found in (call("status", "tiny", "--json").json, call("runs", "list", "--json").json["runs"][0]):
        assert (found["best_step"], found["best_loss"]) == (12, status["best_loss"])
    assert f"  best      {status['best_loss']:.4f} at step 12\n" in call("status", "tiny").out


def test_a_simulated_phone_is_named_and_its_clock_is_not_shown():
    status = {**STATUS, "simulated": {"device": "sim:galaxy-s25plus", "speed": 60.0}}
    lines = list(pace_lines(status, outlook(LIVE, status, USAGE, price=None, now=2_000.0), live=True))
    assert lines[0] == "  device    sim:galaxy-s25plus" and lines[3] == "  left      5h00m"


def test_money_by_a_flag_or_by_the_limits():
    flag = outlook(LIVE, STATUS, USAGE, price=0.3)
    assert (flag["price_per_mtok"], flag["price_left"]) == (pytest.approx(0.003), pytest.approx(0.009))
    assert "  cost      0.003 a million tokens" in list(pace_lines(STATUS, flag, live=True))
    told = outlook(LIVE, {**STATUS, "price_per_mtok": 0.5, "price_left": 1.5}, USAGE, price=None)
    assert (told["price_per_mtok"], told["price_left"]) == (0.5, 1.5)


@pytest.mark.parametrize("alive", [DEAD, Liveness("asleep", 900.0, "trainer pid 1")])
def test_what_does_not_go_on_has_no_end(alive):
    found = outlook(alive, STATUS, USAGE, price=None)
    assert found["eta_s"] is found["done_t"] is found["battery_s"] is None
    assert found["burst_tok_s"] == 500.0 and found["wh_per_mtok"] == 10.0


def test_an_end_that_nobody_knows_is_said_to_be_unknown():
    found = outlook(LIVE, {**STATUS, "done_t": None, "eta_s": None}, USAGE, price=None)
    assert "  left      3h20m of work, end not known" in list(pace_lines(STATUS, found, live=True))
    nothing = outlook(LIVE, {}, Usage(), price=None)
    assert list(pace_lines({}, nothing, live=True)) == [] and set(nothing.values()) == {None}


@pytest.mark.parametrize("odd", ["noon", [], True, 1e400, {}])
def test_odd_values_in_a_status_are_unknown(odd):
    status = dict.fromkeys([*STATUS, "wh_left"], odd)
    found = outlook(LIVE, status, Usage.from_json(odd), price=None)
    assert set(found.values()) == {None}
    assert one_line("notes", "running", status, found, width=60) == "notes running"


def test_the_line_says_the_most_useful_that_fits():
    found = outlook(LIVE, STATUS, USAGE, price=None, now=2_000.0)
    lines = {width: one_line("notes", "running", STATUS, found, width=width) for width in range(1, 61)}
    assert lines[60] == "notes running 25% loss 3.250 38C left 5h00m"
    assert lines[40] == "notes running 25% 38C left 5h00m"
    assert lines[30] == "notes running 25% left 5h00m" and lines[20] == "notes running 25%" and lines[3] == "not"
    assert all(len(line) <= width for width, line in lines.items())
    wide = one_line("日本語の走り", "running", STATUS, found, width=9)
    assert wide == "日本語の" and columns(wide) == 8


def test_the_rate_is_the_one_that_the_training_showed(reading, call):
    status = read_status(RunDir(reading / "runs" / "tiny"))
    found = call("status", "tiny", "--json").json
    assert (found["burst_tok_s"], found["sustained_tok_s"]) == (status["tok_s"], status["tok_s_sustained"])
    rate = f"{status['tok_s']:,.0f}"
    assert f"  tok/s     {rate} in steps\n" in call("status", "tiny").out
    assert f"{rate} tok/s" in status_line(status, 200)


def test_line_and_watch_of_the_finished_run(reading, call):
    assert call("status", "tiny", "--line").out == f"tiny finished 100% loss {loss(reading):.3f}\n"
    assert call("status", "tiny", "--line", "--width", "6").out == "tiny\n"
    assert call("status", "tiny", "--watch").out == call("status", "tiny").out
    assert call("status", "tiny", "--json").json["wh_per_mtok"] is None
    refused = call("status", "tiny", "--watch", "--json")
    assert refused.code == 2 and "not allowed with" in refused.error


def loss(home):
    return read_status(RunDir(home / "runs" / "tiny"))["loss"]


@pytest.fixture
def held(own):
    """The run as a trainer holds it, with a fresh heartbeat. Calling it ends the trainer."""
    run = RunDir(own / "runs" / "tiny")
    lock = RunLock(run)
    write_status(run, {**read_status(run), "heartbeat_t": time.time(), "state": "running", "step": 6}, durable=False)
    yield lock.release
    lock.release()


def test_watch_in_a_pipe_prints_a_line_and_ends_with_the_run(held):
    with subprocess.Popen(WATCH, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"tiny running 50% loss ")
        held()
        rest = process.stdout.read()
    assert process.returncode == 0 and rest.startswith(b"tiny: finished\n") and b"\x1b" not in rest


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_watch_on_a_terminal_leaves_cleanly_on_ctrl_c(held, term):
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": term, "COLUMNS": "45", "LINES": "20"}
        os.execv(sys.executable, WATCH)
    try:
        text = read_until(terminal, b"\x1b[J" if term != "dumb" else b"running")
        os.write(terminal, b"\x03")
        text += read_until(terminal, None)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(terminal)
    said = text.decode()
    assert "Traceback" not in said and ("\x1b" in said) == (term != "dumb")
    lines = re.sub(r"\x1b\[\d*[A-Za-z]|\^C", "", said).replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 45 and any("6 of 12" in line or "50%" in line for line in lines)


def read_until(terminal, mark):
    """What comes until the mark, or until the other side is gone."""
    found, until = b"", time.monotonic() + 20
    while time.monotonic() < until and (mark is None or mark not in found):
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            found += os.read(terminal, 65536)
        except OSError:  # how Linux says that the other side closed
            break
        if not found:
            break
    return found


def test_watch_is_ended_by_a_signal_too(held):
    with subprocess.Popen(WATCH, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"No longer watching tiny; it goes on.\n"
    assert process.returncode == 0
