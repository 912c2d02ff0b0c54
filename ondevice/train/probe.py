"""Short timed probes of this machine: matrix products (precision, size of model) and whole steps (tokens a second).

Each takes a few seconds, repeats, and trusts the best or the median, because phones and shared machines are noisy.
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
from ondevice.run.recipe import AdapterRecipe, Fit, ModelShape
from ondevice.train.engine import Engine
from ondevice.train.optimizer import optimizer_of

__all__ = ["MatmulRates", "matmul_rates", "step_rate"]

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


def step_rate(
    shape: ModelShape,
    fit: Fit,
    *,
    batch: int,
    precision: str,
    optimizer: str,
    adapter: AdapterRecipe | None = None,
    seconds: float = 6.0,
) -> float:
    """Tokens a second of real steps on random tokens: one warm-up, then medians until ``seconds`` have passed.

    A large batch is timed through two of its micro-batches; the update, once a step whatever the batch, is timed apart.
    With an ``adapter`` that alone learns, beside a base of nothing but zeros where it is packed.
    """
    model = _model(shape, adapter)
    model.activation_checkpointing = fit.activation_checkpointing
    settings = {"lr": 1e-4, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
    engine = Engine(
        model,
        optimizer_of("adamw" if adapter else optimizer, model, **settings),
        clip=1.0,
        precision=precision,
        loss_chunk_tokens=fit.loss_chunk_tokens,
    )
    rows = min(batch, 2 * fit.micro_batch)
    ids = np.random.default_rng(0).integers(0, shape.vocab_size, (rows, shape.context + 1))
    x_BT, y_BT = np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])
    gradient_s: list[float] = []
    update_s: list[float] = []
    began = time.perf_counter()
    while len(update_s) < 2 or (time.perf_counter() - began < seconds and len(update_s) < 40):
        start = time.perf_counter()
        engine.begin(y_BT)
        for first in range(0, rows, fit.micro_batch):
            engine.accumulate(x_BT[first : first + fit.micro_batch], y_BT[first : first + fit.micro_batch])
        gradients = time.perf_counter()
        engine.update(1e-4)
        gradient_s.append(gradients - start)
        update_s.append(time.perf_counter() - gradients)
    step_s = median(gradient_s[1:]) * batch / rows + median(update_s[1:])
    return batch * shape.context / step_s


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
