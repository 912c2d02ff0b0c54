"""What the terminal UI costs: time to the first paint, share of a core while a trainer runs, and while it is hidden.

``python tools/bench/tui.py [--seconds 20]``: a real terminal of tmux, a run of paper that takes a step every 0.1 s and
tells its status every second. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from tests.tui.recorded import PaperTrainer  # noqa: E402

SIZES = ((45, 28), (120, 36))
BLUR = "\x1b[O"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="tui-") as folder:
        runs = Path(folder) / "home" / "runs"
        runs.mkdir(parents=True)
        trainer = PaperTrainer(runs / "notes", steps=100_000).launch().steps(5000).evaluate().save().sample().beat()
        found = {f"{width}x{height}": measure(trainer, Path(folder), width, height, seconds) for width, height in SIZES}
        trainer.leave()
    print(json.dumps(found, indent=1))
    return 0


def measure(trainer: PaperTrainer, folder: Path, width: int, height: int, seconds: float) -> dict[str, float]:
    """One terminal: start, watch, hide."""
    socket = folder / f"{width}"
    env = os.environ | {"ONDEVICE_HOME": str(folder / "home"), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}

    def tmux(*words: str) -> str:
        return subprocess.run(
            ["tmux", "-S", str(socket), "-f", "/dev/null", *words], capture_output=True, text=True, env=env
        ).stdout

    began = time.monotonic()
    tmux("new-session", "-d", "-x", str(width), "-y", str(height), sys.executable, "-m", "tui", str(trainer.run.path))
    process = psutil.Process(int(tmux("list-panes", "-F", "#{pane_pid}")))
    while "step" not in tmux("capture-pane", "-p"):
        time.sleep(0.01)
    found = {
        "first_paint_s": round(time.monotonic() - began, 2),
        "first_paint_cpu_s": round(sum(process.cpu_times()[:2]), 2),  # what it would be on a machine without others
    }
    live(trainer, 5.0)
    found["watching_percent"] = share(process, lambda: live(trainer, seconds))
    tmux("send-keys", "-l", BLUR)
    live(trainer, 2.0)
    found["hidden_percent"] = share(process, lambda: live(trainer, seconds))
    found["rss_mb"] = round(process.memory_info().rss / 2**20, 1)
    tmux("kill-server")
    return found


def share(process: psutil.Process, work: object) -> float:
    """Percent of one core that the process took while something else happened."""
    assert callable(work)
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    work()
    return round(100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began), 2)


def live(trainer: PaperTrainer, seconds: float) -> None:
    """Goes on as a trainer does."""
    until, beat = time.monotonic() + seconds, 0.0
    while time.monotonic() < until:
        trainer.steps(1)
        if time.monotonic() - beat >= 1.0:
            beat = time.monotonic()
            trainer.beat(step=trainer.step, tokens=trainer.step * 768)
        time.sleep(0.1)


if __name__ == "__main__":
    if shutil.which("tmux") is None:
        sys.exit("tmux is not installed")
    sys.exit(main())
