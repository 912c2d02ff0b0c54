"""Compiling the blocks of a model in training with ``torch.compile``: where it can be done, what it does not go with,
and where the kernels are kept.

Compiled kernels round otherwise than plain ones and alike from launch to launch, so whether a run compiles is in its
recipe: it never falls back. All blocks are alike, so one is compiled for all of them. Kernels that were built for one
processor must not run on another (that has corrupted memory), so each setting has a folder of its own.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ondevice
from ondevice.device.command import ask_command
from ondevice.device.host import on_android
from ondevice.errors import DeviceError, OndeviceError, UsageError
from ondevice.model.attention import Place
from ondevice.model.decoder import Decoder
from ondevice.run.directory import home
from ondevice.run.files import make_folder, write_atomic
from ondevice.run.recipe import Fit, ModelShape, Recipe
from ondevice.run.schema import Config

__all__ = ["Compiler", "cache_folder", "check_compile", "check_compiler", "compiler_version", "no_compiler"]

_TURN_OFF = ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE")  # with one of these torch would call the plain blocks
_CPUINFO = Path("/proc/cpuinfo")


def no_compiler() -> str:
    """Why nothing can be compiled here, as half a sentence; "" where it can."""
    if on_android(os.environ):
        return "in Termux torch has no C++ compiler that it can use"
    if off := next((name for name in _TURN_OFF if os.environ.get(name) == "1"), None):
        return f"{off}=1 turns torch's compiler off"
    return "" if shutil.which(_program()) else f"this machine has no C++ compiler ({_program()})"


def _program() -> str:
    """The C++ compiler that torch will call."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def check_compile(config: Config, *, examples: bool) -> None:
    """Raises DeviceError or UsageError where ``train.compile`` is wished for and cannot be had; ``examples``: the data
    is rows of them."""
    if not config.train.compile:
        return
    if cannot := no_compiler():
        raise DeviceError(f"'train.compile' is set, and {cannot}; leave it out.")
    others = {
        "adapter.method": config.adapter.method != "none",
        "train.top_layers": config.train.top_layers is not None,
        "train.weights": config.train.weights != "fp32",
        "fit.layerwise": bool(config.fit.layerwise),
        "data with examples": examples,  # each row has texts of other lengths
    }
    for other in (other for other, given in others.items() if given):
        what = other if other.startswith("data ") else f"'{other}'"
        raise UsageError(
            f"'train.compile' is for plain steps of whole models and does not go with {what}; leave it out."
        )


def check_compiler(recipe: Recipe, name: str) -> None:
    """Raises DeviceError where the recipe of the run of that name is to be compiled and cannot be here."""
    if recipe.train.compile and (cannot := no_compiler()):
        raise DeviceError(
            f"{name}: trains with 'train.compile', and {cannot}; train it where torch can compile, or go on without, "
            f"as a child run: `ondevice fork {name} --set train.compile=false`."
        )


class Compiler:
    """Compiles the blocks of one model; `use` before the first step and at each change of fit."""

    def __init__(self, model: Decoder, *, batch: int, precision: str) -> None:
        self._model, self._batch = model, batch
        self._lower = torch.bfloat16 if precision == "bf16" else None

    def use(self, fit: Fit) -> float:
        """Compiles for every size of micro-batch that steps by this fit have; nothing is learned and no random number
        drawn. Gives the seconds. Raises DeviceError."""
        began = time.perf_counter()
        try:
            with _cache(cache_folder(self._model.shape, torch.get_num_threads())), _as_in_training(self._model):
                self._model.compiled = _compiled_pass()
                for rows in sorted({min(fit.micro_batch, self._batch), self._batch % fit.micro_batch} - {0}):
                    self._go_through(rows, again=fit.activation_checkpointing)
        except (MemoryError, OndeviceError):
            raise
        except Exception as error:  # whatever torch, compilers and linkers may raise
            raise DeviceError(
                f"The model's blocks could not be compiled ({_reason(error)}); mend the compiler, or train without: "
                "leave 'train.compile' out, or fork the run with --set train.compile=false."
            ) from error
        return time.perf_counter() - began

    def _go_through(self, rows: int, *, again: bool) -> None:
        """Forward and backward of one block, which builds both; ``again``: first forward as recomputed blocks go."""
        model, compiled = self._model, self._model.compiled
        assert compiled is not None
        block, place = model.blocks[0], model.place(torch.zeros(rows, model.shape.context, dtype=torch.int64))
        x_BTC = torch.zeros(rows, model.shape.context, model.shape.width, requires_grad=True)
        with torch.autocast("cpu", dtype=self._lower, enabled=self._lower is not None):
            if again:
                with torch.no_grad():
                    compiled(block, x_BTC, place)
            y_BTC = compiled(block, x_BTC, place)
        torch.autograd.grad(y_BTC, [x_BTC, *block.parameters()], torch.zeros_like(y_BTC))


def _compiled_pass() -> Any:
    """A block's pass. Whatever torch cannot compile, or would have to compile without end, is an error."""
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    dynamo.suppress_errors, dynamo.fail_on_recompile_limit_hit = False, True
    inductor.fallback_random = True  # dropout draws from the generator that checkpoints keep
    inductor.compile_threads = 1  # no worker processes
    torch.compiler.reset()
    return torch.compile(_through, dynamic=False, fullgraph=True)


def _through(block: nn.Module, x_BTC: Tensor, place: Place) -> Tensor:
    y_BTC: Tensor = block(x_BTC, place)
    return y_BTC


@contextmanager
def _as_in_training(model: Decoder) -> Iterator[None]:
    was = model.training
    model.train()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's, about what it traces
            yield
    finally:
        model.train(was)


def cache_folder(shape: ModelShape, threads: int) -> Path:
    """Where the kernels of a shape are kept: for this code, torch, compiler and processor and that many threads alone.
    Which kernels of these are meant torch finds by a hash of what it traced."""
    facts = {
        "code": ondevice.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": [platform.machine(), _processor_flags()],
        "compiler": compiler_version(),
        "threads": threads,
        "shape": dataclasses.asdict(shape),
    }
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return home() / "compiled" / name


@cache
def compiler_version() -> str:
    """What the C++ compiler calls itself; "" where it does not say."""
    try:
        return ask_command([_program(), "--version"], name=_program(), timeout_s=30.0).partition("\n")[0]
    except (OSError, ValueError):  # a program that fails and one that hangs are among them
        return ""


def _processor_flags() -> str:
    """What the first core says it can do; "" where the system does not tell so."""
    try:
        lines = _CPUINFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    """Inside it torch keeps its kernels in ``folder``. Linkers write in place: what a compilation left that did not
    come to its end is thrown away, and only one goes on in a folder at a time."""
    make_folder(folder.parent)
    with folder.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        whole = folder / "whole"
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        whole.unlink(missing_ok=True)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
        yield
        for path in (path for path in folder.rglob("*") if path.is_file()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        write_atomic(whole, b"")


def _reason(error: Exception) -> str:
    """The line of it that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line), (lines or [type(error).__name__])[0])[:200]
