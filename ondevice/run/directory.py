"""The run directory: where each file lies, who holds it, and how runs are found, made, renamed and removed.

Layout 1 (drawn in ARCHITECTURE.md). The writer is whoever holds ``trainer.lock``; everyone else only reads, or drops
letters into ``control/inbox``.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ondevice
from ondevice.errors import CheckpointError, DataError, RunBusy, UsageError, nearest
from ondevice.run.files import fsync_folder, read_json, write_atomic, write_json
from ondevice.run.recipe import Fit, Recipe

__all__ = [
    "LAYOUT",
    "RunDir",
    "RunLock",
    "boot_id",
    "create_run",
    "disk_usage",
    "find_run",
    "home",
    "list_runs",
    "lock_holder",
    "offline_lock",
    "remove_run",
    "rename_run",
    "safe_name",
]

LAYOUT = 1


def home() -> Path:
    """The folder of all runs and datasets: ``$ONDEVICE_HOME``, else ``~/ondevice``."""
    return Path(os.environ.get("ONDEVICE_HOME") or "~/ondevice").expanduser().absolute()


def safe_name(text: str) -> str:
    """A name that is a legal file name everywhere: lower case letters, digits, ``.``, ``_`` and ``-``."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.") or "run"


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
    def limits(self) -> Path:
        return self.path / "limits.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

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
        if not isinstance(raw, dict) or not isinstance(raw.get("layout"), int):
            raise DataError(f"{self.identity}: not a run's identity; restore it from a copy of the run.")
        if raw["layout"] > LAYOUT:
            raise CheckpointError(
                f"{self.path}: run directory of layout {raw['layout']}, this program knows layout {LAYOUT}; "
                "update ondevice."
            )
        return raw

    def read_recipe(self) -> Recipe:
        """``recipe.json``. Raises DataError or CheckpointError."""
        return Recipe.from_json(read_json(self.recipe), where=str(self.recipe))

    def next_launch(self) -> int:
        """Number of the launch that would start now, from 1."""
        return 1 + max((int(path.stem) for path in self.telemetry.glob("[0-9]*.jsonl")), default=0)


def create_run(
    path: Path,
    *,
    config_toml: str,
    recipe: Recipe,
    fit: Fit,
    save_tokenizer: Callable[[Path], object],
    parent: dict[str, Any] | None = None,
) -> RunDir:
    """Makes a run directory in one instant (built beside, then renamed). Raises UsageError if it exists.

    ``save_tokenizer`` fills the tokenizer's folder, so that a run copied elsewhere can still speak.
    """
    if path.exists():
        raise UsageError(f"{path}: a run of this name exists; choose another name or `ondevice runs rm {path.name}`.")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = RunDir(path.with_name(f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}"))
    draft.path.mkdir(mode=0o700)
    try:
        for folder in (draft.telemetry, draft.checkpoints, draft.inbox, draft.evals, draft.exports, draft.logs):
            folder.mkdir(parents=True, mode=0o700)
        write_atomic(draft.config, config_toml.encode())
        write_json(draft.recipe, recipe.to_json())
        write_json(draft.fit, fit.to_json())
        save_tokenizer(draft.tokenizer)
        write_json(
            draft.identity,
            {
                "layout": LAYOUT,
                "id": secrets.token_hex(8),
                "created_t": round(time.time(), 3),
                "code_version": ondevice.__version__,
                "parent": parent,
            },
        )
        draft.path.rename(path)
    except BaseException:
        shutil.rmtree(draft.path, ignore_errors=True)
        raise
    fsync_folder(path.parent)
    return RunDir(path)


def find_run(name: str) -> RunDir:
    """The run of that name under `home` or at that path. Raises UsageError with the nearest name."""
    for path in (home() / "runs" / name, Path(name).expanduser()):
        run = RunDir(path.absolute())
        if run.identity.is_file():
            run.read_identity()
            return run
    known = [run.name for run in list_runs()]
    listed = f"; runs here: {', '.join(known[:8])}" if known else "; there are no runs yet: `ondevice quickstart`"
    raise UsageError(f"{name}: no such run{nearest(name, known) or listed}.")


def list_runs(folder: Path | None = None) -> list[RunDir]:
    """Every run under `home` (or another folder), by name."""
    root = folder or home() / "runs"
    if not root.is_dir():
        return []
    return [RunDir(path) for path in sorted(root.iterdir()) if (path / "run.json").is_file() and path.name[0] != "."]


class RunLock:
    """The right to write a run directory, held through flock until the process ends, however it ends."""

    def __init__(self, run: RunDir, *, what: str = "trainer") -> None:
        """Takes the lock or raises RunBusy naming the holder."""
        self._fd = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._fd, 400).decode("utf-8", "replace").strip()
            os.close(self._fd)
            raise RunBusy(
                f"{run.name}: another process holds this run ({holder or 'unknown'}); "
                f"watch it with `ondevice status {run.name}` or end it with `ondevice stop {run.name}`."
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{what} pid {os.getpid()} boot {boot_id() or 'unknown'}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)


@contextmanager
def offline_lock(run: RunDir, *, what: str) -> Iterator[None]:
    """The lock for a short offline command such as ``runs rm``."""
    lock = RunLock(run, what=what)
    try:
        yield
    finally:
        lock.release()


def lock_holder(run: RunDir) -> str | None:
    """What the holder of the lock wrote about itself, or None while nobody holds it. Never blocks."""
    try:
        fd = os.open(run.lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return os.read(fd, 400).decode("utf-8", "replace").strip() or "unknown"
    finally:
        os.close(fd)


def remove_run(run: RunDir) -> None:
    """Deletes a run that nobody holds: identity first, so that a half-deleted run is not one. Raises RunBusy."""
    with offline_lock(run, what="ondevice runs rm"):
        run.identity.unlink(missing_ok=True)
        shutil.rmtree(run.path)


def rename_run(run: RunDir, name: str) -> RunDir:
    """Gives a run that nobody holds another name. Raises RunBusy or UsageError."""
    if name != safe_name(name):
        raise UsageError(f"'{name}': use lower case letters, digits, '.', '_' and '-', such as '{safe_name(name)}'.")
    target = run.path.with_name(name)
    if target.exists():
        raise UsageError(f"{name}: a run of this name exists; choose another name.")
    with offline_lock(run, what="ondevice runs rename"):
        run.path.rename(target)
    fsync_folder(target.parent)
    return RunDir(target)


def disk_usage(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total
