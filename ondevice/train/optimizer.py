"""The optimizers a recipe may name, and their state as named tensors.

Matrices decay; norms, biases and everything one-dimensional do not. The checkpoint records torch's version, since the
last bits differ between kernels.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from ondevice.errors import CheckpointError
from ondevice.model.decoder import Decoder
from ondevice.run.recipe import TrainRecipe
from ondevice.train.adamw import AdamW
from ondevice.train.adamw8 import BLOCK, AdamW8
from ondevice.train.adamw_bf16 import AdamW8Bf16, AdamWBf16
from ondevice.train.muon import MuonAdamW, NewtonSchulzMuonAdamW

__all__ = ["Optimizer", "adamw", "load_state", "make_optimizer", "optimizer_of", "state_tensors"]

_KINDS: dict[str, type[AdamW]] = {"adamw-int8": AdamW8, "adamw-bf16": AdamWBf16, "adamw-bf16-int8": AdamW8Bf16}
_BEFORE_7 = "muon-adamw-fp32"  # Muon as recipes before version 7 named it


class Optimizer(Protocol):
    """What the engine and the checkpoint use. ``state`` maps a parameter to its named tensors."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...

    @property
    def state(self) -> Any: ...

    def slots(self, parameter: torch.nn.Parameter) -> tuple[str, ...]: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def step(self) -> Any: ...


def make_optimizer(model: Decoder, recipe: TrainRecipe) -> Optimizer:
    """The recipe's optimizer. Its rate is set before every step."""
    return optimizer_of(
        _named(recipe),
        model,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        beta1=recipe.beta1,
        beta2=recipe.beta2,
        eps=recipe.eps,
    )


def optimizer_of(
    name: str, model: Decoder, *, lr: float, weight_decay: float, beta1: float, beta2: float, eps: float
) -> Optimizer:
    """The optimizer of a name: ``muon``, ``adamw``, or one with its kind of weights, state and updates
    (``adamw-bf16-int8``)."""
    if name.startswith("muon"):
        muon = NewtonSchulzMuonAdamW if name == _BEFORE_7 else MuonAdamW
        return muon(model, model.shape, lr=lr, weight_decay=weight_decay, betas=(beta1, beta2), eps=eps)
    kind = _KINDS.get(name, AdamW)
    return adamw(model, lr=lr, weight_decay=weight_decay, beta1=beta1, beta2=beta2, eps=eps, kind=kind)


def _named(recipe: TrainRecipe) -> str:
    return recipe.optimizer_state if recipe.optimizer_state in (*_KINDS, _BEFORE_7) else recipe.optimizer


def adamw(
    model: Decoder,
    *,
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
    eps: float,
    kind: type[AdamW] = AdamW,
) -> AdamW:
    """AdamW with two groups: decayed matrices and the rest."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return kind(groups, lr=lr, betas=(beta1, beta2), eps=eps)


def state_tensors(model: Decoder, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as ``<slot>.<parameter>`` -> tensor; empty before the first step."""
    return {
        f"{slot}.{name}": state[slot]
        for name, parameter in model.named_parameters()
        if (state := optimizer.state.get(parameter))
        for slot in optimizer.slots(parameter)
    }


def load_state(model: Decoder, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts back what `state_tensors` gave. Raises CheckpointError when names or shapes do not match the model."""
    if not tensors:
        return
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    expected = {f"{slot}.{name}" for name, p in trained for slot in optimizer.slots(p)}
    if set(tensors) != expected:
        odd = sorted(set(tensors) ^ expected)[0]
        raise CheckpointError(f"optimizer state does not belong to this model: '{odd}' is on one side only.")
    for name, parameter in trained:
        state = {slot: tensors[f"{slot}.{name}"].clone() for slot in optimizer.slots(parameter)}
        wrong = [slot for slot, tensor in state.items() if tensor.shape != _shape_of(slot, parameter)]
        if wrong:
            raise CheckpointError(f"optimizer state '{wrong[0]}.{name}' has another shape than its parameter.")
        optimizer.state[parameter] = state


def _shape_of(slot: str, parameter: torch.nn.Parameter) -> torch.Size:
    if slot == "step":
        return torch.Size(())
    return torch.Size((-(-parameter.numel() // BLOCK),)) if slot.endswith("_scale") else parameter.shape
