"""The scripts for Termux, run with made-up ``termux-*`` commands under a made-up prefix."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ["termux/install", "termux/watchdog", "termux/boot/ondevice-resume"]
JOB = (
    "termux-job-scheduler --script {home}/.termux/ondevice/watchdog --job-id 7331 --period-ms 900000 --persisted true "
    "--network none --battery-not-low true"
)


@dataclass
class Phone:
    """A home and a prefix with the commands an app finds there; each writes down how it was called."""

    home: Path
    prefix: Path
    scripts: Path
    env: dict[str, str]

    def program(self, name: str, text: str = "") -> None:
        path = self.prefix / "bin" / name
        path.write_text(f'#!/bin/sh\necho "{name}${{*:+ $*}}" >>"$CALLS"\n{text}\n')
        path.chmod(0o755)

    def run(self, script: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(script), *arguments]
        return subprocess.run(command, env=self.env | env, capture_output=True, text=True, timeout=60, cwd="/")

    def install(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.scripts / "install", *arguments, **env)

    def watchdog(self) -> subprocess.CompletedProcess[str]:
        return self.run(self.home / ".termux/ondevice/watchdog")

    def calls(self) -> list[str]:
        path = Path(self.env["CALLS"])
        found = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return found

    def says(self, *lines: str) -> None:
        """What a pass of ondevice finds from now on."""
        printed = "\n".join(f"echo '{line}'" for line in lines)
        self.program("ondevice", printed)


@pytest.fixture
def phone(tmp_path: Path) -> Phone:
    home, prefix = tmp_path / "it's home", tmp_path / "data/com.termux/files/usr"
    (prefix / "bin").mkdir(parents=True)
    home.mkdir()
    shutil.copytree(ROOT / "termux", tmp_path / "clone/termux")
    env = {
        "HOME": str(home),
        "PREFIX": str(prefix),
        "PATH": f"{prefix}/bin:/usr/bin:/bin",
        "CALLS": str(tmp_path / "calls"),
    }
    made = Phone(home, prefix, tmp_path / "clone/termux", env)
    for name in ("termux-wake-lock", "termux-wake-unlock", "termux-job-scheduler"):
        made.program(name)
    made.says()
    return made


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck() -> None:
    done = subprocess.run(["shellcheck", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_start_in_termux(script: str) -> None:
    path = ROOT / script
    assert stat.S_IMODE(path.stat().st_mode) & 0o111 == 0o111
    assert path.read_text().startswith("#!/data/data/com.termux/files/usr/bin/sh\n")


@pytest.mark.parametrize("prefix", ["", "/usr"])
def test_install_refuses_elsewhere_in_one_sentence(phone: Phone, prefix: str) -> None:
    done = phone.install(PREFIX=prefix)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == ("install: this is for Termux on Android; elsewhere use `ondevice watch RUN --restart`\n")
    assert not (phone.home / ".termux").exists() and phone.calls() == []


def test_install_puts_all_in_place_and_may_be_repeated(phone: Phone) -> None:
    first = phone.install()
    assert first.returncode == 0, first.stderr
    boot, watchdog = phone.home / ".termux/boot/ondevice-resume", phone.home / ".termux/ondevice/watchdog"
    assert boot.read_text() == (ROOT / "termux/boot/ondevice-resume").read_text()
    assert watchdog.read_text() == (ROOT / "termux/watchdog").read_text()
    assert os.access(boot, os.X_OK) and os.access(watchdog, os.X_OK)
    assert phone.calls() == [JOB.format(home=phone.home)]
    assert "about every 15 minutes (job 7331)" in first.stdout and "--remove" in first.stdout
    again = phone.install()
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert sorted(path.name for path in watchdog.parent.iterdir()) == ["settings", "watchdog"]
    assert [path.name for path in boot.parent.iterdir()] == ["ondevice-resume"]


def test_what_is_installed_can_be_removed(phone: Phone) -> None:
    phone.install()
    (phone.home / ".termux/boot/other").touch()
    phone.calls()
    done = phone.install("--remove")
    assert done.returncode == 0, done.stderr
    assert phone.calls() == ["termux-job-scheduler --cancel --job-id 7331"]
    assert sorted(str(p.relative_to(phone.home)) for p in phone.home.rglob("*")) == [
        ".termux",
        ".termux/boot",
        ".termux/boot/other",
    ]
    assert phone.install("--remove").returncode == 0


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda phone: (phone.prefix / "bin/termux-job-scheduler").unlink(), "`pkg install termux-api`"),
        (lambda phone: phone.program("termux-job-scheduler", "exit 1"), "the Termux:API app does not answer"),
    ],
    ids=["no package", "no app"],
)
def test_without_termux_api_the_rest_is_installed_and_that_is_said(phone: Phone, spoil, says: str) -> None:  # type: ignore[no-untyped-def]
    spoil(phone)
    done = phone.install()
    assert done.returncode == 0
    assert f"NOT scheduled: {says}" in done.stdout
    assert (phone.home / ".termux/boot/ondevice-resume").exists()


def test_install_without_ondevice_and_with_odd_words(phone: Phone) -> None:
    assert "unknown argument '--undo'" in phone.install("--undo").stderr
    (phone.prefix / "bin/ondevice").unlink()
    done = phone.install()
    assert done.returncode == 1 and "`sh tools/setup`" in done.stderr


def test_the_boot_script_takes_a_wake_lock_and_then_makes_a_pass(phone: Phone) -> None:
    phone.says('{"run": "notes", "event": "restart", "state": "killed"}')
    phone.install(ONDEVICE_HOME="/sd'card/of mine")
    phone.calls()
    done = phone.run(phone.home / ".termux/boot/ondevice-resume")
    assert done.returncode == 0, done.stderr
    assert phone.calls() == [
        "termux-wake-lock",
        "ondevice watch --all --once --restart --json",
        "termux-wake-lock",
    ]
    assert "export ONDEVICE_HOME='/sd'\\''card/of mine'" in (phone.home / ".termux/ondevice/settings").read_text()
    assert '"notes"' in (phone.home / ".termux/ondevice/last-pass.jsonl").read_text()


def test_the_wake_lock_is_given_back_when_no_trainer_is_left_and_only_if_it_was_ours(phone: Phone) -> None:
    phone.install()
    phone.says('{"run": "notes", "event": "end", "state": "finished"}')
    phone.calls()
    one_pass = "ondevice watch --all --once --restart --json"
    phone.watchdog()
    assert phone.calls() == [one_pass]  # somebody else's lock, if there is one
    phone.says('{"run": "notes", "event": "restart", "state": "killed"}')
    phone.watchdog()
    assert phone.calls() == [one_pass, "termux-wake-lock"]
    phone.says('{"run": "notes", "event": "change", "state": "waiting"}')
    phone.watchdog()
    assert phone.calls() == [one_pass]
    phone.says('{"run": "notes", "event": "end", "state": "finished"}')
    phone.watchdog()
    assert phone.calls() == [one_pass, "termux-wake-unlock"]
    phone.watchdog()
    assert phone.calls() == [one_pass]


def test_a_pass_that_fails_says_so_and_keeps_no_wake_lock(phone: Phone) -> None:
    phone.install()
    phone.program("ondevice", "exit 3")
    phone.calls()
    done = phone.run(phone.home / ".termux/boot/ondevice-resume")
    assert done.returncode == 1 and "`sh termux/install` again" in done.stderr
    assert phone.calls()[-1] == "termux-wake-unlock"
    assert [p.name for p in (phone.home / ".termux/ondevice").glob("last-pass*")] == []


def test_a_bare_environment_suffices(phone: Phone, tmp_path: Path) -> None:
    """Android starts scripts with next to nothing around them."""
    phone.install()
    phone.calls()
    env = {"HOME": str(phone.home), "PREFIX": str(phone.prefix), "CALLS": phone.env["CALLS"]}
    done = subprocess.run(
        ["/bin/sh", str(phone.home / ".termux/ondevice/watchdog")], env=env, capture_output=True, text=True, timeout=60
    )
    assert "ondevice watch --all --once --restart --json" in phone.calls(), done.stderr


def test_a_pass_of_the_real_command(phone: Phone) -> None:
    real = phone.prefix / "bin/ondevice"
    real.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m ondevice "$@"\n')
    phone.install()
    done = phone.watchdog()
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
