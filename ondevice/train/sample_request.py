"""What the live model is asked to write: a prompt, and how to choose tokens where that differs from the recipe.

Used by the one who sends a ``sample`` letter and by the trainer who reads it, so that both refuse the same. No torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ondevice.errors import UsageError, nearest
from ondevice.run.config import checked_sample
from ondevice.run.recipe import SampleRecipe

__all__ = ["LONGEST", "SampleRequest", "read_request"]

LONGEST = 4096  # tokens: training waits while the trainer writes
_KEYS = ("max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "seed")


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """``changes`` hold what the recipe's sampling is overridden with; ``letter`` is the id of the letter that asked,
    empty for the samples of the recipe."""

    prompt: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    letter: str = ""

    def applied_to(self, recipe: SampleRecipe) -> SampleRecipe:
        """The recipe's sampling with the changes."""
        return dataclasses.replace(recipe, **self.changes)

    @property
    def told(self) -> dict[str, Any]:
        """What its ``sample`` record says beyond prompt and text."""
        return {"letter": self.letter, **self.changes} if self.letter else {}


def read_request(args: Mapping[str, Any], *, letter: str = "") -> SampleRequest:
    """The request in a letter's ``args``: ``prompt`` and any of the keys of ``[sample]`` that choose tokens.

    Raises UsageError for a missing prompt, an unknown key or a value that ``[sample]`` would refuse.
    """
    prompt, changes = args.get("prompt"), {key: value for key, value in args.items() if key != "prompt"}
    if not isinstance(prompt, str):
        raise UsageError("a sample needs a prompt, which may be empty.")
    for key in changes:
        if key not in _KEYS:
            raise UsageError(f"'{key}': not a way to choose tokens{nearest(key, _KEYS)}; known: {', '.join(_KEYS)}.")
    settings = checked_sample(changes, where="sample")
    if "max_new_tokens" in changes and settings.max_new_tokens > LONGEST:
        raise UsageError(f"max_new_tokens: a trainer writes at most {LONGEST:,} tokens at once, for training waits.")
    return SampleRequest(prompt=prompt, changes={key: getattr(settings, key) for key in changes}, letter=letter)
