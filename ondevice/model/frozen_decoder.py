"""A decoder over frozen matrices: what an adapter learns beside when memory is short.

Matrices of the blocks take the format that was asked for. The embedding, and the head where it is apart, take 8 bits a
number at least: rare tokens have few numbers each, and an error there reaches every logit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ondevice.model.build import build_model
from ondevice.model.decoder import Decoder
from ondevice.model.frozen import FrozenMatrix, frozen_matrix
from ondevice.model.frozen_counts import TABLE_FORMAT
from ondevice.model.frozen_layers import FrozenEmbedding, FrozenLinear
from ondevice.model.layers import Linear
from ondevice.run.recipe import ModelShape

__all__ = ["build_frozen", "fill", "seal", "unpack"]


def build_frozen(shape: ModelShape, form: str) -> Decoder:
    """A decoder whose matrices are frozen ones, all empty: `fill` it, then `seal` it. Nothing of it learns."""
    with torch.device("meta"):
        model = build_model(shape, seed=None)
    for block in model.blocks:
        for parent in block.children():
            for name, child in list(parent.named_children()):
                if isinstance(child, Linear):
                    setattr(parent, name, _frozen(child, form))
    table = frozen_matrix(TABLE_FORMAT[form], shape.vocab_size, shape.width)
    model.embed = FrozenEmbedding(table)
    if isinstance(model.head, Linear):
        model.head = _frozen(model.head, TABLE_FORMAT[form])
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, torch.empty(parameter.shape))
    return model


def _frozen(layer: Linear, form: str) -> FrozenLinear:
    matrix = frozen_matrix(form, layer.out_features, layer.in_features)
    return FrozenLinear(matrix, bias=layer.bias is not None)


@torch.no_grad()
def fill(model: Decoder, name: str, first: int, part: Tensor) -> None:
    """Puts rows from ``first`` on into the tensor of a name, whatever it is kept as."""
    path, _, kind = name.rpartition(".")
    module = model.get_submodule(path)
    if kind == "weight" and isinstance(module, FrozenLinear | FrozenEmbedding):
        module.matrix.fill(first, part)
    else:
        tensor: Tensor = getattr(module, kind)
        tensor[first : first + len(part)] = part


def seal(model: Decoder) -> None:
    """Every tensor was filled."""
    for module in model.modules():
        if isinstance(module, FrozenMatrix):
            module.seal()


def unpack(model: Decoder) -> None:
    """Unpacks every frozen matrix into a plain layer, for what merges, exports or generates."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FrozenLinear | FrozenEmbedding):
                setattr(parent, name, child.plain())
