"""The demo: a recorded night of a real run on a simulated phone, told again in fast time into a folder of its own.

The player writes a run directory as a trainer would, kills and all, so that the feed and the screens show nothing but
files. It learns nothing, and says so: its status carries ``recorded``.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ondevice.errors import DataError, OndeviceError
from ondevice.run import control
from ondevice.run.directory import LAYOUT, RunDir, RunLock
from ondevice.run.files import make_folder, write_atomic, write_error, write_sealed
from ondevice.run.liveness import write_status
from ondevice.run.telemetry import TelemetryWriter

__all__ = ["SPEED", "Player", "Recording", "demo_runs"]

SPEED = 240.0  # a night in a little over a minute
RECORDING = Path(__file__).with_name("demo_night.jsonl.gz")
NAME = "recorded-night"
_STATUS_EVERY_S = 0.25
_DEAD_S = 3.0  # that a killed trainer stays dead, for people to see it


@contextmanager
def demo_runs(speed: float = SPEED) -> Iterator[Path]:
    """The folder of a run that goes on while the context is open, ``speed`` times as fast as it was recorded.

    Raises DataError where the recording is missing or no folder can be written.
    """
    recording = Recording.read(RECORDING)
    with tempfile.TemporaryDirectory(prefix="ondevice-demo-", dir=_scratch(), ignore_cleanup_errors=True) as folder:
        runs = Path(folder) / "runs"
        player = Player(recording, runs / NAME, speed=speed)
        thread = threading.Thread(target=player.play, name="demo", daemon=True)
        thread.start()
        try:
            yield runs
        finally:
            player.stop()
            thread.join()


def _scratch() -> Path:
    """A place for temporary files: that of the system, else the user's cache. Raises DataError."""
    with suppress(FileNotFoundError):  # Termux has no /tmp and may have no TMPDIR
        return Path(tempfile.gettempdir())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{cache}: cannot be made ({error.strerror}); set TMPDIR to a folder for the demo.") from error
    return cache


class Recording:
    """A header and records in order; ``sim_t`` is the time of the recorded device."""

    def __init__(self, header: dict[str, Any], records: list[dict[str, Any]]) -> None:
        self.header, self.records = header, records

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Raises DataError."""
        try:
            lines = gzip.decompress(path.read_bytes()).splitlines()
            header, *records = (json.loads(line) for line in lines)
        except (OSError, EOFError, ValueError) as error:
            raise DataError(
                f"{path}: the demo's recording cannot be read ({error}); install ondevice again."
            ) from error
        return cls(header, records)


def _make_run(path: Path, *, limits: str) -> RunDir:
    """As much of a run directory as those who look need: there is nothing to go on from."""
    run = RunDir(path)
    try:
        make_folder(path)
    except OSError as error:
        raise write_error(path, error) from error
    write_atomic(run.config, f"[limits]\n{limits}\n".encode())
    write_sealed(run.identity, {"v": LAYOUT, "layout": LAYOUT, "id": NAME, "created_t": round(time.time(), 3)})
    return run


class Player:
    """``play()`` writes the run until its end or until ``stop()``, which comes from another thread."""

    def __init__(self, recording: Recording, path: Path, *, speed: float, dead_s: float = _DEAD_S) -> None:
        """Makes the run directory. Raises DataError or ResourceError."""
        self._recording, self._speed, self._dead_s = recording, speed, dead_s
        self.run = _make_run(path, limits=recording.header["limits"])
        self._stopped = threading.Event()
        self._sim_t = 0.0
        self._status = _Status(recording.header, speed)

    def stop(self) -> None:
        self._stopped.set()

    def play(self) -> None:
        """Launch after launch. What cannot be written ends it early: the run then looks killed."""
        launches: dict[int, list[dict[str, Any]]] = {}
        for record in self._recording.records:
            launches.setdefault(record["file"], []).append(record)
        with suppress(OndeviceError, OSError):
            for number, records in launches.items():
                self._play_launch(number, records)
                if self._stopped.wait(self._dead_s if number < len(launches) else 0.0):
                    return

    def _play_launch(self, number: int, records: list[dict[str, Any]]) -> None:
        """Ends without a word where the recorded one was killed."""
        lock = RunLock(self.run)
        story = TelemetryWriter(self.run.telemetry, number, sim_clock=lambda: self._sim_t)
        try:
            began_s, from_t = time.monotonic(), records[0]["sim_t"]
            for record in records:
                due_s = began_s + (record["sim_t"] - from_t) / self._speed
                while (wait_s := due_s - time.monotonic()) > 0 and not self._stopped.is_set():
                    self._beat(story)
                    self._stopped.wait(min(_STATUS_EVERY_S, wait_s))
                if self._stopped.is_set():
                    return
                self._tell(story, record)
            self._beat(story, force=True)
        finally:
            story.close()
            lock.release()

    def _tell(self, story: TelemetryWriter, record: dict[str, Any]) -> None:
        self._sim_t = record["sim_t"]
        fields = {key: value for key, value in record.items() if key not in ("file", "kind", "step", "sim_t")}
        story.write(record["kind"], record["step"], **fields)
        self._status.fold(record)
        self._beat(story)

    def _beat(self, story: TelemetryWriter, *, force: bool = False) -> None:
        """The status, and an answer to every letter: a recording cannot obey."""
        if not self._status.is_due() and not force:
            return
        for letter in control.pending(self.run):
            why = "this is a recording, which only goes on"
            story.write("control", self._status.step, id=letter.id, verb=letter.verb, ok=False, why=why)
            control.discard(self.run, letter)
        write_status(self.run, self._status.told(), durable=False)


class _Status:
    """What the trainer's status would have been, out of records."""

    def __init__(self, header: dict[str, Any], speed: float) -> None:
        said = f"A recording of a real run on a simulated phone, told {speed:g} times as fast. Nothing is learned here."
        told = {"steps": header["steps"], "tokens_total": header["tokens"], "policy": header["policy"]}
        self._facts: dict[str, Any] = {"recorded": said, "simulated": {"device": header["device"]}, **told}
        self._state, self._due_s = "running", 0.0
        self._worked: tuple[float, int] | None = None  # time and tokens at the first step
        self.step = 0

    def is_due(self) -> bool:
        return time.monotonic() >= self._due_s

    def fold(self, record: dict[str, Any]) -> None:
        kind = record["kind"]
        self.step = record["step"]
        if kind == "launch":
            self._facts |= {"launch": record["launch"], "wait": None, "last_error": None}
            self._state = "running"
        elif kind == "order":
            order = record["order"]
            self._state = {"wait": "waiting", "rest": "resting"}.get(order, "running")
            self._facts |= {"wait": None if self._state == "running" else record.get("why"), "duty": record.get("duty")}
        elif kind == "step":
            self._state = "running" if self._state == "waiting" else self._state
            self._fold_step(record)
        elif kind == "reading":
            self._facts |= {key: value for key, value in record.items() if key not in ("file", "kind", "step", "sim_t")}
        elif kind == "end":
            self._state = record["outcome"]

    def _fold_step(self, record: dict[str, Any]) -> None:
        self._facts |= {key: record[key] for key in ("tokens", "loss", "lr", "step_s", "tok_s")}
        began_t, tokens = self._worked = self._worked or (record["sim_t"], record["tokens"])
        passed_s, done = record["sim_t"] - began_t, record["tokens"] - tokens
        if passed_s > 0 and done > 0:
            left = self._facts["tokens_total"] - record["tokens"]
            self._facts |= {"tok_s_sustained": done / passed_s, "eta_s": left * passed_s / done}

    def told(self) -> dict[str, Any]:
        self._due_s = time.monotonic() + _STATUS_EVERY_S
        return {"heartbeat_t": round(time.time(), 3), "state": self._state, "phase": "step", "hold": "",
                "step": self.step, **self._facts}  # fmt: skip
