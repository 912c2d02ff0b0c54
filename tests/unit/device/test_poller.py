"""The poller: what follows from answers and failures, and a thread that nobody ever waits for."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from ondevice.device.answer import Answer, fold, nothing
from ondevice.device.poller import BACK_OFF_S, STALE_S, Poller, SlowSource, State, after_answer, after_failure, told

NAMES = ("battery_percent",)
GOOD = Answer({"battery_percent": 50.0}, {"battery_percent": "test"}, {})


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_three_failures_in_a_row_are_unknown_and_ten_minutes_of_peace() -> None:
    state = after_answer(GOOD, now=0.0, period_s=20.0)
    for now in (20.0, 46.0):
        state = after_failure(state, "no answer", now=now, period_s=20.0)
        assert (told(state, NAMES, now=now), state.due_s) == ((GOOD, now), now + 20.0)
    state = after_failure(state, "no answer", now=72.0, period_s=20.0)
    assert state.due_s == 72.0 + BACK_OFF_S == 672.0
    answer, _ = told(state, NAMES, now=72.0)
    assert answer.values == {}
    assert answer.unknown == {"battery_percent": "no answer (3 times in a row; asked again every 10 minutes)"}
    state = after_failure(state, "no answer", now=672.0, period_s=20.0)
    assert state.due_s == 1272.0 and "4 times" in told(state, NAMES, now=672.0)[0].unknown["battery_percent"]
    assert after_answer(GOOD, now=1272.0, period_s=20.0).due_s == 1292.0


def test_an_answer_from_before_a_sleep_is_stale() -> None:
    state = after_answer(GOOD, now=0.0, period_s=20.0)
    assert told(state, NAMES, now=STALE_S) == (GOOD, STALE_S)
    answer, _ = told(state, NAMES, now=3600.0)
    assert answer.unknown == {"battery_percent": "the last answer is 3600 s old"}
    late = after_failure(state, "no answer", now=3600.0, period_s=20.0)
    assert told(late, NAMES, now=3600.0)[0].unknown["battery_percent"].endswith("3600 s old: no answer")


def test_before_the_first_answer_the_reason_says_so() -> None:
    assert told(State(), NAMES, now=0.0)[0] == nothing(NAMES, "not asked yet")
    assert not State().asked
    assert after_failure(State(), "x", now=0.0, period_s=1.0).asked


def test_fold_takes_the_first_value_and_the_last_reason() -> None:
    first = Answer({"plugged": True}, {"plugged": "a"}, {"battery_c": "denied"})
    second = Answer({"plugged": False, "power_w": 1.0}, {"plugged": "b", "power_w": "b"}, {"battery_c": "hangs"})
    folded = fold([(first, 0.04), (second, 12.34), (nothing(("power_w",), "no"), 0.0)])
    assert folded.values == {"plugged": True, "power_w": 1.0}
    assert folded.sources == {"plugged": "a", "power_w": "b"}
    assert folded.ages_s == {"plugged": 0.0, "power_w": 12.3}
    assert folded.unknown == {"battery_c": "hangs"}


def test_one_thread_asks_all_in_turn() -> None:
    threads: set[int] = set()

    def ask(_: Callable[[], bool]) -> Answer:
        threads.add(threading.get_ident())
        return GOOD

    poller = Poller([SlowSource(NAMES, ask, 20.0), SlowSource(("headroom",), ask, 30.0)])
    for _ in range(5):
        poller.poke()
    wait_until(lambda: poller.settled)
    poller.close()
    assert len(threads) == 1 and threading.get_ident() not in threads
    assert [answer for answer, _ in poller.latest()] == [GOOD, GOOD]


def test_no_source_no_thread() -> None:
    poller = Poller([])
    before = threading.active_count()
    poller.poke()
    assert threading.active_count() == before and poller.settled
    poller.close()


@pytest.mark.parametrize("error", [OSError(5, "broken"), ValueError("rubbish"), RecursionError(), KeyError("status")])
def test_whatever_a_source_raises_is_a_reason(error: Exception) -> None:
    def ask(_: Callable[[], bool]) -> Answer:
        raise error

    poller = Poller([SlowSource(NAMES, ask, 0.01), SlowSource(NAMES, lambda _: GOOD, 0.01)])
    poller.poke()
    wait_until(lambda: poller.settled and "3 times" in poller.latest()[0][0].unknown["battery_percent"])
    assert poller.latest()[1][0] == GOOD
    poller.close()


def test_it_asks_again_after_the_period_and_not_before() -> None:
    asked: list[float] = []

    def ask(_: Callable[[], bool]) -> Answer:
        asked.append(time.monotonic())
        return GOOD

    poller = Poller([SlowSource(NAMES, ask, 0.2)])
    poller.poke()
    wait_until(lambda: len(asked) == 3)
    poller.close()
    assert all(second - first >= 0.2 for first, second in pairwise(asked))


def hanging(started: threading.Event) -> SlowSource:
    def ask(stopped: Callable[[], bool]) -> Answer:
        started.set()
        while not stopped():
            time.sleep(0.01)
        raise InterruptedError

    return SlowSource(NAMES, ask, 20.0)


def test_close_ends_a_source_that_hangs_and_nothing_starts_again() -> None:
    started = threading.Event()
    poller = Poller([hanging(started)])
    poller.poke()
    assert started.wait(10)
    began = time.monotonic()
    poller.close()
    poller.close()
    poller.poke()
    assert time.monotonic() - began < 5
    assert not any(thread.name == "slow sensors" for thread in threading.enumerate())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_thread_of_its_own_and_leaves_the_parents_alone() -> None:
    started = threading.Event()
    poller = Poller([SlowSource(NAMES, lambda _: GOOD, 0.05), hanging(started)])
    poller.poke()
    assert started.wait(10)
    child = os.fork()
    if child == 0:  # no assertion here: the child must leave through os._exit
        poller.poke()
        alive = any(thread.name == "slow sensors" and thread.is_alive() for thread in threading.enumerate())
        poller.close()
        os._exit(0 if alive else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert any(thread.name == "slow sensors" for thread in threading.enumerate())
    poller.close()
    gc.collect()
