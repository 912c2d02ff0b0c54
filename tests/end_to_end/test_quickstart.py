"""The main job from text to a model that answers, killed and stopped at every stage, in real processes."""

from __future__ import annotations

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from ondevice.cli.main import main

pytest.importorskip("onnxruntime")

STEPS = 480


def until_line(child, text):
    """Reads the output to a line with this text."""
    for line in child.stdout:
        if text in line:
            return
    raise AssertionError(f"it never said '{text}': {child.stderr.read()}")


def until_path(child, place, pattern):
    """Waits for a file or folder below the home."""
    until = time.monotonic() + 120
    while not any(place.home.glob(pattern)):
        assert child.poll() is None and time.monotonic() < until, f"there never was {pattern}"
        time.sleep(0.001)


MOMENTS = {
    "the dataset is being built": lambda child, place: until_path(child, place, "datasets/*/build.lock"),
    "the plan is made": lambda child, place: until_line(child, "Steps "),
    "nothing is saved yet": lambda child, place: until_line(child, "step 0: validation loss"),
    "a checkpoint is being written": lambda child, place: until_path(child, place, "runs/*/checkpoints/.tmp-*"),
    "a checkpoint is there": lambda child, place: until_path(child, place, "runs/*/checkpoints/step-*/manifest.json"),
    "training has ended": lambda child, place: until_line(child, '"outcome"'),
    "it is measured": lambda child, place: until_line(child, "Measuring"),
    "it is exported": lambda child, place: until_line(child, "Exporting"),
    "the export is being written": lambda child, place: until_path(child, place, "runs/*/exports/*"),
}


def kill_at(place, moment):
    """A quickstart that dies at this moment."""
    with place.process() as child:
        MOMENTS[moment](child, place)
        child.send_signal(signal.SIGKILL)
        child.wait(60)
    assert child.returncode == -signal.SIGKILL


def stop_at(place, text, number):
    """A quickstart that is asked to stop once it said this, and leaves as it promises."""
    with place.process() as child:
        until_line(child, text)
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    outcome, error = [json.loads(line) for line in out.splitlines()][-2:]
    assert (outcome["outcome"], outcome["why"]) == ("stopped", f"asked by {number.name}")
    step = outcome["step"]
    assert int(text.split()[1].rstrip(":")) <= step < STEPS
    assert (error["kind"], error["exit_code"]) == ("Interrupted", 130)
    assert err == f"error: first saved at step {step}; go on with `ondevice train first`.\n"
    assert (place.run / "checkpoints" / f"step-{step:08d}" / "manifest.json").is_file()


def assert_whole(place, lines, straight):
    """All a quickstart promises; and to the bit what one without interruption gave."""
    other, told = straight
    result, expected = lines[-1], told[-1]
    assert result["kind"] == "result"
    for key in ("step", "sample", "prompt"):
        assert result[key] == expected[key], key
    assert_same_scores(result, expected)
    assert result["export"]["parity"]["max_abs_error"] <= 1e-4
    assert result["onnx"]["text"] == expected["onnx"]["text"] != ""
    assert place.weights() == other.weights()
    left = [path for path in place.home.rglob("*") if ".tmp-" in path.name or ".ondevice-" in path.name]
    assert left == []


def assert_same_scores(result, expected):
    """Equal but for the last bits, which depend on the number of threads that measured."""
    assert result["sources"].keys() == expected["sources"].keys()
    for name, scores in result["sources"].items():
        assert scores == pytest.approx(expected["sources"][name], rel=1e-5)


def test_the_main_job(straight):
    _, lines = straight
    assert {line["kind"] for line in lines} == {"say", "status", "outcome", "result"}
    assert [line["kind"] for line in lines].index("result") == len(lines) - 1
    outcome = next(line for line in lines if line["kind"] == "outcome")
    assert (outcome["outcome"], outcome["run"]) == ("finished", "first")
    result = lines[-1]
    (source,) = result["sources"].values()
    assert source["loss"] < source["unigram_loss"]
    assert 0 < source["lzma_bits_per_byte"] < source["bits_per_byte"] < 8
    assert source["tokens"] > 10_000
    parity = result["export"]["parity"]
    assert parity["max_abs_error"] <= parity["tolerance"] <= 1e-4 and parity["same_argmax"] == 1.0
    assert result["sample"] and result["onnx"]["text"] and result["onnx"]["tok_s"] > 0
    assert result["onnx"]["text"] == result["sample"], "both backends sample alike"


@pytest.fixture
def again(straight, monkeypatch, capsys):
    """``again("--quiet")``: the same command once more, in this process: its exit code and what it printed."""
    place, _ = straight
    monkeypatch.setenv("ONDEVICE_HOME", str(place.home))
    monkeypatch.chdir(place.folder)
    torch.set_num_threads(1)

    def call(*flags):
        code = main([*place.words[3:], *flags])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_second_call_answers_from_what_is_there(straight, again):
    place, told = straight
    before = {path: path.stat().st_mtime_ns for path in place.home.rglob("*") if path.is_file()}
    code, out, err = again("--json")
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["kind"] for line in lines] == ["say", "result"]
    assert "trained already" in lines[0]["text"]
    assert lines[-1] == told[-1]
    assert {path: path.stat().st_mtime_ns for path in place.home.rglob("*") if path.is_file()} == before


def test_a_person_reads_how_it_did_and_what_to_try_next(straight, again):
    _, told = straight
    code, out, err = again("--quiet")
    assert (code, err) == (0, "")
    for words in (
        "nats a token",
        "unigram",
        "zlib -9",
        "lzma",
        "It writes (torch):",
        "It writes (onnxruntime",
        "Next:",
    ):
        assert words in out
    assert told[-1]["export"]["verdict"] in out
    assert "ondevice generate first" in out


def test_an_export_that_was_deleted_is_made_again(straight, again):
    place, told = straight
    shutil.rmtree(place.run / "exports")
    code, out, _ = again("--json")
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert result["sample"] == told[-1]["sample"]
    assert_same_scores(result, told[-1])
    assert (place.run / "exports").is_dir() and result["export"]["parity"]["max_abs_error"] <= 1e-4


def test_other_settings_under_the_same_name_are_refused(again):
    code, out, err = again("--json", "--minutes", "2")
    assert code == 2
    assert json.loads(out)["exit_code"] == 2
    assert "started with budget.minutes = 1.0, not 2.0" in err and "--name" in err


def test_killed_and_stopped_at_every_stage_it_ends_to_the_bit_where_it_would_have(quickstart, straight):
    for moment in ("the dataset is being built", "nothing is saved yet", "a checkpoint is there"):
        kill_at(quickstart, moment)
    stop_at(quickstart, "step 240: validation loss", signal.SIGINT)  # as far from the first save as from the end
    kill_at(quickstart, "the export is being written")
    assert_whole(quickstart, quickstart.finish(), straight)
    launches = list((quickstart.run / "telemetry").iterdir())
    assert len(launches) == 4, "what was trained is not trained again"


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while(quickstart, straight, moment):
    kill_at(quickstart, moment)
    assert_whole(quickstart, quickstart.finish(), straight)


@pytest.mark.slow
def test_killed_at_random_moments(quickstart, straight):
    rng = random.Random(11)
    for _ in range(12):
        with quickstart.process() as child:
            try:
                child.wait(rng.uniform(0.3, 6.0))
            except subprocess.TimeoutExpired:
                child.kill()
    assert_whole(quickstart, quickstart.finish(), straight)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_asked_to_stop_it_saves_and_goes_on(quickstart, straight, number):
    stop_at(quickstart, "step 80: validation loss", number)
    assert_whole(quickstart, quickstart.finish(), straight)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("moment", ["the dataset is being built", "it is measured", "it is exported"])
def test_asked_to_stop_outside_training_it_leaves_and_goes_on(quickstart, straight, number, moment):
    with quickstart.process() as child:
        MOMENTS[moment](child, quickstart)
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    # Python itself may end by the signal where it came during an import; a shell calls both 130.
    assert child.returncode in (130, -signal.SIGINT)
    assert err.startswith("error: ") and err.count("\n") == 1
    assert_whole(quickstart, quickstart.finish(), straight)


@pytest.mark.slow
def test_a_terminal_that_closes_saves_and_goes_on(quickstart, straight):
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(quickstart.folder)
        os.environ["ONDEVICE_HOME"] = str(quickstart.home)
        os.execv(sys.executable, quickstart.words)
    heard = b""
    while b"step 80: validation loss" not in heard:
        heard += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert not (quickstart.home / "logs").exists()
    status = json.loads((quickstart.run / "status.json").read_text())
    assert status["state"] == "stopped" and status["step"] == status["saved_step"] >= 80
    assert_whole(quickstart, quickstart.finish(), straight)


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_stop_the_training(quickstart, straight):
    with quickstart.process() as child:
        until_line(child, "step 0: validation loss")
        child.stdout.close()
        child.wait(100)
        assert child.returncode == 0, child.stderr.read()
    assert quickstart.weights() == straight[0].weights()
