"""Facts of made-up machines, and of this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.device import cpu, facts, host, packages
from ondevice.device.facts import Cluster, Termux, read_facts

TERMUX_ENV = {"TERMUX_VERSION": "0.118.3", "TERMUX_APK_RELEASE": "F_DROID", "PREFIX": "/data/data/com.termux/files/usr"}


def read(tree: Any, env: dict[str, str] | None = None) -> facts.DeviceFacts:
    return read_facts(tree.root, proc=tree.proc, sysfs=tree.sysfs, env=env or {})


@pytest.mark.usefixtures("android")
def test_galaxy_in_termux(galaxy: Any) -> None:
    found = read(galaxy, TERMUX_ENV)
    assert (found.platform, found.arch, found.proot, found.native_termux) == ("android", "aarch64", False, True)
    assert found.termux == Termux("0.118.3", "fdroid")
    assert found.cpu_model == "6x Cortex-A510 + 2x Cortex-X3"
    assert found.clusters == (Cluster(4473, (6, 7)), Cluster(3532, (0, 1, 2, 3, 4, 5)))
    assert found.cpu_features == {"atomics": True, "asimddp": True, "i8mm": True, "bf16": True}
    assert (found.logical_cores, found.ram_total_mb, found.ram_available_mb) == (8, 11264.0, 4096.0)
    assert (found.swap_total_mb, found.swap_free_mb) == (4096.0, 2048.0)
    assert found.boot_id == "8a7d3c1e-0000-4000-8000-000000000001"
    assert found.unknown == {}
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.usefixtures("android")
def test_everything_denied_is_none_with_reasons(galaxy: Any, denied: Callable[[Path], None]) -> None:
    denied(galaxy.root)
    found = read(galaxy, TERMUX_ENV)
    nothing = (
        found.cpu_model,
        found.cpu_features,
        found.clusters,
        found.ram_total_mb,
        found.swap_free_mb,
        found.boot_id,
    )
    assert nothing == (None,) * 6
    assert found.logical_cores == os.cpu_count()
    for name in ("cpu_model", "cpu_features", "clusters", "ram_available_mb", "boot_id"):
        assert found.unknown[name].startswith("permission denied"), name


@pytest.mark.usefixtures("android")
def test_aosp_with_some_files_denied(galaxy: Any, denied: Callable[[Path], None]) -> None:
    denied(galaxy.sysfs)
    denied(galaxy.proc / "sys")
    found = read(galaxy, TERMUX_ENV)
    assert found.ram_total_mb == 11264.0
    assert (found.boot_id, found.clusters) == (None, None)
    assert set(found.unknown) == {"boot_id", "clusters"}


def test_offline_cores_are_left_out_of_clusters(galaxy: Any) -> None:
    (galaxy.sysfs / "devices/system/cpu/cpu7/cpufreq/cpuinfo_max_freq").unlink()
    found = cpu.clusters(galaxy.sysfs)
    assert found[0] == Cluster(4473, (6,))


def test_x86_laptop(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from_conftest = "".join(
        f"processor\t: {n}\nmodel name\t: Intel i5\nflags\t\t: fpu avx2 amx_tile amx_bf16\n\n" for n in range(8)
    )
    tree.write("proc/cpuinfo", from_conftest)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "platform", "linux")
    found = read(tree)
    assert (found.platform, found.termux, found.cpu_model, found.logical_cores) == ("linux", None, "Intel i5", 8)
    assert found.cpu_features == {"avx2": True, "avx512f": False, "avx512_bf16": False, "amx": True}


def test_proot_by_version_and_by_environment(tree: Any) -> None:
    assert not read(tree).proot
    assert read(tree, {"PROOT_TMP_DIR": "/x"}).proot
    tree.write("proc/version", "Linux version 6.17.0-PRoot-Distro (proot@termux) #1 SMP\n")
    assert read(tree).proot


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        (TERMUX_ENV, Termux("0.118.3", "fdroid")),
        ({"TERMUX_VERSION": "0.119", "TERMUX_APK_RELEASE": "GITHUB"}, Termux("0.119", "github")),
        ({"TERMUX_VERSION": "googleplay.2025.01.18"}, Termux("googleplay.2025.01.18", "googleplay")),
        ({"TERMUX_VERSION": "0.118.3"}, Termux("0.118.3", None)),
        ({"PREFIX": "/data/data/com.termux/files/usr"}, Termux(None, None)),  # the bare environment of a widget
        ({"PATH": "/usr/bin:/data/data/com.termux/files/usr/bin"}, Termux(None, None)),  # proot-distro's
    ],
)
def test_termux_flavours(env: dict[str, str], expected: Termux | None) -> None:
    assert host.find_termux(env) == expected


@pytest.mark.parametrize(
    ("platform", "env", "expected"),
    [
        ("linux", {}, False),
        ("linux", {"ANDROID_HOME": "/opt/sdk", "ANDROID_ROOT": "/opt/sdk", "PATH": "/usr/bin"}, False),
        ("darwin", {}, False),
        ("android", {}, True),
        ("linux", TERMUX_ENV, True),
        ("linux", {"ANDROID_ROOT": "/system", "ANDROID_DATA": "/data"}, True),  # inside proot
    ],
)
def test_one_place_says_whether_it_is_a_phone(
    platform: str, env: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert host.on_android(env) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("android", "android"), ("linux", "linux"), ("darwin", "macos"), ("win32", "windows"), ("cygwin", "windows")],
)
def test_platform_names(name: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", name)
    assert host.platform_name() == expected


def test_older_termux_python_calls_itself_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "getandroidapilevel", lambda: 24, raising=False)
    assert host.platform_name() == "android"


def test_macos_asks_sysctl(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        ("-n", "machdep.cpu.brand_string"): "Apple M2",
        (
            "hw.optional",
        ): "hw.optional.arm.FEAT_LSE: 1\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_BF16: 1\n",
    }
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr(facts, "_sysctl", lambda *arguments: answers[arguments])
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    found = read(tree)
    assert (found.platform, found.cpu_model) == ("macos", "Apple M2")
    assert found.cpu_features == {"atomics": True, "asimddp": True, "i8mm": False, "bf16": True}
    assert found.usable_cores == os.cpu_count()


def test_a_missing_boottime_clock_is_a_fact(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert read(tree).boottime_clock is False


def test_cpu_names() -> None:
    parts = cpu.parse_cpuinfo("processor: 0\nCPU implementer: 0x51\nCPU part: 0x001\n")
    assert cpu.cpu_model(parts) == "1x part 0x001 of implementer 0x51"
    assert cpu.cpu_model(cpu.parse_cpuinfo("processor: 0\n\nHardware: Qualcomm SM8750\n")) == "Qualcomm SM8750"
    assert cpu.core_count(cpu.parse_cpuinfo("processor: 0\n\nHardware: Qualcomm SM8750\n")) == 1
    with pytest.raises(LookupError):
        cpu.cpu_model([])
    with pytest.raises(LookupError):
        cpu.cpu_features([], arch="aarch64")


def test_features_need_every_core() -> None:
    blocks = cpu.parse_cpuinfo("processor: 0\nFeatures: atomics asimddp\n\nprocessor: 1\nFeatures: atomics\n")
    assert cpu.cpu_features(blocks, arch="aarch64") == {
        "atomics": True,
        "asimddp": False,
        "i8mm": False,
        "bf16": False,
    }


def test_old_kernel_without_memavailable(tree: Any) -> None:
    tree.write("proc/meminfo", "MemTotal: 2048000 kB\nMemFree: 102400 kB\nCached: 204800 kB\n")
    assert read(tree).ram_available_mb == 300.0


def test_garbage_in_meminfo_is_unknown(tree: Any) -> None:
    tree.write("proc/meminfo", "not what it was\n")
    found = read(tree)
    assert found.ram_total_mb is None
    assert found.unknown["ram_total_mb"] == "meminfo has no MemTotal"


def test_disk_is_measured_above_a_folder_not_made_yet(tmp_path: Path) -> None:
    found = read_facts(tmp_path / "not" / "yet", env={})
    assert found.disk_folder == str(tmp_path)
    assert found.disk_free_mb is not None and found.disk_free_mb > 0
    assert not (tmp_path / "not").exists()


def test_package_versions_and_missing_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packages.version_of("no-such-package-anywhere") is None
    assert packages.version_of("json") == "?"  # importable, no record
    assert packages.version_of("pytest") == pytest.__version__

    def torn(_: str) -> str:
        raise KeyError("Version")

    monkeypatch.setattr(packages, "version_of", torn)
    found = read_facts(env={})
    assert found.packages["torch"] is None
    assert "packages.torch" in found.unknown


@pytest.mark.parametrize(
    ("text", "expected"), [("2.13.0+cpu", (2, 13)), ("2.9.1", (2, 9)), ("2.11.0a0+git", (2, 11)), ("?", None)]
)
def test_major_minor(text: str, expected: tuple[int, int] | None) -> None:
    assert packages.major_minor(text) == expected


def test_trial_imports_tell_how_they_end() -> None:
    assert packages.try_statement("import json").ok
    missing = packages.try_statement("import no_such_package_anywhere")
    assert not missing.ok and "no_such_package_anywhere" in missing.detail
    crash = packages.try_statement("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    assert (crash.ok, crash.signal, crash.detail) == (False, "SIGILL", "killed by SIGILL")
    slow = packages.try_statement("import time; time.sleep(30)", timeout_s=0.3)
    assert (slow.ok, slow.detail) == (None, "it did not finish in 0.3 s")
    assert packages.try_statement("import sys; sys.exit(3)").detail == "exit code 3"


def test_a_child_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    trial = packages.try_statement("pass")
    assert trial.ok is None and "could be started" in trial.detail


def test_the_package_imports_neither_torch_nor_what_it_looks_for() -> None:
    code = (
        "import sys\n"
        "from ondevice.device import facts, packages, readings, storage\n"
        "facts.read_facts()\n"
        "bad = {'torch', 'numpy', 'onnxruntime', 'tokenizers', 'textual', 'psutil'} & set(sys.modules)\n"
        "sys.exit(', '.join(bad) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
