"""A sample of text in the middle of training, without touching training's random state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ondevice.data.chat import encode_chat, end_ids
from ondevice.data.tokenizer import Tokenizer
from ondevice.evaluate.degeneration import Degeneration, Tokens, degeneration
from ondevice.evaluate.probes import measure_probes, probe_summary
from ondevice.infer.batch import generate_batch
from ondevice.infer.generate import generate
from ondevice.infer.sampling import Sampling
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.decoder import Decoder
from ondevice.run.recipe import Recipe, SampleRecipe

__all__ = ["probe_panel", "sampling_of", "write_panel", "write_sample"]

_PROBE_TOKENS = 8  # of a panel's prompt: its true end
_PANEL_ROWS = 8  # at a time: their keys and values must fit beside the training


def write_sample(
    model: Decoder, tokenizer: Tokenizer, recipe: SampleRecipe, prompt: str, *, answers: bool = False
) -> str:
    """What the model writes after ``prompt``, or ``answers`` to it where it learns to; the same model, recipe and
    prompt give the same text."""
    backend = TorchBackend(model)
    if answers:
        prompt_ids = encode_chat([{"role": "user", "content": prompt}], tokenizer)
    else:
        prompt_ids = tokenizer.encode(prompt) or [tokenizer.eot_id]
    ids = generate(
        backend,
        prompt_ids,
        settings=sampling_of(recipe),
        stop_ids=end_ids(tokenizer) if answers else (tokenizer.eot_id,),
        max_new_tokens=recipe.max_new_tokens,
        vocab_size=tokenizer.vocab_size,  # a base may have rows that stand for no text
    )
    return tokenizer.decode(list(ids))


def write_panel(
    model: Decoder, tokenizer: Tokenizer, recipe: Recipe, *, pause: Callable[[], None]
) -> tuple[list[str], Degeneration]:
    """What the model writes after the prompts of its evaluations, and how much that repeats itself."""
    written = generate_batch(
        TorchBackend(model),
        [tokenizer.encode(prompt) or [tokenizer.eot_id] for prompt in recipe.eval.panel_prompts],
        settings=sampling_of(recipe.sample),
        stop_ids=(tokenizer.eot_id,),
        max_new_tokens=recipe.eval.panel_tokens,
        eot_id=tokenizer.eot_id,
        vocab_size=tokenizer.vocab_size,
        batch=_PANEL_ROWS,
        pause=pause,
    )
    texts = [tokenizer.decode(list(each.ids)) for each in written]
    return texts, degeneration([Tokens(ids=each.ids, finish=each.finish) for each in written])


def probe_panel(
    model: Decoder, tokenizer: Tokenizer, recipe: Recipe, *, pause: Callable[[], None]
) -> dict[str, Any] | None:
    """How well the model expects the end of each prompt of its evaluations from its beginning; None where all are too
    short."""
    backend, found = TorchBackend(model), []
    for prompt in recipe.eval.panel_prompts:
        ids = tokenizer.encode(prompt)[-backend.context :]
        if len(ids) < 2 * _PROBE_TOKENS:
            continue
        pause()  # one at a time: logits of a large vocabulary must fit beside the training
        found += measure_probes(backend, [(ids[:-_PROBE_TOKENS], ids[-_PROBE_TOKENS:])])
    return probe_summary(found) if found else None


def sampling_of(recipe: SampleRecipe) -> Sampling:
    """How a recipe chooses tokens. Raises UsageError for values that are out of bounds."""
    return Sampling(
        temperature=recipe.temperature,
        top_k=recipe.top_k,
        top_p=recipe.top_p,
        repetition_penalty=recipe.repetition_penalty,
        seed=recipe.seed,
    )
