"""LoRA (Hu et al., arXiv 2106.09685): low-rank updates beside frozen matrices, for our decoders' fused layers.

Freezing turns every weight into a plain buffer; what is left as parameters is what learns, so optimizer,
checkpoints and exact resume need to know nothing of adapters. B begins at zero: at first the model is its base.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ondevice.model.decoder import Decoder
from ondevice.model.frozen_decoder import unpack
from ondevice.model.targets import Target, chosen_targets, scaling_of
from ondevice.run.recipe import AdapterRecipe

__all__ = [
    "LoraLinear",
    "add_lora",
    "beside",
    "freeze",
    "lora_layers",
    "merge",
]


def freeze(model: nn.Module) -> None:
    """Turns every parameter into a buffer, which no optimizer sees and no checkpoint holds."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())


def add_lora(model: Decoder, adapter: AdapterRecipe, *, seed: int | None) -> None:
    """Freezes a model and puts adapters beside the chosen matrices; ``seed=None`` leaves them uninitialised.

    The same seed gives the same adapter whatever the global random state. Raises UsageError for unknown targets.
    """
    targets = chosen_targets(model.shape, adapter.targets)
    freeze(model)
    model.adapter_dropout = adapter.dropout
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for block in model.blocks:
        for path in dict.fromkeys(target.path for target in targets):
            parent_name, _, name = path.partition(".")
            parent = getattr(block, parent_name)
            mine = tuple(target for target in targets if target.path == path)
            layer = LoraLinear(getattr(parent, name), mine, adapter)
            if generator is not None:
                layer.initialise(generator)
            setattr(parent, name, layer)


class LoraLinear(nn.Module):
    """A frozen layer with low-rank updates: ``y[rows] += scaling * B A x`` for each target.

    ``lora_A[name]`` is ``[rank, in]``, ``lora_B[name]`` ``[rows, rank]``. Dropout is on the input of the update only.
    """

    def __init__(self, base: nn.Module, targets: tuple[Target, ...], adapter: AdapterRecipe) -> None:
        super().__init__()
        self.base, self.targets = base, targets
        self.scaling, self.dropout = scaling_of(adapter), adapter.dropout
        # Names of parameters may hold no dots.
        self.lora_A = nn.ParameterDict({_key(t): nn.Parameter(torch.empty(adapter.rank, t.columns)) for t in targets})
        self.lora_B = nn.ParameterDict({_key(t): nn.Parameter(torch.zeros(t.rows, adapter.rank)) for t in targets})

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """A uniform in +-1 / sqrt(in), B zero."""
        for target in self.targets:
            bound = 1 / math.sqrt(target.columns)
            self.lora_A[_key(target)].uniform_(-bound, bound, generator=generator)
            self.lora_B[_key(target)].zero_()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        x = x.to(y.dtype)  # under autocast the layer may answer in less
        keep = None
        if self.training and self.dropout:
            keep = torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - self.dropout)
        matrices = [matrix for target in self.targets for matrix in self.pair(target)]
        with torch.autocast("cpu", enabled=False):
            out: Tensor = _AddLowRank.apply(y, x, keep, self, *matrices)
        return out

    def pair(self, target: Target) -> tuple[Tensor, Tensor]:
        """A and B of a target."""
        return self.lora_A[_key(target)], self.lora_B[_key(target)]


def _key(target: Target) -> str:
    return target.name.replace(".", "_")


class _AddLowRank(torch.autograd.Function):
    """Adds into ``y``, in place; the small products are computed again in backward, only the input is kept."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, keep: Tensor | None, layer: LoraLinear, *matrices: Tensor) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x, keep, *matrices)
        x_NI, y_NO = _dropped(x, keep, layer.dropout).flatten(0, -2), y.flatten(0, -2)
        for number, target in enumerate(layer.targets):
            a, b = (matrix.to(x_NI.dtype) for matrix in matrices[2 * number : 2 * number + 2])
            rows_Nr = y_NO.narrow(1, target.first, target.rows)
            rows_Nr.addmm_(torch.mm(x_NI, a.t()), b.t(), alpha=layer.scaling)
        ctx.mark_dirty(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        layer = ctx.layer
        x, keep, *matrices = ctx.saved_tensors
        x_NI, grad_NO = _dropped(x, keep, layer.dropout).flatten(0, -2), grad.flatten(0, -2)
        into_x = torch.zeros_like(x_NI) if ctx.needs_input_grad[1] else None
        gradients: list[Tensor] = []
        for number, target in enumerate(layer.targets):
            a, b = (matrix.to(x_NI.dtype) for matrix in matrices[2 * number : 2 * number + 2])
            scaled_Nr = torch.mm(grad_NO.narrow(1, target.first, target.rows), b).mul_(layer.scaling)
            low_Nr = torch.mm(x_NI, a.t())
            into_b = torch.mm(grad_NO.narrow(1, target.first, target.rows).t(), low_Nr).mul_(layer.scaling)
            gradients += [torch.mm(scaled_Nr.t(), x_NI).to(matrices[0].dtype), into_b.to(matrices[0].dtype)]
            if into_x is not None:
                into_x.addmm_(scaled_Nr, a)
        given = None if into_x is None else _dropped(into_x.view_as(x), keep, layer.dropout)
        return grad, given, None, None, *gradients


def _dropped(x: Tensor, keep: Tensor | None, rate: float) -> Tensor:
    return x if keep is None else x * keep / (1 - rate)


def lora_layers(model: Decoder) -> Iterator[tuple[int, LoraLinear]]:
    """Every adapted layer with the number of its block."""
    for number, block in enumerate(model.blocks):
        for module in block.modules():
            if isinstance(module, LoraLinear):
                yield number, module


@torch.no_grad()
def beside(model: Decoder) -> dict[str, Tensor]:
    """The weights of the base under the plain decoder's names, and the adapter of every adapted layer beside them:
    ``<layer>.lora_A [R, in]`` and ``<layer>.lora_B [out, R]``, the scaling in B, with R the sum of the ranks of its
    targets: ``y += lora_B lora_A x``. Frozen matrices are unpacked for it."""
    unpack(model)
    state = {name.replace(".base.", "."): each for name, each in model.state_dict().items() if ".lora_" not in name}
    for path, layer in model.named_modules():
        if isinstance(layer, LoraLinear):
            state[f"{path}.lora_A"], state[f"{path}.lora_B"] = _stacked(layer)
    return state


def _stacked(layer: LoraLinear) -> tuple[Tensor, Tensor]:
    """A and B of all targets together: each target's columns of B reach its own rows only."""
    weight = layer.base.weight
    assert isinstance(weight, Tensor)
    pairs = [layer.pair(target) for target in layer.targets]
    columns = []
    for target, (_, b) in zip(layer.targets, pairs, strict=True):
        columns.append(torch.zeros(len(weight), b.shape[1]))
        columns[-1].narrow(0, target.first, target.rows).copy_(b).mul_(layer.scaling)
    return torch.cat([a.float() for a, _ in pairs]), torch.cat(columns, dim=1)


@torch.no_grad()
def merge(model: Decoder) -> None:
    """Adds every update into its frozen matrix and puts the plain layers back: the same model without adapters.

    Frozen matrices are unpacked for it. Leaves a model without any adapter as it is.
    """
    if not list(lora_layers(model)):
        return
    unpack(model)
    for _, layer in lora_layers(model):
        weight = layer.base.weight
        assert isinstance(weight, Tensor)
        for target in layer.targets:
            a, b = layer.pair(target)
            weight.narrow(0, target.first, target.rows).addmm_(b, a, alpha=layer.scaling)
    for block in model.blocks:
        for parent in block.children():
            for name, child in list(parent.named_children()):
                if isinstance(child, LoraLinear):
                    setattr(parent, name, child.base)
    model.adapter_dropout = 0.0
    _thaw(model)


def _thaw(model: nn.Module) -> None:
    """Buffers that `freeze` made are parameters again, for what saves or exports a model; none wants a gradient."""
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            delattr(module, name)
            module.register_parameter(name, nn.Parameter(buffer, requires_grad=False))
