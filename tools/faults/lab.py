"""The killer's side of the fork server: makes runs, starts lives, ends them. Needs no torch.

A life is ended through its pidfd, so that a kill never meets a stranger who got the same number.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ondevice.run.directory import RunDir

from .board import Board, Phase

__all__ = ["Lab", "Life"]

ROOT = Path(__file__).parents[2]


@dataclass(eq=False)
class Life:
    """One process of the lab."""

    lab: Lab
    pid: int
    fd: int
    result_path: Path

    def signal(self, number: int) -> None:
        """Does nothing where the process is gone already."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.fd, number)

    def gone(self, timeout_s: float = 0.0) -> bool:
        """Whether it ended, waiting for that so long."""
        return bool(select.select([self.fd], [], [], timeout_s)[0])

    def end(self, timeout_s: float = 120.0) -> dict[str, Any]:
        """Waits for the end and gives its result, with ``status``: the exit code, or minus the signal's number.

        Killed where it takes longer.
        """
        if not self.gone(timeout_s):
            self.signal(signal.SIGKILL)
        status = self.lab.ask({"wait": self.pid})["status"]
        os.close(self.fd)
        self.lab.lives.remove(self)
        text = self.result_path.read_text("utf-8")
        self.result_path.unlink()
        return {**json.loads(text or "{}"), "status": status}


class Lab:
    """A fork server with its board and its own home for runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.board = Board(folder / "board")
        self.lives: list[Life] = []
        self._log = open(folder / "server.log", "ab")  # noqa: SIM115  (closed in close)
        environment = {
            **os.environ,
            "ONDEVICE_HOME": str(folder / "home"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tools.faults.server", str(folder / "board")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            cwd=ROOT,
            text=True,
        )
        self._read()

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        for life in self.lives:
            life.signal(signal.SIGKILL)
            os.close(life.fd)
        self._server.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._server.wait(timeout=10)
        self._server.kill()
        self._server.wait()
        self._server.stdout.close()
        self._log.close()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request and its answer."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"the fork server is gone: {self._complaints()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _complaints(self) -> str:
        return (self.folder / "server.log").read_text("utf-8", "replace")[-2000:]

    def make(self, config: str, *, base: Path, changes: tuple[str, ...], name: str) -> RunDir:
        """A run, prepared and not started."""
        request = {"job": "make", "config": config, "base": str(base), "changes": list(changes), "name": name}
        made = self._fork(request).end()
        if "run" not in made:
            raise RuntimeError(f"no run was made: {self._complaints()}")
        return RunDir(Path(made["run"]))

    def begin(
        self,
        run: RunDir,
        *,
        marked: bool = True,
        hog: tuple[Phase, int] | None = None,
        cgroup: Path | None = None,
        hurry: float = 0.0,
    ) -> Life:
        """A launch of a run in a process of its own. ``marked`` puts its phases on the board, which starts anew.

        ``hog``: eats all memory when it enters that phase for that time; ``cgroup``: whose limits hold; ``hurry``: how
        many times faster it sleeps.
        """
        if marked:
            self.board.reset()
        return self._fork(
            {
                "job": "train",
                "run": str(run.path),
                "marked": marked,
                "hog": hog and [int(hog[0]), hog[1]],
                "cgroup": cgroup and str(cgroup),
                "hurry": hurry,
            }
        )

    def _fork(self, request: dict[str, Any]) -> Life:
        fd, path = tempfile.mkstemp(dir=self.folder, prefix="result-")
        os.close(fd)
        pid = self.ask({**request, "result": path})["pid"]
        life = Life(self, pid, os.pidfd_open(pid), Path(path))
        self.lives.append(life)
        return life
