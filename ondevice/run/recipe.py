"""The decision: `Recipe`, which is what changes the learned weights; what only fits the work to the device is `Fit`
(``ondevice.run.fit``).

A recipe is complete and never changes; it is made once by ``ondevice.train.plan`` and read by everyone. Plain values
and their JSON form; no torch, no derivation.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from ondevice.errors import CheckpointError
from ondevice.run.fit import Fit
from ondevice.run.recipe_data import (
    CurriculumRecipe,
    DataRecipe,
    PartRecipe,
    PartSource,
    StageRecipe,
    data_from_json,
)

__all__ = [
    "RECIPE_VERSION",
    "AdapterParent",
    "AdapterRecipe",
    "Anchor",
    "BaseRecipe",
    "CurriculumRecipe",
    "DataRecipe",
    "EvalRecipe",
    "Fit",
    "ModelShape",
    "PartRecipe",
    "PartSource",
    "Recipe",
    "RopeScaling",
    "SampleRecipe",
    "StageRecipe",
    "TrainRecipe",
    "VocabularyRecipe",
]

RECIPE_VERSION = 8  # since 7 Muon's updates may be computed in another way (``optimizer_state``)
_SINCE = (  # version, section and keys that earlier ones had not
    (2, "train", ("start_step", "start_tokens")),
    (3, "data", ("temperature", "groups", "stages", "parts")),
    (3, "model", ("qkv_bias", "rope_scaling")),
    (4, "eval", ("panel_prompts", "panel_tokens")),
    (4, "data", ("curriculum",)),
    (4, "train", ("clip_scope", "anchors")),
    (5, "train", ("top_layers",)),
    (6, "train", ("average", "init")),
    (6, "adapter", ("parent",)),
    (8, "train", ("compile",)),
)


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How a model was stretched beyond the ``original_context`` it began with: angles ``factor`` times smaller, for
    ``llama3`` only of waves longer than ``original_context / low_frequency`` tokens, with a ramp up to
    ``original_context / high_frequency``."""

    kind: str  # "linear" or "llama3"
    factor: float
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The shape of a decoder. ``hidden`` is the width inside the feed-forward layer; ``qkv_bias`` and ``rope_scaling``
    are Llama's relatives' (Qwen2, Llama 3)."""

    arch: str  # "gpt2" or "llama"
    vocab_size: int
    context: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    hidden: int
    tied: bool = True
    dropout: float = 0.0
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    qkv_bias: bool = False
    rope_scaling: RopeScaling | None = None

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> ModelShape:
        """Reads the dictionary of `dataclasses.asdict`. Raises TypeError, ValueError or AttributeError for others."""
        scaling = raw.get("rope_scaling")
        return cls(**{**raw, "rope_scaling": None if scaling is None else RopeScaling(**scaling)})


@dataclass(frozen=True, kw_only=True)
class BaseRecipe:
    """The model that a run begins with: a folder of Hugging Face, and the hash of its weights as we read them."""

    path: str
    family: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class VocabularyRecipe:
    """Which tokens of its base a run trains with: ``kept`` of them, listed in the run's ``vocabulary.json``, and the
    hash of that list. The rows of all others are the base's, or ``put_aside`` in the run's ``vocabulary.safetensors``.
    """

    kept: int
    sha256: str
    put_aside: bool = False

    def told(self, vocab_size: int) -> str:
        """In a few words, of a whole vocabulary of that size."""
        return f"{self.kept:,} of {vocab_size:,} tokens train"


@dataclass(frozen=True, kw_only=True)
class AdapterParent:
    """The adapter that a run begins with: a folder in PEFT's format, and the hash of the file of its matrices."""

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class AdapterRecipe:
    """Low-rank updates beside frozen matrices, which are kept as ``base_format``; `ondevice.model.lora` says how. They
    begin as nothing, or with those of a ``parent``."""

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    rank_stabilized: bool = False
    base_format: str = "fp32"
    parent: AdapterParent | None = None


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """Where a revision changed how long training is: from ``step`` on the rate goes on from ``lr``; before it the
    schedule was one over ``steps`` with its last ``tail_steps``."""

    step: int
    lr: float
    steps: int
    tail_steps: int


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """How the weights are learned, from ``start_step`` (0, or where a fork left its parent) to ``steps``.

    ``tokens`` = start_tokens + (steps - start_step) x batch x context. The schedule counts from ``start_step``, or from
    the last of the ``anchors`` that revisions left. Of the blocks only the last ``top_layers`` learn (None: everything
    does). What is evaluated, sampled and saved is an average over the last ``average`` of the run's own steps (a share;
    0: the last step's weights). ``compile``: blocks go through compiled kernels, which round otherwise than plain ones.
    """

    steps: int
    tokens: int
    batch: int
    optimizer: str
    optimizer_state: str
    lr: float
    lr_min: float
    schedule: str
    warmup_steps: int
    tail: str
    tail_steps: int
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    clip: float
    seed: int
    precision: str
    start_step: int = 0
    start_tokens: int = 0
    clip_scope: str = "all"
    anchors: tuple[Anchor, ...] = ()
    top_layers: int | None = None
    average: float = 0.0
    init: str = "gpt2"
    compile: bool = False

    @property
    def planned_steps(self) -> int:
        """Steps of this run's own, a parent's not counted."""
        return self.steps - self.start_step


@dataclass(frozen=True, kw_only=True)
class EvalRecipe:
    """Evaluation after each of ``steps`` (0 is before the first update) on at most ``max_tokens`` a source, with
    ``panel_tokens`` written after each of ``panel_prompts`` to see how much it repeats itself."""

    steps: tuple[int, ...]
    max_tokens: int
    panel_prompts: tuple[str, ...] = ()
    panel_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class SampleRecipe:
    """Text written after each of ``steps``."""

    steps: tuple[int, ...]
    prompts: tuple[str, ...]
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The whole decision. ``why`` explains each derived value in a sentence and is not part of the hash.

    ``model`` is the whole model, also where only the rows of a trimmed ``vocabulary`` are trained; ``revises`` has the
    hashes of earlier revisions of a chain, of which parts not begun yet were changed.
    """

    model: ModelShape
    data: DataRecipe
    train: TrainRecipe
    eval: EvalRecipe
    sample: SampleRecipe
    base: BaseRecipe | None = None
    adapter: AdapterRecipe | None = None
    vocabulary: VocabularyRecipe | None = None
    revises: tuple[str, ...] = ()
    v: int = RECIPE_VERSION
    why: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "sha256": self.sha256}

    @property
    def trained(self) -> ModelShape:
        """The shape while it trains: of a trimmed vocabulary its tables have the kept rows alone."""
        kept = self.vocabulary.kept if self.vocabulary is not None else self.model.vocab_size
        return dataclasses.replace(self.model, vocab_size=kept)

    def made(self, sha256: object) -> bool:
        """Whether a recipe with this hash is this one or an earlier revision of it."""
        return sha256 in self.revises or sha256 == self.sha256

    @cached_property
    def sha256(self) -> str:
        """Hash of everything but ``why``; two runs with the same hash and fit learn the same weights."""
        body = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "why"}
        if self.v < 3:
            del body["base"], body["adapter"], body["revises"]
        if self.v < 7:
            del body["vocabulary"]
        for version, section, keys in _SINCE:
            if self.v < version and body.get(section) is not None:
                there = body[section] if isinstance(body[section], dict) else vars(body[section])
                body[section] = {key: value for key, value in there.items() if key not in keys}
        # `vars` where asdict would copy all of a chain's thousands of parts, for the same JSON.
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), default=vars)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def from_json(cls, raw: Any, *, where: str) -> Recipe:
        """Reads `to_json`'s form. Raises CheckpointError for a newer version, missing keys or a wrong hash."""
        version = raw.get("v") if isinstance(raw, dict) else None
        if type(version) is int and version > RECIPE_VERSION:
            raise CheckpointError(
                f"{where}: recipe version {version}, this program reads {RECIPE_VERSION}; update ondevice."
            )
        broken = CheckpointError(f"{where}: not a recipe; restore the file from a copy of the run.")
        if type(version) is not int or version < 1:
            raise broken
        try:
            recipe = cls(
                v=version,
                model=ModelShape.from_json(raw["model"]),
                data=data_from_json(raw["data"]),
                train=_train_from_json(raw["train"]),
                eval=EvalRecipe(**_tuples(raw["eval"])),
                sample=SampleRecipe(**_tuples(raw["sample"])),
                adapter=None if raw.get("adapter") is None else _adapter_from_json(raw["adapter"]),
                base=None if raw.get("base") is None else BaseRecipe(**raw["base"]),
                vocabulary=None if raw.get("vocabulary") is None else VocabularyRecipe(**raw["vocabulary"]),
                revises=tuple(raw.get("revises", ())),
                why=raw.get("why", {}),
            )
            sha256 = recipe.sha256
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise broken from error
        if raw.get("sha256") != sha256:
            raise CheckpointError(f"{where}: the recipe was changed by hand; fork the run to change its recipe.")
        return recipe


def _train_from_json(raw: dict[str, Any]) -> TrainRecipe:
    return TrainRecipe(**{**raw, "anchors": tuple(Anchor(**each) for each in raw.get("anchors", ()))})


def _adapter_from_json(raw: dict[str, Any]) -> AdapterRecipe:
    parent = None if raw.get("parent") is None else AdapterParent(**raw["parent"])
    return AdapterRecipe(**{**_tuples(raw), "parent": parent})


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only; the recipe holds tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
