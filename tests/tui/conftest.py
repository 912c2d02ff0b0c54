"""A trainer of paper: writes run directories as the real one does, without learning anything."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.run import control
from ondevice.run.create import create_run
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.liveness import write_status
from ondevice.run.recipe import DataRecipe, EvalRecipe, Fit, ModelShape, Recipe, SampleRecipe, TrainRecipe
from ondevice.run.telemetry import TelemetryWriter


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


class PaperTrainer:
    """``PaperTrainer(path).launch().steps(10).evaluate().die()``; each verb gives the trainer back."""

    def __init__(self, path: Path, *, steps: int = 200, seed: int = 0) -> None:
        if not path.exists():
            fit = Fit(micro_batch=12, threads=1, activation_checkpointing=False, loss_chunk_tokens=256)
            create_run(path, config_toml="", recipe=make_recipe(steps), fit=fit, save_tokenizer=Path.mkdir)
        self.run, self.total, self.step, self.hold = RunDir(path), steps, 0, ""
        self._dice = random.Random(seed)

    def launch(self, resumed_step: int | None = None) -> PaperTrainer:
        self.step = resumed_step or 0
        self.lock = RunLock(self.run)
        number = self.run.next_launch()
        self.telemetry = TelemetryWriter(self.run.telemetry, number)
        self.write("launch", launch=number, resumed_step=resumed_step, steps=self.total)
        return self.beat()

    def write(self, kind: str, **fields: Any) -> PaperTrainer:
        self.telemetry.write(kind, self.step, **fields)
        return self

    def loss(self) -> float:
        return 1.7 + 3.6 * math.exp(-8 * self.step / self.total) + self._dice.gauss(0, 0.05)

    def steps(self, number: int) -> PaperTrainer:
        for _ in range(number):
            self.step += 1
            lr = 1e-3 * min(1.0, self.step / 10) * (1 - self.step / self.total / 2)
            grad_norm = abs(self._dice.gauss(0.8, 0.2))
            self.write("step", tokens=self.step * 768, loss=self.loss(), lr=lr, grad_norm=grad_norm, step_s=0.05)
        return self

    def evaluate(self, **losses: float) -> PaperTrainer:
        losses = losses or {"notes": self.loss() + 0.1, "python": self.loss() - 0.2}
        mixed = sum(losses.values()) / len(losses)
        return self.write("eval", val_loss=losses, val_loss_mixed=mixed, best_step=self.step)

    def beat(self, **facts: Any) -> PaperTrainer:
        body = {"heartbeat_t": time.time(), "state": "waiting" if self.hold else "running", "hold": self.hold}
        rates = {"step_s": 0.05, "tok_s": 15360.0, "tok_s_sustained": 14901.5, "eta_s": (self.total - self.step) / 18}
        sensors = {"rss_mb": 412.3, "available_mb": 2314.0, "cpu_c": 61.2, "battery_percent": 83.0, "plugged": True}
        write_status(self.run, {**body, **rates, **sensors, **facts}, durable=False)
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

    def end(self, outcome: str = "finished") -> PaperTrainer:
        return self.write("end", outcome=outcome, why="every planned step is done").die()

    def append(self, raw: bytes, *, launch: int = 1) -> PaperTrainer:
        """Bytes of anyone's making at the end of a telemetry file."""
        with open(self.run.telemetry / f"{launch:04d}.jsonl", "ab") as file:
            file.write(raw)
        return self


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder for runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def paper(runs: Path) -> Callable[..., PaperTrainer]:
    """``paper("notes", steps=100)`` makes a run and its trainer."""
    return lambda name, **settings: PaperTrainer(runs / name, **settings)
