"""Reading ahead and writing behind change nothing but the time."""

import threading

import pytest

from ondevice.data.build_threads import WriteBehind, read_ahead


def _threads():
    return [t for t in threading.enumerate() if t.name.startswith(("read-ahead", "write-behind"))]


def test_items_come_in_order_and_errors_come_through():
    assert list(read_ahead(iter(range(100)))) == list(range(100))
    assert list(read_ahead(iter([]))) == []

    def fails():
        yield 1
        raise KeyError("lost")

    items = read_ahead(fails())
    assert next(items) == 1
    with pytest.raises(KeyError, match="lost"):
        next(items)
    assert _threads() == []


def test_closing_stops_the_thread():
    items = read_ahead(iter(range(10**9)))
    assert next(items) == 0
    items.close()
    assert _threads() == []


def test_work_is_done_in_order_and_none_after_a_failure():
    done = []
    with WriteBehind() as writing:
        for number in range(50):
            writing.submit(lambda n=number: done.append(n))
        writing.wait()
    assert done == list(range(50))

    def fail():
        raise OSError("full")

    with pytest.raises(OSError, match="full"), WriteBehind() as writing:
        writing.submit(fail)
        for _ in range(20):
            writing.submit(lambda: done.append("after"))
        writing.wait()
    assert "after" not in done and _threads() == []
