"""Keys that ask things of a run: pause, resume or start, save, evaluate, write, stop; for screens that have a run."""

from __future__ import annotations

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir
from tui.asking import ask
from tui.screens.base import BaseScreen
from tui.snapshot import DEAD
from tui.widgets.bars import Key

__all__ = ["CONTROL_KEYS", "ControlScreen"]

CONTROL_KEYS: tuple[Key, ...] = (
    ("p", "pause", "screen.ask('pause')"),
    ("r", "resume", "screen.resume"),
    ("s", "save", "screen.ask('save')"),
    ("e", "evaluate", "screen.ask('eval')"),
    ("w", "write", "screen.write"),
    ("x", "stop", "screen.stop"),
)


class ControlScreen(BaseScreen):
    """A screen whose keys reach the trainer of the run one looks at."""

    def action_ask(self, verb: str) -> None:
        """Drops a letter; what becomes of it is told by the files."""
        if (run := self.run_now) is not None:
            self.complain(ask(run, verb))
            self.tui.look_again()

    def action_resume(self) -> None:
        """Lets a paused run go on; starts the trainer of one that has none."""
        run = self.run_now
        if run is None:
            return
        if run.alive:
            self.action_ask("resume")
        elif run.state == "finished":
            self.complain(f"{run.name} has learned all it was meant to; `ondevice fork {run.name}` goes on longer.")
        elif run.state not in DEAD:
            self.complain(run.trouble[0] if run.trouble else f"{run.name} cannot be started.")
        else:
            self._start(RunDir(run.path))

    def _start(self, run: RunDir) -> None:
        try:
            self.tui.jobs.start_trainer(run)
        except (OndeviceError, OSError) as error:
            self.complain(str(error))
        self.tui.look_again()

    def action_stop(self) -> None:
        """Asks the person first, then the trainer."""
        run = self.run_now
        if run is None or not run.alive:
            self.action_ask("stop")
            return
        from tui.screens.confirm import Confirm

        question = f"Stop {run.name}? It finishes its step, saves and leaves."
        self.app.push_screen(Confirm(question, yes="stop (y)"), lambda yes: self.action_ask("stop") if yes else None)

    def action_write(self) -> None:
        """Asks for a prompt, then the trainer for what it would write after it."""
        run = self.run_now
        if run is None:
            return
        if not run.alive:
            self.complain(f"No trainer holds {run.name}; `ondevice generate {run.name}` writes from its checkpoint.")
            return
        from tui.screens.prompt import Prompt  # an editor costs a start more than it is worth

        self.app.push_screen(Prompt(f"What shall {run.name} go on from?"), self._write)

    def _write(self, prompt: str | None) -> None:
        if prompt is not None and (run := self.run_now) is not None:
            self.complain(ask(run, "sample", {"prompt": prompt}))
            self.tui.look_again()
