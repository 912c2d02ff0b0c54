"""Signs of life and the scene of a death, on made-up machines."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ondevice.device.clock import boottime_s
from ondevice.device.memory import machine_memory
from ondevice.device.memory_group import MemoryGroup
from ondevice.device.vitals import Vitals, read_scene


def test_a_galaxy_tells_its_memory_and_processes(galaxy, android: None) -> None:  # type: ignore[no-untyped-def]
    galaxy.write("proc/self/statm", "90000 51200 100 1 0 1 0")
    galaxy.write("proc/self/status", "VmHWM:\t  102400 kB\n")
    vitals = Vitals(proc=galaxy.proc, sysfs=galaxy.sysfs)
    for pid in (11, 12, 4711):
        galaxy.write(f"proc/{pid}/stat", "")
    signs = vitals.read()
    assert signs == {
        "rss_mb": pytest.approx(51200 * os.sysconf("SC_PAGE_SIZE") / 2**20),
        "mem_available_mb": 4096.0,
        "mem_total_mb": 11264.0,
        "processes": 3,
    }
    galaxy.write("proc/self/status", "VmHWM:\t  204800 kB\n")  # the peak grew since
    assert vitals.read()["peak_rss_mb"] == 200.0


def test_a_machine_that_shows_nothing_has_no_signs(tree, denied: Callable[[Path], None]) -> None:  # type: ignore[no-untyped-def]
    denied(tree.root)
    signs = Vitals(proc=tree.proc, sysfs=tree.sysfs).read()
    assert set(signs) <= {"rss_mb", "peak_rss_mb", "mem_available_mb", "mem_total_mb"}  # psutil may still know
    assert not {"memory_group", "oom_kills", "processes"} & set(signs)
    scene = read_scene(proc=tree.proc, sysfs=tree.sysfs, kernel_log=tree.root / "none")
    assert (scene.oom_kills, scene.memory_group, scene.victims) == (None, None, {})


def test_version_1_groups_and_the_tightest_limit_above(tree) -> None:  # type: ignore[no-untyped-def]
    tree.write("proc/self/cgroup", "9:cpu:/\n4:memory:/jobs/a\n0::/\n")
    tree.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    tree.write("sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", f"{512 << 20}\n")
    tree.write("sys/fs/cgroup/memory/jobs/a/memory.limit_in_bytes", f"{2048 << 20}\n")
    tree.write("sys/fs/cgroup/memory/jobs/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    group = MemoryGroup.of_this_process(tree.proc, tree.sysfs)
    assert group is not None
    assert (group.path, group.limit_mb, group.oom_kills()) == ("/jobs/a", 512.0, 3)


def test_version_2_groups(tree) -> None:  # type: ignore[no-untyped-def]
    tree.write("proc/self/cgroup", "0::/user.slice/session\n")
    tree.write("sys/fs/cgroup/user.slice/session/memory.max", "max\n")
    tree.write("sys/fs/cgroup/user.slice/session/memory.events", "low 0\noom 2\noom_kill 2\noom_group_kill 0\n")
    vitals = Vitals(proc=tree.proc, sysfs=tree.sysfs).read()
    assert (vitals["memory_group"], vitals["oom_kills"]) == ("/user.slice/session", 2)
    assert "memory_limit_mb" not in vitals


def test_a_group_seen_from_inside_a_container(tree) -> None:  # type: ignore[no-untyped-def]
    tree.write("proc/self/cgroup", "4:memory:/docker/0123\n")
    tree.write("sys/fs/cgroup/memory/memory.limit_in_bytes", f"{1024 << 20}\n")
    group = MemoryGroup.of_this_process(tree.proc, tree.sysfs)
    assert group is not None and group.limit_mb == 1024.0


@pytest.mark.parametrize("version", [1, 2])
def test_a_machine_has_the_memory_that_its_tightest_group_leaves(tree, version: int) -> None:  # type: ignore[no-untyped-def]
    tree.write("proc/meminfo", f"MemTotal: {8192 << 10} kB\nMemAvailable: {6000 << 10} kB\n")
    if version == 1:
        tree.write("proc/self/cgroup", "4:memory:/jobs/a\n0::/\n")
        limit, used, total, root = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_", "sys/fs/cgroup/memory"
        tree.write(f"{root}/memory.limit_in_bytes", "9223372036854771712\n")
    else:
        tree.write("proc/self/cgroup", "0::/jobs/a\n")
        limit, used, total, root = "memory.max", "memory.current", "", "sys/fs/cgroup"
    stat = f"cache 1\n{total}inactive_file {100 << 20}\n{total}active_file {900 << 20}\n"
    tree.write(f"{root}/jobs/{limit}", f"{2048 << 20}\n")
    tree.write(f"{root}/jobs/{used}", f"{1700 << 20}\n")
    tree.write(f"{root}/jobs/memory.stat", stat)
    tree.write(f"{root}/jobs/a/{limit}", f"{1200 << 20}\n")
    tree.write(f"{root}/jobs/a/{used}", f"{500 << 20}\n")
    tree.write(f"{root}/jobs/a/memory.stat", stat)
    found = machine_memory(tree.proc, tree.sysfs)
    assert (found.total_mb, found.available_mb) == (1200.0, 448.0)
    (tree.sysfs / f"{root.removeprefix('sys/')}/jobs/{used}").unlink()
    assert machine_memory(tree.proc, tree.sysfs).available_mb == 1200.0


def test_the_kernels_log_names_victims_and_when(tree) -> None:  # type: ignore[no-untyped-def]
    awake_s = time.monotonic()
    log = tree.write(
        "kmsg",
        f"6,1,{int((awake_s - 50) * 1e6)},-;Memory cgroup out of memory: Killed process 4711 (python) total-vm:1kB\n"
        "6,2,99,-;Out of memory: Killed process 12 (python3) total-vm:1kB\n"
        "6,3,99,-;python[13]: segfault at 0 ip 0\n",
    )
    victims = read_scene(proc=tree.proc, sysfs=tree.sysfs, kernel_log=log).victims
    assert set(victims) == {4711, 12}
    assert victims[4711] == pytest.approx(boottime_s() - 50, abs=2.0)
