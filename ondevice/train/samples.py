"""A sample of text in the middle of training, without touching training's random state."""

from __future__ import annotations

from ondevice.data.chat import encode_chat, end_ids
from ondevice.data.tokenizer import Tokenizer
from ondevice.infer.generate import generate
from ondevice.infer.sampling import Sampling
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.decoder import Decoder
from ondevice.run.recipe import SampleRecipe

__all__ = ["sampling_of", "write_sample"]


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


def sampling_of(recipe: SampleRecipe) -> Sampling:
    """How a recipe chooses tokens. Raises UsageError for values that are out of bounds."""
    return Sampling(
        temperature=recipe.temperature,
        top_k=recipe.top_k,
        top_p=recipe.top_p,
        repetition_penalty=recipe.repetition_penalty,
        seed=recipe.seed,
    )
