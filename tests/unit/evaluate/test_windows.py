"""Windows of validation text: from every source, over its whole length, none longer than asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from ondevice.evaluate.windows import validation_windows


class Stream:
    def __init__(self, first: int, length: int) -> None:
        self.ids = np.arange(first, first + length, dtype=np.uint16)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, start: int, count: int) -> np.ndarray:
        assert start + count <= len(self.ids)
        return self.ids[start : start + count]


def dataset(**streams: Stream) -> Any:
    return SimpleNamespace(
        sources=[SimpleNamespace(name=name) for name in streams], stream=lambda name, split: streams[name]
    )


def test_every_source_gives_windows_over_its_whole_length() -> None:
    windows = validation_windows(dataset(a=Stream(0, 1000), b=Stream(5000, 41)), length=10, tokens=80)
    assert [len(each) for each in windows] == [11] * 8
    starts = [int(each[0]) for each in windows]
    assert starts[:4] == [0, 240, 490, 740] and starts[4:] == [5000, 5010, 5020, 5030]
    assert all(each.dtype == np.int64 and (np.diff(each) == 1).all() for each in windows)


def test_short_texts_give_what_they_have() -> None:
    windows = validation_windows(dataset(a=Stream(0, 7), b=Stream(0, 1), c=Stream(0, 0)), length=10, tokens=1000)
    assert [each.tolist() for each in windows] == [list(range(7))]
    assert validation_windows(dataset(a=Stream(0, 1)), length=10, tokens=1000) == []
