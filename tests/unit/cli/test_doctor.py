"""Doctor: its judgement as a table, its report at 40 columns, its JSON and its exit code."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ondevice.cli import doctor, doctor_rules
from ondevice.cli.doctor_finding import Finding
from ondevice.cli.doctor_remedies import TORCH_WHEEL, TORCH_WHEEL_ARMV80, install_command
from ondevice.cli.doctor_rules import judge
from ondevice.device.facts import Cluster, DeviceFacts, Termux
from ondevice.device.packages import OPTIONAL, REQUIRED, TRIALS, Trial
from ondevice.device.readings import Reading
from ondevice.device.storage import StorageFacts
from ondevice.device.upkeep import Upkeep, read_upkeep

ARM = {"atomics": True, "asimddp": True, "i8mm": False, "bf16": False}
OLD_ARM = dict.fromkeys(ARM, False)
VERSIONS: dict[str, str | None] = dict.fromkeys((*REQUIRED, *OPTIONAL), "9.9")

LAPTOP = DeviceFacts(
    platform="linux",
    arch="x86_64",
    python="3.11.7",
    python_bits=64,
    termux=None,
    proot=False,
    cpu_model="Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz",
    logical_cores=8,
    usable_cores=8,
    clusters=None,
    cpu_features={"avx2": True, "avx512f": False},
    ram_total_mb=7900.0,
    ram_available_mb=5000.0,
    swap_total_mb=0.0,
    swap_free_mb=0.0,
    boottime_clock=True,
    boot_id=None,
    disk_folder="/home/me",
    disk_free_mb=20000.0,
    packages=VERSIONS | {"torch": "2.13.0+cpu"},
    unknown={},
)
PHONE = dataclasses.replace(
    LAPTOP,
    platform="android",
    arch="aarch64",
    termux=Termux("0.118.3", "fdroid"),
    cpu_features=ARM,
    clusters=(Cluster(4473, (6, 7)), Cluster(3532, (0, 1, 2, 3, 4, 5))),
    packages=VERSIONS | {"torch": "2.11.0"},
)
PROOT = dataclasses.replace(PHONE, platform="linux", proot=True)
GOOD_STORAGE = StorageFacts("/home/me/ondevice", "/home/me", "ext4", 20000.0, True, True, True, True, True, True, {})
SDCARD = dataclasses.replace(GOOD_STORAGE, probed="/sdcard", filesystem="fuse", flock=False, symlinks=False)
WARM = Reading(t=0.0, cpu_c=45.0, battery_percent=80.0, plugged=True)


def findings(
    facts: DeviceFacts = LAPTOP,
    *,
    storage: StorageFacts = GOOD_STORAGE,
    reading: Reading = WARM,
    trials: Mapping[str, Trial] | None = None,
) -> tuple[Finding, ...]:
    return judge(facts, storage, reading, trials or {})


def with_torch(facts: DeviceFacts, version: str | None, **changes: Any) -> DeviceFacts:
    return dataclasses.replace(facts, packages=facts.packages | {"torch": version}, **changes)


def about(found: tuple[Finding, ...], words: str) -> Finding:
    matches = [finding for finding in found if words in finding.text]
    assert len(matches) == 1, [finding.text for finding in found]
    return matches[0]


@pytest.mark.parametrize("facts", [LAPTOP, PHONE])
def test_a_good_machine_has_no_complaint(facts: DeviceFacts) -> None:
    assert {finding.level for finding in findings(facts)} == {"ok"}


@pytest.mark.parametrize(
    ("facts", "trial", "level", "words"),
    [
        (with_torch(LAPTOP, None), None, "problem", "not installed"),
        (with_torch(LAPTOP, "2.8.0"), None, "problem", "too old; 2.9 or later"),
        (with_torch(LAPTOP, "2.9.1"), None, "ok", "torch 2.9.1"),
        (with_torch(LAPTOP, "?"), None, "ok", "torch ?"),
        (with_torch(PHONE, "2.10.0"), None, "problem", "leaks"),
        (with_torch(PHONE, "2.9.1"), None, "problem", "leaks"),
        (with_torch(PHONE, "2.11.0"), Trial(True), "ok", "imports and computes"),
        (with_torch(PHONE, "2.11.0", cpu_features=OLD_ARM), None, "ok", "torch 2.11.0"),
        (with_torch(PROOT, "2.10.0", cpu_features=OLD_ARM), None, "note", "SIGILL"),
        (with_torch(PROOT, "2.9.1", cpu_features=OLD_ARM), None, "ok", "torch 2.9.1"),
        (with_torch(PROOT, "2.10.0"), None, "ok", "torch 2.10.0"),
        (with_torch(PROOT, "2.10.0"), Trial(False, "SIGILL", "killed by SIGILL"), "problem", "newer processor"),
        (LAPTOP, Trial(False, None, "ImportError: libomp"), "problem", "ImportError: libomp"),
    ],
)
def test_torch_rules(facts: DeviceFacts, trial: Trial | None, level: str, words: str) -> None:
    found = about(findings(facts, trials={"torch": trial} if trial else {}), "torch ")
    assert found.level == level
    assert words in found.text
    assert (found.command is not None) == (level != "ok")


@pytest.mark.parametrize(
    ("package", "facts", "command"),
    [
        ("torch", PHONE, "pkg upgrade && pkg install python-torch"),
        ("tokenizers", PHONE, "pkg upgrade && pkg install tur-repo && pkg install python-tokenizers"),
        ("sentencepiece", PHONE, "pkg upgrade && pkg install clang cmake && LDFLAGS=-llog PIP sentencepiece"),
        ("textual", PHONE, "PIP textual"),
        ("textual", LAPTOP, "PIP textual"),
        ("torch", LAPTOP, f"PIP {TORCH_WHEEL} --extra-index-url https://download.pytorch.org/whl/cpu"),
        ("torch", dataclasses.replace(LAPTOP, platform="macos"), f"PIP {TORCH_WHEEL}"),
        (
            "torch",
            dataclasses.replace(PROOT, cpu_features=OLD_ARM),
            f"PIP {TORCH_WHEEL_ARMV80} --extra-index-url https://download.pytorch.org/whl/cpu",
        ),
    ],
)
def test_the_command_fits_the_platform(
    package: str, facts: DeviceFacts, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ondevice.cli.doctor_remedies._pip", lambda: "PIP")
    assert install_command(package, facts) == command


def test_pip_of_the_environment_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "my project" / ".venv"))
    assert install_command("rich", LAPTOP) == f"'{tmp_path}/my project/.venv/bin/pip' install rich"
    (tmp_path / "my project").mkdir()
    monkeypatch.chdir(tmp_path / "my project")
    assert install_command("rich", LAPTOP) == ".venv/bin/pip install rich"
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path / "my project"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "my project" / "env"))
    monkeypatch.chdir("/usr")
    assert install_command("rich", LAPTOP) == "~/env/bin/pip install rich"
    monkeypatch.setattr(sys, "prefix", "/usr")
    assert install_command("rich", LAPTOP).endswith(" -m pip install rich")


def test_every_package_has_a_line_and_missing_ones_a_command() -> None:
    nothing: dict[str, str | None] = dict.fromkeys(VERSIONS)
    found = findings(dataclasses.replace(PHONE, packages=nothing))
    missing = [finding for finding in found if "is not installed" in finding.text]
    assert len(missing) == len(VERSIONS) and all(finding.command for finding in missing)
    assert {finding.text.split()[0] for finding in missing if finding.level == "problem"} == set(REQUIRED)


def test_an_optional_package_that_crashes_is_a_note() -> None:
    found = findings(trials={"onnxruntime": Trial(False, "SIGSEGV", "killed by SIGSEGV")})
    assert about(found, "onnxruntime").level == "note"
    assert about(findings(trials={"numpy": Trial(False, None, "ImportError")}), "numpy").level == "problem"


@pytest.mark.parametrize("package", ["torch", "numpy", "onnxruntime"])
def test_a_trial_that_proves_nothing_is_a_note(package: str) -> None:
    found = about(findings(trials={package: Trial(None, None, "it did not finish in 60 s")}), f"{package} ")
    assert (found.level, found.command) == ("note", None) and "unknown: it did not" in found.text


def test_device_notes() -> None:
    play = dataclasses.replace(PHONE, termux=Termux("googleplay.2025.01.18", "googleplay"))
    assert "F-Droid" in (about(findings(play), "Play Store").remedy or "")
    assert about(findings(PROOT), "proot").level == "note"
    assert about(findings(dataclasses.replace(PHONE, termux=None)), "without Termux").level == "note"
    assert about(findings(dataclasses.replace(PHONE, python_bits=32)), "32-bit").level == "problem"
    assert (
        "number of this boot"
        in about(findings(dataclasses.replace(PHONE, unknown={"boot_id": "denied"})), "Not readable").text
    )
    assert "2 x 4473 MHz" in about(findings(PHONE), "Core groups").text
    few = dataclasses.replace(PHONE, usable_cores=4, cpu_model=None)
    assert about(findings(few), "8 cores (4 usable now)").level == "ok"


def test_windows_is_pointed_to_wsl() -> None:
    found = findings(dataclasses.replace(LAPTOP, platform="windows"))
    assert [(finding.level, "WSL" in (finding.remedy or "")) for finding in found] == [("problem", True)]


@pytest.mark.parametrize(
    ("total", "available", "level"),
    [(7900.0, 5000.0, "ok"), (7900.0, 300.0, "note"), (512.0, 400.0, "problem"), (None, None, "note")],
)
def test_memory(total: float | None, available: float | None, level: str) -> None:
    found = findings(dataclasses.replace(LAPTOP, ram_total_mb=total, ram_available_mb=available))
    assert [finding.level for finding in found if finding.topic == "memory"] == [level]


GOOD_UPKEEP = Upkeep(wake_lock=True, notification=True, scheduled=True, boot=True)


@pytest.mark.parametrize(
    ("changes", "words", "level", "command"),
    [
        ({}, "every 15 minutes or later and after a boot", "ok", None),
        ({"boot": False}, "every 15 minutes or later", "ok", None),
        ({"scheduled": False}, "Nothing starts a killed run again", "note", "termux/install.sh --scripts-only"),
        ({"wake_lock": False}, "may sleep through a run", "note", "pkg upgrade"),
        ({"notification": False}, "termux-notification is not installed", "note", "pkg install termux-api"),
        ({}, "cannot be read", "note", None),
    ],
)
def test_upkeep_of_a_phone(changes: dict[str, bool], words: str, level: str, command: str | None) -> None:
    found = judge(PHONE, GOOD_STORAGE, WARM, {}, upkeep=dataclasses.replace(GOOD_UPKEEP, **changes))
    finding = about(found, words)
    assert (finding.level, finding.topic) == (level, "phone")
    assert (command in (finding.command or "")) if command else finding.command is None
    assert not [finding for finding in findings(LAPTOP) if finding.topic == "phone"]


def test_upkeep_inside_proot() -> None:
    nothing = Upkeep(wake_lock=False, notification=False, scheduled=False, boot=False)
    found = [finding for finding in judge(PROOT, GOOD_STORAGE, WARM, {}, upkeep=nothing) if finding.topic == "phone"]
    assert len(found) == 1 and "Inside proot" in found[0].text


def test_upkeep_is_what_is_there(tmp_path: Path) -> None:
    assert read_upkeep({"HOME": str(tmp_path), "PATH": str(tmp_path)}) is None
    env = {"HOME": str(tmp_path), "PATH": str(tmp_path / "bin"), "TERMUX_VERSION": "0.118.3"}
    assert read_upkeep(env) == Upkeep(wake_lock=False, notification=False, scheduled=False, boot=False)
    for name in ("bin/termux-wake-lock", "bin/termux-notification", ".termux/ondevice/scheduled"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(0o755)
    (tmp_path / ".termux/boot").mkdir()
    (tmp_path / ".termux/boot/ondevice-resume").touch()
    assert read_upkeep(env) == GOOD_UPKEEP


@pytest.mark.parametrize(("free", "level"), [(20000.0, "ok"), (600.0, "note"), (50.0, "problem"), (None, "note")])
def test_disk(free: float | None, level: str) -> None:
    found = findings(storage=dataclasses.replace(GOOD_STORAGE, free_mb=free))
    assert [finding.level for finding in found if finding.topic == "disk"] == [level]


def test_shared_storage_is_a_problem_with_advice() -> None:
    found = about(findings(storage=SDCARD), "lacks")
    assert (found.level, found.text) == ("problem", "/sdcard (fuse) lacks file locks.")
    assert "$HOME" in (found.remedy or "")
    assert about(findings(storage=dataclasses.replace(GOOD_STORAGE, symlinks=False)), "symbolic").level == "note"


def test_unreadable_sensors_are_notes() -> None:
    found = findings(reading=Reading(t=0.0))
    assert [finding.level for finding in found if finding.topic == "sensors"] == ["note"] * 3
    assert "while on battery a run works at most 50 % of the time" in about(found, "No heat can be read").text
    assert about(findings(reading=dataclasses.replace(WARM, plugged=None)), "power unknown").level == "ok"


def test_report_fits_forty_columns_but_commands_stay_whole() -> None:
    sick = dataclasses.replace(PHONE, packages=dict.fromkeys(VERSIONS), unknown={"boot_id": "denied"})
    nothing = Upkeep(wake_lock=False, notification=False, scheduled=False, boot=False)
    found = judge(sick, SDCARD, Reading(t=0.0), {}, upkeep=nothing)
    commands = {finding.command for finding in found}
    for line in doctor._report(found, width=40):
        assert len(line) <= 40 or line.strip() in commands, line


def run_doctor(*flags: str) -> int:
    parser = argparse.ArgumentParser(prog="ondevice doctor")
    doctor.add_arguments(parser)
    return doctor.run(parser.parse_args(flags))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "40")
    return tmp_path / "home"


def pretend(monkeypatch: pytest.MonkeyPatch, facts: DeviceFacts, trial: Trial | None = None) -> None:
    monkeypatch.setattr(doctor, "read_facts", lambda _: facts)
    monkeypatch.setattr(doctor, "probe_storage", lambda _: GOOD_STORAGE)
    monkeypatch.setattr(doctor, "try_statement", lambda _: trial or Trial(True))


def test_a_real_run_here_says_yes_or_no_and_makes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_doctor("--quick", "--json")
    report = json.loads(capsys.readouterr().out)
    assert (code == 0) == report["possible"]
    assert set(report) == {"v", "possible", "facts", "storage", "reading", "upkeep", "findings"}
    assert report["storage"]["folder"] == str(home)
    assert not home.exists()


@pytest.mark.usefixtures("home")
def test_text_and_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, LAPTOP)
    assert run_doctor() == 0
    text = capsys.readouterr().out
    assert text.endswith("\nThis machine can train.\n") and "imports and" in text
    pretend(monkeypatch, with_torch(PHONE, "2.10.0"))
    assert run_doctor() == 6
    text = capsys.readouterr().out
    assert "pkg upgrade && pkg install python-torch\n" in text
    assert text.endswith("\nTraining is not possible yet: 1 problem\nabove.\n")


@pytest.mark.usefixtures("home")
def test_quick_tries_no_import(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, LAPTOP, Trial(False, "SIGILL", "killed by SIGILL"))
    assert run_doctor("--quick") == 0
    assert run_doctor() == 6
    assert "SIGILL" in capsys.readouterr().out


def test_trials_are_for_installed_packages_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, LAPTOP)
    assert set(doctor._try_imports(LAPTOP)) == set(TRIALS)
    assert "torch" not in doctor._try_imports(with_torch(LAPTOP, None))


def test_help_has_examples_and_nothing_imports_torch() -> None:
    code = (
        "import argparse, sys\n"
        "from ondevice.cli import doctor\n"
        "parser = argparse.ArgumentParser(prog='ondevice doctor')\n"
        "doctor.add_arguments(parser)\n"
        "print(parser.format_help())\n"
        "doctor.run(parser.parse_args(['--quick', '--json']))\n"
        "sys.exit(', '.join({'torch', 'numpy'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "examples:\n  ondevice doctor" in done.stdout


def test_every_finding_is_worded_for_a_person() -> None:
    for finding in findings(dataclasses.replace(PROOT, packages=dict.fromkeys(VERSIONS)), storage=SDCARD):
        assert finding.level in ("ok", "note", "problem") and finding.topic and finding.text
        if finding.level == "problem":
            assert finding.remedy
    assert set(doctor_rules._USES) == set(OPTIONAL)
