"""Which blocks of a decoder learn: the last ones, with the final norm and a head of its own.

What is below stays a parameter that wants no gradient, so that checkpoints and exports hold the whole model and no run
depends on the folder that it began with.
"""

from __future__ import annotations

from ondevice.model.decoder import Decoder

__all__ = ["freeze_below"]


def freeze_below(model: Decoder, top_layers: int) -> None:
    """Nothing below the last ``top_layers`` blocks learns, nor the embedding, also where it is the head too."""
    frozen = model.blocks[: len(model.blocks) - top_layers]
    for module in (model.embed, model.position, *frozen):
        if module is not None:
            module.requires_grad_(False)
