"""AdamW over a decoder's parameters, and its state as named tensors.

Matrices decay; norms, biases and everything one-dimensional do not. Uses torch's fused CPU kernel where it exists (the
checkpoint records which, since fused and unfused differ in the last bits).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ondevice.errors import CheckpointError
from ondevice.run.recipe import TrainRecipe

__all__ = ["STATE_FORMAT", "adamw", "load_state", "make_optimizer", "state_tensors"]

STATE_FORMAT = "adamw-fp32"
_SLOTS = ("exp_avg", "exp_avg_sq", "step")


def make_optimizer(model: nn.Module, recipe: TrainRecipe) -> torch.optim.AdamW:
    """The recipe's optimizer. Its rate is set before every step."""
    return adamw(
        model,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        beta1=recipe.beta1,
        beta2=recipe.beta2,
        eps=recipe.eps,
    )


def adamw(
    model: nn.Module, *, lr: float, weight_decay: float, beta1: float, beta2: float, eps: float
) -> torch.optim.AdamW:
    """AdamW with two groups: decayed matrices and the rest."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=lr, betas=(beta1, beta2), eps=eps, fused=True
    )


def state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as ``<slot>.<parameter>`` -> tensor; empty before the first step."""
    return {
        f"{slot}.{name}": state[slot]
        for name, parameter in model.named_parameters()
        if (state := optimizer.state.get(parameter))
        for slot in _SLOTS
    }


def load_state(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts back what `state_tensors` gave. Raises CheckpointError when names or shapes do not match the model."""
    expected = {f"{slot}.{name}" for name, p in model.named_parameters() if p.requires_grad for slot in _SLOTS}
    if tensors and set(tensors) != expected:
        odd = sorted(set(tensors) ^ expected)[0]
        raise CheckpointError(f"optimizer state does not belong to this model: '{odd}' is on one side only.")
    for name, parameter in model.named_parameters():
        if tensors and parameter.requires_grad:
            state = {slot: tensors[f"{slot}.{name}"].clone() for slot in _SLOTS}
            if state["exp_avg"].shape != parameter.shape:
                raise CheckpointError(f"optimizer state of '{name}' has shape {tuple(state['exp_avg'].shape)}.")
            optimizer.state[parameter] = state
