"""A whole life in a made-up Termux: home and prefix elsewhere, no /tmp, no /bin/sh, no hard links, denied /proc files.

Installed, doctored, trained, killed, brought back by the watchdog, seen in the notification, stopped by its button.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BATTERY = ROOT / "tests/fixtures/termux_api/charging_positive.json"
CONFIG = """
name = "notes"
[data]
split = "hash:0.1"
[[data.sources]]
path = "words.txt"
document = "line"
[tokenizer]
kind = "byte"
[model]
layers = 2
width = 32
heads = 2
context = 32
[train]
steps = {steps}
batch = 4
precision = "fp32"
[eval]
count = 2
max_tokens = 512
[sample]
count = 0
[fit]
micro_batch = 4
threads = 1
[limits]
min_free_disk_mb = 0
save_every_steps = 20
"""


@dataclass
class Phone:
    """The folder that is the phone; ``env`` is what a Termux session has around it."""

    folder: Path
    env: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def bin(self) -> Path:
        return self.folder / "data/com.termux/files/usr/bin"

    def program(self, name: str, text: str = "") -> None:
        """A command of Termux that writes down how it was called, in the phone's own shell."""
        path = self.bin / name
        call = "json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]])"
        log = repr(str(self.folder / "calls"))
        lines = (f"#!{sys.executable} -S", "import json, os, sys", f"print({call}, file=open({log}, 'a'))", text, "")
        path.write_text("\n".join(lines))
        path.chmod(0o755)

    def calls(self, name: str) -> list[list[str]]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [words for words in map(json.loads, lines) if words[0] == name]

    def run(self, *command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in command]
        return subprocess.run(words, env=self.env | env, cwd=self.home, capture_output=True, text=True, timeout=120)

    def ondevice(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.bin / "ondevice", *words, **env)

    def status(self, name: str = "notes") -> dict[str, object]:
        path = self.home / "ondevice/runs" / name / "status.json"
        try:
            found: dict[str, object] = json.loads(path.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def wait_for(self, what: Callable[[], bool]) -> None:
        until = time.monotonic() + 60
        while not what():
            assert time.monotonic() < until
            time.sleep(0.02)

    @contextmanager
    def training(self, *, steps: int) -> Iterator[subprocess.Popen[bytes]]:
        """A trainer in a session of its own, killed at the end if it still lives."""
        (self.home / "notes.toml").write_text(CONFIG.format(steps=steps))
        command = [self.bin / "ondevice", "train", "notes.toml", "--quiet"]
        with subprocess.Popen(command, env=self.env, cwd=self.home) as trainer:
            try:
                yield trainer
            finally:
                trainer.kill()


@pytest.fixture
def phone(tmp_path: Path) -> Phone:
    folder = tmp_path / "phone"
    made = Phone(folder, {})
    for place in (made.home, made.bin, folder / "data/com.termux/files/usr/tmp"):
        place.mkdir(parents=True)
    made.env.update(
        HOME=str(made.home),
        PREFIX=str(made.bin.parent),
        PATH=f"{made.bin}:/usr/bin",
        TMPDIR=str(made.bin.parent / "tmp"),
        TERMUX_VERSION="0.118.3",
        COLUMNS="45",
        ONDEVICE_PHONE=str(folder),
        PYTHONPATH=f"{ROOT / 'tests/termux/android'}:{ROOT}",
        OMP_NUM_THREADS="1",
        OMP_WAIT_POLICY="PASSIVE",
    )
    around = " ".join(f"{name}='{made.env[name]}'" for name in ("ONDEVICE_PHONE", "PYTHONPATH", "OMP_NUM_THREADS"))
    script = f'#!/bin/sh\nexport {around}\nexec "{sys.executable}" -m ondevice "$@"\n'
    (made.bin / "ondevice").write_text(script)
    (made.bin / "ondevice").chmod(0o755)
    for name in ("wake-lock", "wake-unlock", "notification", "notification-remove", "job-scheduler"):
        made.program(f"termux-{name}")
    made.program("termux-battery-status", f"print(open({str(BATTERY)!r}).read())")
    rng = random.Random(3)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "another", "dog"]
    (made.home / "words.txt").write_text("\n".join(" ".join(rng.choices(words, k=12)) for _ in range(240)))
    return made


def test_the_phone_is_like_one(phone: Phone) -> None:
    code = (
        "import os, sys, tempfile\n"
        "assert sys.platform == 'android' and not hasattr(os, 'link') and not hasattr(os, 'getloadavg')\n"
        "tempfile.TemporaryFile().close()\n"
        "for path in ('/tmp', '/proc/stat', '/dev/shm/x'):\n"
        "    try:\n        open(path)\n    except (FileNotFoundError, PermissionError):\n        continue\n"
        "    raise SystemExit(path)\n"
    )
    done = phone.run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr


def test_doctor_says_what_can_be_read_at_45_columns(phone: Phone) -> None:
    done = phone.ondevice("doctor", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    flat = " ".join(done.stdout.split())
    assert "Battery 71 %, plugged in, charging, 33.4 C, 6.2 W charged (termux- battery-status)" in flat
    assert "Nothing starts a killed run again." in flat and "install.sh --scripts-only" in flat
    assert "The phone is kept awake" in flat and "No heat can be read" not in flat
    commands = ("sh ", "pkg ", "pip ")
    wide = [line for line in done.stdout.splitlines() if len(line) > 45 and not line.strip().startswith(commands)]
    assert wide == []


@pytest.mark.slow
def test_killed_brought_back_watched_and_finished(phone: Phone) -> None:
    install = phone.run("sh", ROOT / "termux/install.sh", "--scripts-only")
    assert install.returncode == 0, install.stderr
    with phone.training(steps=400) as trainer:
        phone.wait_for(lambda: trainer.poll() is not None or int(str(phone.status().get("saved_step") or 0)) >= 20)
        assert trainer.poll() is None
    assert len(phone.calls("termux-wake-lock")) == 1 and phone.calls("termux-wake-unlock") == []
    phone.wait_for(lambda: time.time() - float(str(phone.status()["heartbeat_t"])) > 10)  # the pause between tries
    done = phone.run("sh", phone.home / ".termux/ondevice/watchdog")
    assert done.returncode == 0 and '"event": "restart"' in done.stdout, done.stdout + done.stderr
    phone.wait_for(lambda: phone.status().get("state") == "finished")
    phone.wait_for(lambda: phone.calls("termux-wake-unlock") != [])
    posts = phone.calls("termux-notification")
    identity = posts[0][2]
    assert {words[2] for words in posts} == {identity}
    assert "of 400 (" in posts[0][posts[0].index("--content") + 1]
    assert phone.calls("termux-notification-remove")[-1][1] == identity
    assert json.loads(phone.ondevice("status", "notes", "--json").stdout)["kills"] == 1
    story = "".join(path.read_text() for path in (phone.home / "ondevice/runs/notes/telemetry").iterdir())
    assert "this is a phone" not in story


@pytest.mark.slow
def test_the_stop_button_stops_it(phone: Phone) -> None:
    with phone.training(steps=100_000) as trainer:
        phone.wait_for(lambda: trainer.poll() is not None or phone.calls("termux-notification") != [])
        assert trainer.poll() is None
        post = phone.calls("termux-notification")[0]
        action = post[post.index("--button2-action") + 1]
        bare = {
            name: phone.env[name] for name in ("PYTHONPATH", "ONDEVICE_PHONE")
        }  # what makes the interpreter a phone
        subprocess.run([shutil.which("dash") or "/bin/sh", "-c", action], env=bare, cwd="/", timeout=60)
        assert trainer.wait(60) == 0
    assert phone.status()["state"] == "stopped"
    assert phone.calls("termux-wake-unlock") == [["termux-wake-unlock"]]
