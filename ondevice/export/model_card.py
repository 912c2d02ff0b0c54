"""A model card, ``README.md``: what the model is, what it learned from and how, in what is known and no more."""

from __future__ import annotations

import json
import math

from ondevice import __version__
from ondevice.export.story import Ancestor, Source, Story
from ondevice.run.recipe import ModelShape

__all__ = ["model_card"]


def model_card(story: Story, shape: ModelShape, *, parameters: int, note: str = "") -> str:
    """Markdown with the front matter of a model hub. ``note`` are further sections for its end."""
    parts = [
        _front(story),
        f"# {story.run}\n",
        f"A {shape.arch} decoder of {parameters:,} parameters, trained by ondevice {__version__}. "
        "It writes on from a text; it was not taught to answer or to be safe.\n",
        _section("Model", _model(shape)),
        _section("Data", _data(story)),
        _sources(story.sources),
        _section("Training", _training(story)),
        _use(story),
        note,
    ]
    return "\n".join(part for part in parts if part)


def _front(story: Story) -> str:
    lines = ["library_name: transformers", "pipeline_tag: text-generation", "tags: [ondevice]"]
    if story.recipe.base is not None:
        lines.append(f"base_model: {json.dumps(story.recipe.base.path.rsplit('/', 1)[-1], ensure_ascii=False)}")
    return "\n".join(["---", *lines, "---", ""])


def _section(title: str, facts: dict[str, str]) -> str:
    return "\n".join([f"## {title}\n", *(f"- {name}: {value}" for name, value in facts.items() if value), ""])


def _model(shape: ModelShape) -> dict[str, str]:
    return {
        "layers": f"{shape.layers}, {shape.width} wide, {shape.heads} heads of {shape.head_dim}",
        "key and value heads": f"{shape.kv_heads}",
        "feed-forward": f"{shape.hidden}",
        "vocabulary": f"{shape.vocab_size:,}{', embedding and head tied' if shape.tied else ''}",
        "context": f"{shape.context:,} tokens",
    }


def _data(story: Story) -> dict[str, str]:
    data = story.recipe.data
    return {
        "dataset": f"{data.dataset} (`{data.dataset_sha256[:16]}`), {data.train_tokens:,} tokens to learn from",
        "order": f"{data.order}, seed {data.seed} (`{data.order_sha256[:16]}`)",
        "tokenizer": f"`{data.tokenizer_sha256[:16]}`",
    }


def _sources(sources: tuple[Source, ...]) -> str:
    head = "| source | weight | tokens read | validation loss | perplexity | bits per byte |\n|---|---|---|---|---|---|"
    return "\n".join([head, *(_row(source) for source in sources), ""])


def _row(source: Source) -> str:
    perplexity = None if source.val_loss is None else math.exp(min(source.val_loss, 700.0))
    tokens = "?" if source.trained_tokens is None else f"{source.trained_tokens:,}"
    numbers = " | ".join(_number(each, digits) for each, digits in
                         ((source.val_loss, 4), (perplexity, 2), (source.bits_per_byte, 4)))  # fmt: skip
    name = source.name.replace("|", "\\|")
    return f"| {name} | {source.weight:g} | {tokens} | {numbers} |"


def _number(value: float | None, digits: int) -> str:
    return "?" if value is None else f"{value:.{digits}f}"


def _training(story: Story) -> dict[str, str]:
    train, adapter = story.recipe.train, story.recipe.adapter
    tokens = "" if story.tokens is None else f", {story.tokens:,} tokens"
    loss = "" if story.val_loss is None else f"{story.val_loss:.4f} nats per token at step {story.eval_step:,}"
    return {
        "steps": f"{story.step:,} of {train.steps:,} planned{tokens}",
        "optimizer": f"{train.optimizer}, learning rate {train.lr:g}, {train.schedule}, batch {train.batch}",
        "precision": train.precision,
        "adapter": "" if adapter is None else f"LoRA of rank {adapter.rank}, merged into these weights",
        "validation loss": loss,
        "last training loss": "" if story.train_loss is None else f"{story.train_loss:.4f}",
        "time in steps": f"{story.hours:.2f} hours on {story.machine or 'a machine'}, torch {story.torch}",
        "before that": "; ".join(map(_spent_before, story.ancestors)),
        "time in steps, in all": _hours_in_all(story),
        "energy": "not known: this machine does not tell its power"
        if story.energy_wh is None
        else f"{story.energy_wh:.2f} Wh from the battery, as far as it was read",
        "run": f"{story.run} (`{story.run_id}`), checkpoint `{story.checkpoint_sha256[:16]}`",
    }


def _spent_before(each: Ancestor) -> str:
    """What the run took that this one went on from, up to there."""
    if each.hours is None:
        return f"run {each.run} to step {each.step:,}, whose hours are not known here"
    energy = "" if each.energy_wh is None else f" and {each.energy_wh:.2f} Wh"
    return f"{each.hours:.2f} hours{energy} of run {each.run} to step {each.step:,}"


def _hours_in_all(story: Story) -> str:
    """Empty where nothing came before, or not all of it is known."""
    before = [each.hours for each in story.ancestors]
    known = [hours for hours in before if hours is not None]
    return f"{story.hours + sum(known):.2f} hours" if before and len(known) == len(before) else ""


def _use(story: Story) -> str:
    return f"""## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
ids = tokenizer("Once", return_tensors="pt", add_special_tokens=False)
print(tokenizer.decode(model.generate(**ids, max_new_tokens={min(64, story.recipe.model.context // 2)})[0]))
```
"""
