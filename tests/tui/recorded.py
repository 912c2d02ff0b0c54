"""A trainer of paper: writes run directories as the real one does, without learning anything. And what it recorded:
one run directory for each state that a person can meet."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ondevice.run import control
from ondevice.run.create import create_run
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.files import write_json
from ondevice.run.liveness import write_status
from ondevice.run.recipe import DataRecipe, EvalRecipe, Fit, ModelShape, Recipe, SampleRecipe, TrainRecipe
from ondevice.run.telemetry import TelemetryWriter, chained


def make_recipe(steps: int) -> Recipe:
    """The smallest whole recipe."""
    return Recipe(
        model=ModelShape(arch="llama", vocab_size=256, context=64, layers=2, width=32, heads=2, kv_heads=1, hidden=64),
        data=DataRecipe(
            dataset="toy", dataset_sha256="", tokenizer_sha256="", order="shuffled", order_sha256="", seed=1,
            weights={"notes": 1.0}, train_tokens=1000,
        ),
        train=TrainRecipe(
            steps=steps, tokens=steps * 768, batch=12, optimizer="adamw", optimizer_state="f32", lr=1e-3, lr_min=1e-4,
            schedule="cosine", warmup_steps=10, tail="", tail_steps=0, weight_decay=0.1, beta1=0.9, beta2=0.95,
            eps=1e-8, clip=1.0, seed=1, precision="fp32",
        ),
        eval=EvalRecipe(steps=(), max_tokens=100),
        sample=SampleRecipe(
            steps=(), prompts=(), max_new_tokens=8, temperature=0.8, top_k=0, top_p=1.0, repetition_penalty=1.0, seed=1
        ),
    )  # fmt: skip


SAMPLE = (
    " today the sea was grey and the wind came over the hill. My brother said that the boats would not go out, and so "
    "we stayed at home and read.\n\nIn the evening there was a light on the water."
)
POLICY = {"max_battery_c": 39.0, "max_skin_c": 43.0, "max_cpu_c": 85.0, "duty_max": 1.0, "battery_floor_percent": 30.0}


class PaperStory(TelemetryWriter):
    """Telemetry of a time of its own, where ``t`` is set."""

    t: float | None = None

    def write(self, kind: str, step: int, **fields: Any) -> dict[str, Any]:
        if self.t is None:
            return super().write(kind, step, **fields)
        record = {"v": 1, "t": round(self.t, 3), "kind": kind, "step": step, **fields}
        line, self._chain = chained(record, self._chain)
        os.write(self._fd, line)
        return record


class PaperTrainer:
    """``PaperTrainer(path).launch().steps(10).evaluate().die()``; each verb gives the trainer back.

    With ``ago_s`` the story began so long ago; a step then takes half a second and a reading comes half a minute after
    the one before.
    """

    def __init__(self, path: Path, *, steps: int = 200, seed: int = 0, ago_s: float | None = None) -> None:
        if not path.exists():
            fit = Fit(micro_batch=12, threads=1, activation_checkpointing=False, loss_chunk_tokens=256)
            create_run(path, config_toml="", recipe=make_recipe(steps), fit=fit, save_tokenizer=Path.mkdir)
        self.run, self.total, self.step, self.hold = RunDir(path), steps, 0, ""
        self.t = None if ago_s is None else time.time() - ago_s
        self._dice = random.Random(seed)

    def launch(self, resumed_step: int | None = None) -> PaperTrainer:
        self.step = resumed_step or 0
        self.lock = RunLock(self.run)
        number = self.run.next_launch()
        self.telemetry = PaperStory(self.run.telemetry, number)
        self.write("launch", launch=number, resumed_step=resumed_step, steps=self.total)
        return self.beat()

    def write(self, kind: str, **fields: Any) -> PaperTrainer:
        self.telemetry.t = self.t
        self.telemetry.write(kind, self.step, **fields)
        return self

    def loss(self) -> float:
        return 1.7 + 3.6 * math.exp(-8 * self.step / self.total) + self._dice.gauss(0, 0.05)

    def later(self, seconds: float) -> PaperTrainer:
        self.t = None if self.t is None else self.t + seconds
        return self

    def steps(self, number: int) -> PaperTrainer:
        for _ in range(number):
            self.step += 1
            self.later(0.5)
            lr = 1e-3 * min(1.0, self.step / 10) * (1 - self.step / self.total / 2)
            grad_norm = abs(self._dice.gauss(0.8, 0.2))
            step_s = round(0.05 * (1 + 0.1 * self._dice.random()), 5)
            self.write(
                "step", tokens=self.step * 768, loss=self.loss(), lr=lr, grad_norm=grad_norm, step_s=step_s,
                tok_s=round(768 / step_s, 1),
            )  # fmt: skip
        return self

    def evaluate(self, **losses: float) -> PaperTrainer:
        losses = losses or {"notes": self.loss() + 0.1, "python": self.loss() - 0.2}
        mixed = sum(losses.values()) / len(losses)
        return self.write("eval", val_loss=losses, val_loss_mixed=mixed, best_step=self.step)

    def beat(self, **facts: Any) -> PaperTrainer:
        body = {"heartbeat_t": time.time(), "state": "waiting" if self.hold else "running", "hold": self.hold}
        rates = {"step_s": 0.05, "tok_s": 15360.0, "tok_s_sustained": 14901.5, "eta_s": (self.total - self.step) / 18}
        sensors = {"rss_mb": 412.3, "available_mb": 2314.0, "cpu_c": 61.2, "battery_percent": 83.0, "plugged": True}
        write_status(self.run, {"policy": POLICY, **body, **rates, **sensors, **facts}, durable=False)
        return self

    def answer(self, *, ok: bool = True, why: str = "") -> PaperTrainer:
        """Answers every letter in the inbox, and obeys pause and resume."""
        for letter in control.pending(self.run):
            if ok and letter.verb in ("pause", "resume"):
                self.hold = "paused by the terminal UI" if letter.verb == "pause" else ""
            fields: dict[str, Any] = {"id": letter.id, "verb": letter.verb, "from": letter.sender, "ok": ok}
            self.write("control", **fields, **({"why": why} if why else {}))
            control.discard(self.run, letter)
        return self.beat()

    def die(self) -> PaperTrainer:
        """As SIGKILL would have it: no last word, the lock falls open."""
        self.telemetry.close()
        self.lock.release()
        return self

    def leave(self) -> None:
        """Lets go of what it holds, however it ended."""
        if hasattr(self, "lock"):
            self.die()

    def end(self, outcome: str = "finished") -> PaperTrainer:
        return self.write("end", outcome=outcome, why="every planned step is done").die()

    def feel(self, **values: Any) -> PaperTrainer:
        """A reading, told in the status too."""
        usual = {"cpu_c": 61.2, "battery_c": 36.5, "skin_c": 38.0, "battery_percent": 83.0, "plugged": True}
        memory = {"rss_mb": 412.3, "available_mb": 2314.0, "total_mb": 11_000.0, "disk_free_mb": 9100.0}
        self.later(30.0)
        reading = {**memory, **usual, "charging": "charging", "power_w": -2.1, "screen_on": False, **values}
        return self.write("reading", **reading).beat(**reading)

    def order(self, order: str, *, duty: float = 1.0, why: str, **status: Any) -> PaperTrainer:
        """An order of the governor, told in the status too."""
        self.write("order", order=order, duty=duty, why=why)
        state = {"rest": "resting", "wait": "waiting"}.get(order, "running")
        return self.beat(state=state, wait=why if order != "run" else None, duty=duty, **status)

    def save(self, **fields: Any) -> PaperTrainer:
        known = {"save_s": 0.41, "stall_s": 0.41, "bytes": 40_000_000, "removed": [], "lightened": []}
        return self.write("checkpoint", **{**known, **fields})

    def sample(self, prompt: str = "Once upon", text: str = " a time there was a phone.") -> PaperTrainer:
        return self.write("sample", prompt=prompt, text=text)

    def append(self, raw: bytes, *, launch: int = 1) -> PaperTrainer:
        """Bytes of anyone's making at the end of a telemetry file."""
        with open(self.run.telemetry / f"{launch:04d}.jsonl", "ab") as file:
            file.write(raw)
        return self


def healthy(path: Path) -> PaperTrainer:
    """Runs, cool and on the charger, halfway through."""
    trainer = PaperTrainer(path, ago_s=3600).launch().feel()
    for _ in range(4):
        trainer.steps(25).evaluate().save().sample().feel()
    return trainer


def hot(path: Path) -> PaperTrainer:
    """Works a third of the time, at the warmest battery it may have."""
    trainer = PaperTrainer(path, ago_s=3600).launch()
    for number in range(12):
        trainer.steps(8).feel(battery_c=34.0 + number / 2, cpu_c=70.0 + number, plugged=False, charging="discharging")
    why = "The battery is at 39.5 C and may be 39 C: working 35 % of the time."
    return trainer.evaluate().order("run", duty=0.35, why=why, battery_c=39.5, plugged=False)


def resting(path: Path) -> PaperTrainer:
    """Too warm to work for the moment."""
    why = "The battery is at 41.2 C: resting until it is below 38 C."
    return hot(path).feel(battery_c=41.2).order("rest", duty=0.0, why=why, battery_c=41.2)


def waiting(path: Path) -> PaperTrainer:
    """Until 22:30."""
    until_t = time.time() + 3600
    return healthy(path).order(
        "wait", duty=0.0, why="Outside the hours 22:30-06:45: waiting until 22:30.", until_t=until_t
    )


def killed(path: Path) -> PaperTrainer:
    """Twice, and resumed once; the second time nobody came."""
    trainer = PaperTrainer(path, ago_s=3600).launch().steps(30).evaluate().save(lightened=[]).steps(15).die()
    trainer.launch(30).steps(40).evaluate().save(removed=[], lightened=[30]).sample().feel().beat()
    return trainer.append(b'{"v":1,"t":17').die()


def asleep(path: Path) -> PaperTrainer:
    """Frozen by the system two hours ago."""
    trainer, then = healthy(path), time.time() - 7200
    os.utime(trainer.run.lock, (then, then))
    return trainer.beat(heartbeat_t=then)


def finished(path: Path) -> PaperTrainer:
    """Every planned step is done."""
    return healthy(path).steps(100).evaluate().save().end()


def empty(path: Path) -> PaperTrainer:
    """Made, never started."""
    return PaperTrainer(path)


def corrupted(path: Path) -> PaperTrainer:
    """A tail of garbage and half a line."""
    return healthy(path).append(b"\x00\xff{{{\n" * 3 + b'{"v":1,"t":1.0,"kind":"st').die()


def newer(path: Path) -> PaperTrainer:
    """Of a later ondevice."""
    trainer = healthy(path).die()
    write_json(trainer.run.identity, {"layout": 99})
    return trainer


def diary(path: Path) -> PaperTrainer:
    """Two launches of a run that grew hot, rests, was killed once and writes."""
    trainer = PaperTrainer(path, steps=3000, seed=7, ago_s=5400.0).launch()
    for launch in range(2):
        for part in range(10):
            warm = 31.0 + 0.9 * part + 1.5 * launch
            trainer.steps(100).feel(
                battery_c=round(warm, 1), cpu_c=round(58 + 1.4 * part, 1), skin_c=round(warm - 3, 1)
            )
            trainer.evaluate().save()
            trainer.sample("Dear diary,", SAMPLE)
            if warm > 37:
                trainer.order(
                    "run",
                    duty=round(max(0.35, (42.0 - warm) / 5), 2),
                    why=f"battery {warm:.1f} C: works part of the time",
                )
        if launch == 0:
            trainer.die().launch(resumed_step=trainer.step)
    why = "battery 40.6 C is above the limit of 39: rests two thirds of the time"
    return trainer.order("rest", duty=0.35, why=why, battery_c=40.6, cpu_c=71.0, skin_c=37.4, eta_s=4980.0)


def chained_parts(path: Path, *, parts: int = 24, done: int = 9) -> PaperTrainer:
    """A chain of three stages in the middle of its second."""
    trainer = PaperTrainer(path, steps=parts * 50, ago_s=3600).launch().feel()
    stages = ("general", "dialogue", "special")
    told = []
    for number in range(parts):
        stage = stages[min(2, number * 5 // (2 * parts))]
        state = "done" if number < done else "training" if number == done else "waiting"
        part: dict[str, Any] = {
            "name": f"{stage} {number + 1}", "stage": stage, "state": state, "sources": {f"{stage}.txt": 1.0},
            "planned_steps": 50, "tokens": 50 * 768, "tries": 2 if number == 4 else 0,
        }  # fmt: skip
        if state == "done":
            trainer.steps(50)
            part["results"] = {"val_loss_mixed": round(trainer.loss(), 3)}
        told.append(part)
    write_json(trainer.run.path / "schedule.json", {"parts": told})
    return trainer.evaluate().save().feel()


RECORDED: dict[str, Callable[[Path], PaperTrainer]] = {
    made.__name__: made for made in (healthy, hot, resting, waiting, killed, asleep, finished, empty, corrupted, newer)
}
