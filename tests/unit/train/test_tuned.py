"""What autotune found is remembered for the device, and forgotten where it may not hold."""

import dataclasses

import pytest

from ondevice.run.files import read_sealed, write_sealed
from ondevice.run.recipe import Fit, ModelShape
from ondevice.train import tuned
from ondevice.train.autotune import Choice, candidates
from ondevice.train.tuned import key_of, recall, remember, tuned_choice

SHAPE = ModelShape(arch="llama", vocab_size=256, context=64, layers=4, width=64, heads=4, kv_heads=4, hidden=128)
FIT = Fit(micro_batch=8, threads=2, activation_checkpointing=False, loss_chunk_tokens=512)
WANTED = candidates(precisions=["fp32"], threads=[2, 1])
FOUND = Choice(precision="fp32", threads=1, micro_batch=4, tok_s=1000.0)


@pytest.fixture
def timed(home, monkeypatch):
    """How often something was timed."""
    calls = []

    def choose(shape, fit, wanted, **how):
        calls.append(shape)
        return FOUND

    monkeypatch.setattr(tuned, "choose", choose)
    monkeypatch.setattr(tuned, "_power", lambda: "plugged")
    return calls


def ask(shape=SHAPE, fit=FIT, wanted=WANTED, sizes=(8, 4), batch=16, **how):
    return tuned_choice(shape, fit, wanted, sizes, batch=batch, optimizer="adamw", **how)


def test_the_second_run_times_nothing(timed):
    assert ask() == (FOUND, False)
    again, known = ask()
    assert known and len(timed) == 1
    assert dataclasses.replace(again, tok_s=None) == dataclasses.replace(FOUND, tok_s=None)
    assert again.tok_s == pytest.approx(1000.0)
    assert ask(again=True) == (FOUND, False) and len(timed) == 2


def test_where_minutes_count_what_is_known_is_timed_alone(timed, monkeypatch):
    monkeypatch.setattr(tuned, "timed", lambda shape, fit, choice, **how: dataclasses.replace(choice, tok_s=7.0))
    assert ask(rate=True) == (FOUND, False)
    assert ask(rate=True) == (dataclasses.replace(FOUND, tok_s=7.0), True)
    assert len(timed) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"shape": dataclasses.replace(SHAPE, width=128)},
        {"shape": dataclasses.replace(SHAPE, layers=9)},
        {"fit": dataclasses.replace(FIT, activation_checkpointing=True)},
        {"wanted": WANTED[:1]},
        {"sizes": (8,)},
        {"batch": 32},
    ],
)
def test_whatever_the_answer_depends_on_is_timed_anew(timed, change):
    ask()
    assert not ask(**change)[1]


def test_on_battery_or_with_another_torch_it_is_timed_anew(timed, monkeypatch):
    ask()
    monkeypatch.setattr(tuned, "_power", lambda: "battery")
    assert not ask()[1]
    monkeypatch.setattr(tuned.torch, "__version__", "9.9")
    assert not ask()[1] and len(timed) == 3
    assert ask()[1]


def test_a_model_of_the_same_class_gets_a_rate_of_its_own_size(timed):
    ask()
    found, known = ask(shape=dataclasses.replace(SHAPE, layers=5))
    assert known and 750.0 < found.tok_s < 900.0


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"v": 1, "choices": {}, "sha256": "00"}'])
def test_a_damaged_file_counts_as_empty_and_is_replaced(timed, home, content):
    ask()
    (home / "tuned.json").write_bytes(content)
    assert not ask()[1]
    assert ask()[1]


def test_a_newer_file_counts_as_empty(timed, home):
    home.mkdir(parents=True)
    write_sealed(home / "tuned.json", {"v": tuned.VERSION + 1, "choices": 5})
    assert not ask()[1]


@pytest.mark.parametrize("change", [{"threads": 64}, {"micro_batch": "4"}, {"flops_s": -1.0}, {"t": 0.0}, {"key": {}}])
def test_an_entry_that_makes_no_sense_is_not_believed(timed, home, change):
    ask()
    body = read_sealed(home / "tuned.json", version=tuned.VERSION)
    ((name, entry),) = body["choices"].items()
    write_sealed(home / "tuned.json", {**body, "choices": {name: {**entry, **change}}})
    assert not ask()[1]


def test_the_oldest_are_forgotten(timed, monkeypatch):
    monkeypatch.setattr(tuned, "MOST", 3)
    for turn, batch in enumerate((1, 2, 3, 4)):
        monkeypatch.setattr(tuned.time, "time", lambda turn=turn: 2e9 + turn)
        ask(batch=batch)
    assert [ask(batch=batch)[1] for batch in (4, 3, 2, 1)] == [True, True, True, False]


def test_a_disk_that_takes_nothing_is_no_reason_to_fail(timed, home):
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_text("a file where the folder should be")
    assert ask() == (FOUND, False) == ask()


def test_the_power_state_is_read_here():
    assert tuned._power() in ("plugged", "battery", "unknown")


def test_nothing_untimed_is_kept(home):
    key = key_of(SHAPE, FIT, WANTED, (8, 4), batch=16, optimizer="adamw")
    remember(key, SHAPE, dataclasses.replace(FOUND, tok_s=None))
    assert recall(key, SHAPE) is None and not (home / "tuned.json").exists()
