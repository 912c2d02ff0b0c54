"""``ondevice pin``: pins on a stopped run and on one in training, and what is refused."""

from __future__ import annotations

import json
import threading

import pytest

from ondevice.cli.progress import QuietDisplay
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.store import Store
from ondevice.train.launch import make_loop


@pytest.fixture
def store(own):
    return Store(own / "runs" / "tiny" / "checkpoints")


def test_a_pin_on_a_stopped_run_is_kept_with_its_reason(store, call):
    step = store.steps()[-1]
    assert call("pin", "tiny").out == f"tiny: nothing is pinned; checkpoints: {', '.join(map(str, store.steps()))}.\n"
    result = call("pin", "tiny", step, "--reason", "before  the\nnew text")
    assert result.out == f"tiny: step {step} is pinned (before the new text).\n"
    assert store.pins() == {step: "before the new text"}
    assert call("pin", "tiny").out == f"{step:>10}  before the new text\n"
    listed = call("pin", "tiny", "--json").json
    assert listed == {
        "run": "tiny",
        "pins": [{"step": step, "reason": "before the new text", "exists": True, "complete": True}],
    }
    assert call("pin", "tiny", step, "--json").json == {"ok": True, "step": step, "reason": "asked for"}
    assert call("pin", "tiny", step, "--remove").out == f"tiny: step {step} is no longer pinned.\n"
    assert store.pins() == {}


def test_a_pin_whose_checkpoint_went_can_be_seen_and_removed(store, call):
    step = store.steps()[0]
    store.pin(step, "old")
    store.prune(set(store.steps()) - {step})
    assert call("pin", "tiny").out == f"{step:>10} (gone)  old\n"
    assert call("pin", "tiny", step, "--remove").code == 0
    assert call("pin", "tiny", step, "--remove").code == 4


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("5",), 4, "no checkpoint of step 5; there are: "),
        (("-5",), 2, "-5"),
        (("many",), 2, "'many' is not a whole number"),
        (("--remove",), 2, "name the step too"),
        (("--reason", "x"), 2, "name the step too"),
        (("12", "--reason", " "), 2, "write one line of at most 200 printable characters"),
        (("12", "--reason", "x" * 201), 2, "write one line"),
        (("12", "--reason", "\x1b[2J"), 2, "write one line"),
        (("12", "--reason", "x", "--remove"), 2, "not allowed with"),
    ],
)
def test_what_is_refused_is_one_sentence(store, call, words, code, says):
    result = call("pin", "tiny", *words)
    assert result.code == code and says in result.error
    assert store.pins() == {}


def test_a_damaged_list_of_pins_is_told(store, call):
    (store.folder / "pins.json").write_text(json.dumps({"v": 1, "pins": {}}))
    result = call("pin", "tiny")
    assert result.code == 4 and "Restore it from a copy, or delete it" in result.error


def test_a_run_that_is_held_gets_a_letter(own, store, call):
    lock = RunLock(RunDir(own / "runs" / "tiny"))
    try:
        result = call("pin", "tiny", store.steps()[-1], "--wait", "0.2")
        assert result.out == "tiny: asked; the trainer answers when its micro-batch is done.\n"
    finally:
        lock.release()
    assert store.pins() == {}
    (letter,) = (own / "runs" / "tiny" / "control" / "inbox").glob("*.json")
    assert json.loads(letter.read_text())["args"] == {"step": store.steps()[-1], "reason": "asked for"}


def test_a_live_trainer_pins_and_refuses(own, store, call):
    run, step = RunDir(own / "runs" / "tiny"), store.steps()[-1]
    lock, stop = RunLock(run), threading.Event()
    loop = make_loop(run, display=QuietDisplay())

    def answer_letters():
        while not stop.wait(0.05):
            loop.desk.safe_point(step=12, tokens=0)

    thread = threading.Thread(target=answer_letters)
    thread.start()
    try:
        assert call("pin", "tiny", step, "--reason", "live").out == f"tiny: step {step} is pinned (live).\n"
        assert store.pins() == {step: "live"}
        refused = call("pin", "tiny", 99)
        assert refused.code == 1
        assert refused.error.startswith("tiny: pin refused: ") and refused.error.endswith(f"there are: {_all(store)}.")
        assert call("pin", "tiny", step, "--remove").code == 0 and store.pins() == {}
    finally:
        stop.set()
        thread.join(10)
        loop.keeper.close()
        loop.telemetry.close()
        lock.release()


def _all(store):
    return ", ".join(map(str, store.steps()))
