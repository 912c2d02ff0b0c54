"""The run directory: where each file lies, who holds it, and how runs are found.

Layout 2 (drawn in ARCHITECTURE.md; made by `ondevice.run.create`, older ones brought up by `ondevice.run.migrate`).
The writer is whoever holds ``trainer.lock``; everyone else only reads, or drops letters into ``control/inbox``.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import CheckpointError, DataError, DeviceError, RunBusy, UsageError, nearest
from ondevice.run.files import (
    read_json,
    read_sealed,
    remove_temporary,
    write_error,
)
from ondevice.run.recipe import Recipe
from ondevice.run.telemetry import launch_files, launch_number

__all__ = [
    "LAYOUT",
    "Place",
    "RunDir",
    "RunGone",
    "RunLock",
    "boot_id",
    "disk_usage",
    "find_run",
    "home",
    "list_runs",
    "lock_holder",
    "offline_lock",
    "safe_name",
]

LAYOUT = 2
_NAME_LENGTH = 100
_LOCK_WAIT_S = 1.0  # `lock_holder` holds the lock for an instant; a trainer keeps it
_ABANDONED_S = 3600.0


def home() -> Path:
    """The folder of all runs and datasets: ``$ONDEVICE_HOME``, else ``~/ondevice``."""
    return Path(os.path.expanduser(os.environ.get("ONDEVICE_HOME") or "~/ondevice")).absolute()


def safe_name(text: str) -> str:
    """A name that is a legal file name everywhere: lower case letters, digits, ``.``, ``_`` and ``-``."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.")[:_NAME_LENGTH].rstrip("-.") or "run"


def boot_id() -> str | None:
    """Changes at every boot; None where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


@dataclass(frozen=True)
class RunDir:
    """Paths of one run."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def identity(self) -> Path:
        return self.path / "run.json"

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.json"

    @property
    def fit(self) -> Path:
        return self.path / "fit.json"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def vocabulary(self) -> Path:
        return self.path / "vocabulary.json"

    @property
    def put_aside(self) -> Path:
        return self.path / "vocabulary.safetensors"

    @property
    def limits(self) -> Path:
        return self.path / "limits.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def governor(self) -> Path:
        return self.path / "governor.json"

    @property
    def lock(self) -> Path:
        return self.path / "trainer.lock"

    @property
    def telemetry(self) -> Path:
        return self.path / "telemetry"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def inbox(self) -> Path:
        return self.path / "control" / "inbox"

    @property
    def evals(self) -> Path:
        return self.path / "evals"

    @property
    def exports(self) -> Path:
        return self.path / "exports"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def read_identity(self) -> dict[str, Any]:
        """``run.json``. Raises CheckpointError for a newer layout, DataError for a damaged file."""
        raw = read_json(self.identity)
        if not isinstance(raw, dict) or type(raw.get("layout")) is not int or raw["layout"] < 1:
            raise DataError(f"{self.identity}: not a run's identity; {self._mend}")
        if raw["layout"] > LAYOUT:
            raise CheckpointError(
                f"{self.path}: run directory of layout {raw['layout']}, this program knows layout {LAYOUT}; "
                "update ondevice."
            )
        if raw["layout"] == 1 and "sha256" not in raw:  # layout 1 had no seal
            return raw
        try:
            return read_sealed(self.identity, version=LAYOUT)
        except DataError as error:
            raise DataError(f"{error} {self._mend[0].upper()}{self._mend[1:]}") from error

    @property
    def _mend(self) -> str:
        return f"repair it with `ondevice doctor {self.name}`, or restore it from a copy of the run."

    def read_recipe(self) -> Recipe:
        """``recipe.json``. Raises DataError or CheckpointError."""
        return Recipe.from_json(read_json(self.recipe), where=str(self.recipe))

    def next_launch(self) -> int:
        """Number of the launch that would start now, from 1."""
        return 1 + max((launch_number(path) for path in launch_files(self.telemetry)), default=0)


def find_run(name: str, *, even_damaged: bool = False) -> RunDir:
    """The run of that name under `home` or at that path. Raises UsageError with the nearest name.

    ``even_damaged``, for those who look at damage: ``run.json`` may be unreadable, or missing from what else looks
    like a run.
    """
    for path in (home() / "runs" / name, Path(os.path.expanduser(name))) if name.strip() else ():
        run = RunDir(Path(os.path.abspath(path)))
        if even_damaged and (os.path.lexists(run.identity) or (run.checkpoints.is_dir() and run.telemetry.is_dir())):
            return run
        if os.path.isfile(run.identity):
            run.read_identity()
            return run
    known = [run.name for run in list_runs()]
    listed = f"; runs here: {', '.join(known[:8])}" if known else "; there are no runs yet: `ondevice quickstart`"
    raise UsageError(f"{name or repr(name)}: no such run{nearest(name, known) or listed}.")


def list_runs(folder: Path | None = None) -> list[RunDir]:
    """Every run under `home` (or another folder), by name. Raises DataError when the folder cannot be read."""
    root = folder or home() / "runs"
    try:
        found = sorted(root.iterdir()) if root.is_dir() else []
    except OSError as error:
        raise DataError(f"{root}: cannot be read ({error.strerror}).") from error
    return [RunDir(path) for path in found if os.path.isfile(path / "run.json") and not path.name.startswith(".")]


class RunLock:
    """The right to write a run directory, held through flock until the process ends, however it ends."""

    def __init__(self, run: RunDir, *, what: str = "trainer") -> None:
        """Takes the lock or raises RunBusy naming the holder; then removes what killed writers left.

        Raises UsageError when the run is gone, DeviceError where the file system has no locks.
        """
        try:
            self._fd = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise UsageError(f"{run.path}: the run is gone; `ondevice runs list` shows what there is.") from error
        except OSError as error:
            raise write_error(run.lock, error) from error
        try:
            _take(self._fd, run)
        except BaseException:
            self.release()
            raise
        with suppress(OSError):  # only words for people; a full disk must not forbid the lock
            os.utime(self._fd)  # the launch's first sign of life
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{what} pid {os.getpid()} boot {boot_id() or 'unknown'}\n".encode(), 0)
        remove_temporary(run.path)
        remove_temporary(run.inbox, older_than_s=_ABANDONED_S)

    def release(self) -> None:
        """Gives the lock back; a second call does nothing."""
        if self._fd >= 0:
            with suppress(OSError):  # the lock is gone even where the system complains
                os.close(self._fd)
        self._fd = -1


def _take(fd: int, run: RunDir) -> None:
    until = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() >= until:
                raise RunBusy(
                    f"{run.name}: another process holds this run ({_words(fd)}); watch it with "
                    f"`ondevice status {run.name}` or end it with `ondevice stop {run.name}`."
                ) from error
            time.sleep(0.02)
        except OSError as error:
            raise DeviceError(
                f"{run.path}: this file system has no locks ({error.strerror}); keep runs in your home folder, not on "
                "/sdcard or a network drive."
            ) from error
    if not _same_file(fd, run.lock):
        raise UsageError(f"{run.path}: the run is gone; `ondevice runs list` shows what there is.")


def _same_file(fd: int, path: Path) -> bool:
    """Whether a path still leads to an open file: a run may be removed or renamed while we wait for its lock."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


class RunGone(DataError):
    """The folder of a run is no longer where its trainer writes. To save there would make a second, broken run."""


class Place:
    """Where a run lay when its trainer took the lock, to notice a folder that was moved or deleted since."""

    def __init__(self, run: RunDir) -> None:
        self._path = run.lock
        try:
            self._stat: os.stat_result | None = os.stat(self._path)
        except OSError:
            self._stat = None  # nobody holds this run, so there is nothing to compare with

    def check(self) -> None:
        """Raises RunGone."""
        try:
            if self._stat is None or os.path.samestat(self._stat, os.stat(self._path)):
                return
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            return  # a disk that does not answer now may do so later
        raise RunGone(
            f"{self._path.parent}: this folder was moved or deleted while its run trained, so nothing more can be "
            "saved; `ondevice train FOLDER` goes on from the newest checkpoint where it lies now."
        )


def _words(fd: int) -> str:
    return os.pread(fd, 400, 0).decode("utf-8", "replace").strip() or "unknown"


@contextmanager
def offline_lock(run: RunDir, *, what: str) -> Iterator[None]:
    """The lock for a short offline command such as ``runs rm``."""
    lock = RunLock(run, what=what)
    try:
        yield
    finally:
        lock.release()


def lock_holder(run: RunDir) -> str | None:
    """What the holder of the lock wrote about itself, or None while nobody is known to hold it. Never blocks."""
    try:
        fd = os.open(run.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _words(fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def disk_usage(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total
