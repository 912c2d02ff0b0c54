"""The scripts for Termux, run with made-up ``termux-*`` commands under a made-up prefix."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ["termux/install.sh", "termux/watchdog", "termux/shortcut", "termux/boot/ondevice-resume"]
JOB = (
    "termux-job-scheduler --script {home}/.termux/ondevice/watchdog --job-id 7331 --period-ms 900000 --persisted true "
    "--network none --battery-not-low true"
)
COMMANDS = ("termux-wake-lock", "termux-wake-unlock", "termux-job-scheduler")
INSTALLED = [
    ".shortcuts/ondevice-status",
    ".shortcuts/ondevice-stop",
    ".shortcuts/ondevice-train",
    ".termux/boot/ondevice-resume",
    ".termux/ondevice/scheduled",
    ".termux/ondevice/settings",
    ".termux/ondevice/watchdog",
]


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
        return self.run(self.scripts / "install.sh", *arguments, **env)

    def put_scripts(self, **env: str) -> None:
        """Installed, and what was called for it forgotten."""
        done = self.install("--scripts-only", **env)
        assert done.returncode == 0, done.stderr
        self.calls()

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*") if path.is_file())

    def age_mark(self) -> None:
        """The wake lock was taken ten minutes ago."""
        mark = self.home / ".termux/ondevice/holds-wake-lock"
        os.utime(mark, (time.time() - 600,) * 2)

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
    (tmp_path / "clone/tools").mkdir()
    (tmp_path / "clone/tools/setup").write_text('echo setup >>"$CALLS"\n[ ! -e "$HOME/broken" ]\n')
    env = {
        "HOME": str(home),
        "PREFIX": str(prefix),
        "PATH": f"{prefix}/bin:/usr/bin:/bin",
        "CALLS": str(tmp_path / "calls"),
    }
    made = Phone(home, prefix, tmp_path / "clone/termux", env)
    for name in COMMANDS:
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
    assert "for Termux on Android; elsewhere run `sh tools/setup`" in done.stderr and done.stderr.count("\n") == 1
    assert not (phone.home / ".termux").exists() and phone.calls() == []


def test_install_does_everything_in_order_and_may_be_repeated(phone: Phone) -> None:
    first = phone.install()
    assert first.returncode == 0, first.stderr
    assert phone.calls() == ["setup", JOB.format(home=phone.home), "ondevice doctor"]
    assert phone.files() == INSTALLED
    boot, watchdog = phone.home / ".termux/boot/ondevice-resume", phone.home / ".termux/ondevice/watchdog"
    assert boot.read_text() == (ROOT / "termux/boot/ondevice-resume").read_text()
    assert watchdog.read_text() == (ROOT / "termux/watchdog").read_text()
    assert all(os.access(phone.home / name, os.X_OK) for name in INSTALLED[:4])
    assert stat.S_IMODE((phone.home / ".shortcuts").stat().st_mode) == 0o700
    assert "every 15 minutes at best" in first.stdout and "--remove" in first.stdout
    again = phone.install()
    assert (again.returncode, again.stdout, phone.files()) == (0, first.stdout, INSTALLED)


def test_a_dry_run_says_what_and_why_and_does_nothing(phone: Phone) -> None:
    done = phone.install("--dry-run", "--with-sentencepiece")
    assert done.returncode == 0, done.stderr
    assert phone.calls() == [] and list(phone.home.iterdir()) == []
    would = [line.split("would run: ")[1] for line in done.stdout.splitlines() if "would run: " in line]
    assert would[0] == f"sh {phone.scripts.parent}/tools/setup"
    assert would[1:4] == [
        "pkg upgrade -y -o Dpkg::Options::=--force-confdef",
        "pkg install -y clang cmake",
        f"env LDFLAGS=-llog {phone.scripts.parent}/.venv/bin/python -m pip install sentencepiece",
    ]
    assert JOB.format(home=phone.home) in would
    assert would[-1].endswith("ondevice doctor")


def test_a_dry_run_before_anything_is_installed(phone: Phone) -> None:
    (phone.prefix / "bin/ondevice").unlink()
    assert phone.install("--dry-run").returncode == 0
    assert phone.install("--dry-run", "--remove").returncode == 0
    assert list(phone.home.iterdir()) == []


def test_a_broken_set_up_ends_it_and_a_repetition_goes_on(phone: Phone) -> None:
    (phone.home / "broken").touch()
    assert phone.install().returncode == 1
    assert phone.calls() == ["setup"] and phone.files() == ["broken"]
    (phone.home / "broken").unlink()
    assert phone.install().returncode == 0
    assert phone.calls()[-1] == "ondevice doctor" and phone.files() == INSTALLED


@pytest.mark.parametrize("version", ["googleplay.2025.01.18", "0.118.3"])
def test_the_play_store_build_is_warned_of(phone: Phone, version: str) -> None:
    done = phone.install(TERMUX_VERSION=version)
    assert done.returncode == 0
    assert ("from F-Droid or GitHub" in done.stdout) == version.startswith("googleplay")


def test_an_old_phone_and_shared_storage_are_refused(phone: Phone, tmp_path: Path) -> None:
    phone.program("dpkg", "echo arm")
    done = phone.install()
    assert done.returncode == 1 and "64-bit" in done.stderr and phone.files() == []
    phone.program("dpkg", "echo aarch64")
    moved = phone.home / "storage" / "clone"
    shutil.copytree(phone.scripts.parent, moved)
    done = phone.run(moved / "termux/install.sh")
    assert done.returncode == 1 and "shared storage" in done.stderr


def test_sentencepiece_is_built_only_when_asked_and_may_fail(phone: Phone) -> None:
    python = phone.scripts.parent / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "python $LDFLAGS $*" >>"$CALLS"\nexit 1\n')
    python.chmod(0o755)
    phone.program("pkg")
    done = phone.install("--with-sentencepiece")
    assert done.returncode == 0 and "NOT installed: sentencepiece" in done.stdout
    calls = phone.calls()
    assert calls[2:5] == [
        "pkg upgrade -y -o Dpkg::Options::=--force-confdef",
        "pkg install -y clang cmake",
        "python -llog -m pip install sentencepiece",
    ]
    python.write_text("#!/bin/sh\n")
    assert "sentencepiece is there" in phone.install("--with-sentencepiece").stdout
    assert not [call for call in phone.calls() if call.startswith("pkg")]


@pytest.fixture
def venv(phone: Phone) -> Path:
    """The commands as set-up installs them; no other is on PATH."""
    (phone.prefix / "bin/ondevice").unlink()
    programs = phone.scripts.parent / ".venv/bin"
    programs.mkdir(parents=True)
    for name in ("ondevice", "ondevice-tui"):
        (programs / name).write_text(f'#!/bin/sh\necho "venv {name} $*" >>"$CALLS"\n')
        (programs / name).chmod(0o755)
    return programs


def test_the_commands_can_be_typed_anywhere_until_they_are_removed(phone: Phone, venv: Path) -> None:
    for _ in range(2):
        assert phone.install().returncode == 0
        assert phone.calls()[-1] == "venv ondevice doctor"
        for name in ("ondevice", "ondevice-tui"):
            assert (phone.prefix / "bin" / name).readlink() == venv / name
    assert phone.install("--remove").returncode == 0
    assert not (phone.prefix / "bin/ondevice").is_symlink() and (venv / "ondevice").exists()


def test_a_command_of_someone_else_is_left_alone(phone: Phone, venv: Path) -> None:
    phone.program("ondevice-tui")
    before = (phone.prefix / "bin/ondevice-tui").read_text()
    done = phone.install()
    assert done.returncode == 0 and f"type {venv}/ondevice-tui" in done.stdout
    assert (phone.prefix / "bin/ondevice").is_symlink()
    assert phone.install("--remove").returncode == 0
    assert (phone.prefix / "bin/ondevice-tui").read_text() == before


def test_the_link_of_a_clone_that_moved_leads_nowhere_and_is_made_anew(phone: Phone, venv: Path) -> None:
    (phone.prefix / "bin/ondevice").symlink_to("/gone/.venv/bin/ondevice")
    assert phone.install().returncode == 0
    assert (phone.prefix / "bin/ondevice").readlink() == venv / "ondevice"


def test_what_is_installed_can_be_removed(phone: Phone) -> None:
    phone.put_scripts()
    (phone.home / ".termux/boot/other").touch()
    (phone.home / ".shortcuts/mine").touch()
    done = phone.install("--remove")
    assert done.returncode == 0, done.stderr
    assert phone.calls() == ["termux-job-scheduler --cancel --job-id 7331"]
    assert phone.files() == [".shortcuts/mine", ".termux/boot/other"]
    assert not (phone.home / ".termux/ondevice").exists()
    assert phone.install("--remove").returncode == 0


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda phone: (phone.prefix / "bin/termux-job-scheduler").unlink(), "pkg install termux-api`"),
        (lambda phone: phone.program("termux-job-scheduler", "exit 1"), "the Termux:API app does not answer"),
    ],
    ids=["no package", "no app"],
)
def test_without_termux_api_the_rest_is_installed_and_that_is_said(phone: Phone, spoil, says: str) -> None:  # type: ignore[no-untyped-def]
    phone.put_scripts()
    spoil(phone)
    done = phone.install("--scripts-only")
    assert done.returncode == 0
    assert "NOT scheduled: " in done.stdout and says in done.stdout
    assert phone.files() == [name for name in INSTALLED if not name.endswith("/scheduled")]


def test_install_without_ondevice_and_with_odd_words(phone: Phone) -> None:
    assert "unknown argument '--undo'" in phone.install("--undo").stderr
    help_text = phone.install("--help").stdout
    assert "--dry-run" in help_text and "set -eu" not in help_text
    (phone.prefix / "bin/ondevice").unlink()
    done = phone.install("--scripts-only")
    assert done.returncode == 1 and "without --scripts-only" in done.stderr


def test_the_boot_script_takes_a_wake_lock_and_then_makes_a_pass(phone: Phone) -> None:
    phone.says('{"run": "notes", "event": "restart", "state": "killed"}')
    phone.put_scripts(ONDEVICE_HOME="/sd'card/of mine")
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
    phone.put_scripts()
    phone.says('{"run": "notes", "event": "end", "state": "finished"}')
    one_pass = "ondevice watch --all --once --restart --json"
    phone.watchdog()
    assert phone.calls() == [one_pass]  # somebody else's lock, if there is one
    phone.says('{"run": "notes", "event": "restart", "state": "killed"}')
    phone.watchdog()
    assert phone.calls() == [one_pass, "termux-wake-lock"]
    phone.age_mark()
    phone.says('{"run": "notes", "event": "change", "state": "waiting"}')
    phone.watchdog()
    assert phone.calls() == [one_pass]
    phone.says('{"run": "notes", "event": "end", "state": "finished"}')
    phone.watchdog()
    assert phone.calls() == [one_pass, "termux-wake-unlock"]
    phone.watchdog()
    assert phone.calls() == [one_pass]


def test_a_run_that_left_to_wait_lets_the_phone_sleep(phone: Phone) -> None:
    phone.put_scripts()
    phone.says('{"run": "notes", "event": "restart", "state": "killed"}')
    phone.watchdog()
    phone.age_mark()
    phone.says('{"run": "notes", "event": "change", "state": "stopped", "text": "waits 1h: Waiting for its hours."}')
    phone.calls()
    phone.watchdog()
    assert phone.calls()[-1] == "termux-wake-unlock"


def test_a_lock_that_was_just_taken_is_left_to_the_trainer_that_loads(phone: Phone) -> None:
    phone.put_scripts()
    (phone.home / ".termux/ondevice/holds-wake-lock").touch()
    phone.watchdog()
    assert "termux-wake-unlock" not in phone.calls()


def test_a_pass_that_fails_says_so_and_keeps_no_wake_lock(phone: Phone) -> None:
    phone.put_scripts()
    phone.program("ondevice", "exit 3")
    done = phone.run(phone.home / ".termux/boot/ondevice-resume")
    assert done.returncode == 1 and "`sh termux/install.sh` again" in done.stderr
    phone.age_mark()
    phone.watchdog()
    assert phone.calls()[-1] == "termux-wake-unlock"
    assert [p.name for p in (phone.home / ".termux/ondevice").glob("last-pass*")] == []


def test_a_bare_environment_suffices(phone: Phone, tmp_path: Path) -> None:
    """Android starts scripts with next to nothing around them."""
    phone.put_scripts()
    env = {"HOME": str(phone.home), "PREFIX": str(phone.prefix), "CALLS": phone.env["CALLS"]}
    done = subprocess.run(
        ["/bin/sh", str(phone.home / ".termux/ondevice/watchdog")], env=env, capture_output=True, text=True, timeout=60
    )
    assert "ondevice watch --all --once --restart --json" in phone.calls(), done.stderr


def shortcut(phone: Phone, verb: str) -> subprocess.CompletedProcess[str]:
    env = {"HOME": str(phone.home), "PREFIX": str(phone.prefix), "CALLS": phone.env["CALLS"], "PATH": "/usr/bin:/bin"}
    command = ["/bin/sh", str(phone.home / f".shortcuts/ondevice-{verb}")]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, cwd="/")


def test_shortcuts_steer_the_run_that_was_active_last(phone: Phone) -> None:
    phone.put_scripts()
    done = shortcut(phone, "status")
    assert done.returncode == 1 and "There is no run yet" in done.stdout
    for age, name in enumerate(("new", "notes", "old")):
        run = phone.home / "ondevice/runs" / name
        run.mkdir(parents=True)
        file = run / ("run.json" if name == "new" else "status.json")
        file.touch()
        os.utime(file, (1e9 - age,) * 2)
    expected = [(verb, f"ondevice {verb} {phone.home}/ondevice/runs/new") for verb in ("train", "status", "stop")]
    for verb, call in expected:
        assert shortcut(phone, verb).returncode == 0
        assert phone.calls() == [call]
    os.utime(phone.home / "ondevice/runs/notes/status.json")
    shortcut(phone, "train")
    assert phone.calls() == [f"ondevice train {phone.home}/ondevice/runs/notes"]


def test_the_train_shortcut_of_a_run_that_trains_shows_it(phone: Phone) -> None:
    phone.put_scripts(ONDEVICE_HOME=str(phone.home / "else where"))
    run = phone.home / "else where/runs/notes"
    run.mkdir(parents=True)
    (run / "run.json").touch()
    phone.program("ondevice", '[ "$1" != train ] || exit 7')
    assert shortcut(phone, "train").returncode == 0
    assert phone.calls() == [f"ondevice train {run}", f"ondevice watch {run}"]
    phone.program("ondevice", "exit 4")
    assert shortcut(phone, "train").returncode == 4
    (phone.prefix / "bin/ondevice").unlink()
    done = shortcut(phone, "train")
    assert done.returncode == 1 and "`sh termux/install.sh` again" in done.stdout


def test_a_pass_of_the_real_command(phone: Phone) -> None:
    real = phone.prefix / "bin/ondevice"
    real.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m ondevice "$@"\n')
    phone.put_scripts()
    done = phone.watchdog()
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
