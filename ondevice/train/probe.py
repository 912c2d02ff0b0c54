"""Short timed probes of this machine: matrix products (precision, size of model) and whole steps (tokens a second).

Each is short and repeated by who asks (``ondevice.train.race``), because phones and shared machines are noisy.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from ondevice.model.build import build_model
from ondevice.model.decoder import Decoder
from ondevice.model.frozen_decoder import build_frozen
from ondevice.model.lora import add_lora
from ondevice.model.narrow import is_narrow, narrow
from ondevice.model.top_layers import freeze_below
from ondevice.run.recipe import AdapterRecipe, Fit, ModelShape
from ondevice.train.engine import Engine
from ondevice.train.optimizer import optimizer_of
from ondevice.train.race import Timing

__all__ = ["MatmulRates", "StepTimer", "matmul_rates", "time_gradients"]

LEAST_TRIAL_S = 0.05
BF16_GAIN = 1.5  # matrix products are not the whole step


@dataclass(frozen=True, kw_only=True)
class MatmulRates:
    """Floating-point operations a second of a square matrix product."""

    fp32_flops_s: float
    bf16_flops_s: float

    @property
    def bf16_is_worth_trying(self) -> bool:
        """Whether bf16 products are so much faster that whole steps may be."""
        return self.bf16_flops_s > BF16_GAIN * self.fp32_flops_s


def matmul_rates(*, size: int = 512, seconds: float = 0.4) -> MatmulRates:
    """Rates of fp32 and bf16 products, measured in turn so that a noisy moment hits both."""
    generator = torch.Generator().manual_seed(0)
    a32, b32 = (torch.randn(size, size, generator=generator) for _ in range(2))
    a16, b16 = a32.bfloat16(), b32.bfloat16()
    best = {"fp32": 0.0, "bf16": 0.0}
    with torch.inference_mode():
        for _ in range(3):
            best["fp32"] = max(best["fp32"], _rate(a32, b32, seconds / 6))
            best["bf16"] = max(best["bf16"], _rate(a16, b16, seconds / 6))
    return MatmulRates(fp32_flops_s=best["fp32"], bf16_flops_s=best["bf16"])


def _rate(a: torch.Tensor, b: torch.Tensor, seconds: float) -> float:
    _ = a @ b
    count, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds or count < 1:
        _ = a @ b
        count += 1
    return 2.0 * a.shape[0] ** 3 * count / max(spent, 1e-9)


class StepTimer:
    """Times steps of a new model of that shape on random tokens, for all the ways to run it in turn."""

    def __init__(
        self,
        shape: ModelShape,
        fit: Fit,
        *,
        optimizer: str,
        most_rows: int,
        adapter: AdapterRecipe | None = None,
        top_layers: int | None = None,
    ) -> None:
        """With an ``adapter`` that alone learns, beside a base of nothing but zeros where it is packed."""
        self._model = _model(shape, adapter)
        if top_layers is not None:
            freeze_below(self._model, top_layers)
        if is_narrow(optimizer) and adapter is None:
            narrow(self._model)
        self._model.activation_checkpointing = fit.activation_checkpointing
        settings = {"lr": 1e-4, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
        self._optimizer = optimizer_of("adamw" if adapter else optimizer, self._model, **settings)
        self._x_BT, self._y_BT = _random_batch(shape, most_rows)

    def time(self, fit: Fit, *, precision: str, rows: int, batch: int) -> Timing:
        """Tokens a second by micro-batches of ``rows``; the update, once a step whatever its batch, counts its share.

        The random generator is left as it was.
        """
        torch.set_num_threads(fit.threads)
        engine = Engine(
            self._model, self._optimizer, clip=1.0, precision=precision, loss_chunk_tokens=fit.loss_chunk_tokens
        )
        engine.use(fit)
        times_s: list[float] = []
        began = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            while not times_s or time.perf_counter() - began < LEAST_TRIAL_S:
                start = time.perf_counter()
                engine.begin(self._y_BT[:rows])
                engine.accumulate(self._x_BT[:rows], self._y_BT[:rows])
                for _ in engine.pieces(1e-4):
                    pass
                gradients = time.perf_counter()
                engine.update(1e-4)
                times_s.append(gradients - start + (time.perf_counter() - gradients) * rows / batch)
        rate = rows * self._x_BT.shape[1] / median(times_s)
        return Timing(rate=rate, seconds=time.perf_counter() - began)


def time_gradients(engine: Engine, shape: ModelShape, *, rows: int) -> Timing:
    """Tokens a second of a run's own model, which is left as it was; between two steps. Never compiled: every number of
    threads would be compiled anew."""
    x_BT, y_BT = _random_batch(shape, rows)
    times_s: list[float] = []
    began = time.perf_counter()
    with engine.plain():
        while not times_s or time.perf_counter() - began < LEAST_TRIAL_S:
            start = time.perf_counter()
            engine.begin(y_BT)
            try:
                engine.accumulate(x_BT, y_BT)
                for _ in engine.pieces(None):
                    pass
            finally:
                engine.abort()
            times_s.append(time.perf_counter() - start)
    return Timing(rate=x_BT.size / median(times_s), seconds=time.perf_counter() - began)


def _random_batch(shape: ModelShape, rows: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(0).integers(0, shape.vocab_size, (rows, shape.context + 1))
    return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


def _model(shape: ModelShape, adapter: AdapterRecipe | None) -> Decoder:
    if adapter is None:
        return build_model(shape, seed=0)
    if adapter.base_format == "fp32":
        model = build_model(shape, seed=0)
    else:
        model = build_frozen(shape, adapter.base_format)
        for buffer in model.buffers():
            buffer.zero_()
    add_lora(model, adapter, seed=0)
    return model
