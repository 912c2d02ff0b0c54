"""The speed of the fastest cores: throttling shows, idle cores and hidden files do not mislead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.device.cpufreq import FastestCores


def share(tree: Any) -> float:
    return float(FastestCores(tree.sysfs).read().values["freq_share"])


def test_only_the_fastest_cores_count(tree: Any) -> None:
    for core in range(4):
        tree.core(core, cpuinfo_max_freq=1_800_000, scaling_cur_freq=1_800_000)
    tree.core(4, cpuinfo_max_freq=2_800_000, scaling_cur_freq=1_400_000)
    tree.core(5, cpuinfo_max_freq=2_700_000, scaling_cur_freq=300_000)  # idle
    assert share(tree) == 0.5


def test_a_lowered_limit_is_throttling(tree: Any) -> None:
    tree.core(0, cpuinfo_max_freq=2_000_000, scaling_max_freq=1_000_000, scaling_cur_freq=1_000_000)
    assert share(tree) == 0.5


def test_without_the_top_speed_the_highest_limit_seen_stands_for_it(tree: Any) -> None:
    tree.core(0, scaling_max_freq=2_000_000, scaling_cur_freq=2_000_000)
    cores = FastestCores(tree.sysfs)
    assert cores.read().values == {"freq_share": 1.0}
    tree.core(0, scaling_max_freq=1_200_000, scaling_cur_freq=1_200_000)
    assert cores.read().values == {"freq_share": 0.6}


def test_a_boost_beyond_the_top_is_one(tree: Any) -> None:
    tree.core(0, cpuinfo_max_freq=2_000_000, scaling_cur_freq=2_100_000)
    assert share(tree) == 1.0


def test_a_core_that_is_off_is_left_out(tree: Any) -> None:
    tree.core(0, cpuinfo_max_freq=2_000_000, scaling_cur_freq=1_500_000)
    tree.core(1, cpuinfo_max_freq=2_000_000)
    tree.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "<unknown>\n")
    assert share(tree) == 0.75


def test_nothing_to_read(tree: Any, galaxy: Any, denied: Callable[[Path], None]) -> None:
    with pytest.raises(LookupError, match="frequency"):
        share(galaxy)  # top speeds only
    denied(tree.sysfs)
    with pytest.raises(PermissionError):
        share(tree)
