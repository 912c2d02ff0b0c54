"""The wish: every key a person may write in a config file, with its default, unit and meaning.

``None`` means "derive it for me". Written by people, parsed by `ondevice.run.config`, turned into a decision by
``ondevice.train.plan``. Plain frozen dataclasses: no clock, no disk, no arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "AdapterConfig",
    "BudgetConfig",
    "ChainConfig",
    "CleanConfig",
    "Config",
    "DataConfig",
    "EvalConfig",
    "FitConfig",
    "Limits",
    "ModelConfig",
    "SampleConfig",
    "SourceConfig",
    "StageConfig",
    "TokenizerConfig",
    "TrainConfig",
]

# Beyond these lies a slip of the finger: no device of today gets there, and numbers still fit where they are used.
_LARGEST_SEED = 2**63 - 1
_MANY_STEPS, _MANY_TOKENS = 1_000_000_000, 1_000_000_000_000
_MUCH_MB = 1e7


def _key(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Any:
    """A documented key. ``low``/``high`` are inclusive bounds, ``above`` is an exclusive lower bound."""
    return field(
        default=default,
        metadata={"doc": doc, "unit": unit, "choices": choices, "low": low, "high": high, "above": above},
    )


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One named source of text."""

    path: str = field(
        metadata={"doc": "file or folder to read (~ is expanded; relative to the config file)", "filled": True}
    )
    name: str = _key("", "name in every report; derived from the path where empty")
    format: str = _key(
        "auto",
        "how to read it; auto decides by file name (code: one source per programming language), and takes csv and "
        "markdown for text: declared, csv makes each row a document, markdown drops front matter and comments",
        choices=("auto", "text", "markdown", "jsonl", "csv", "parquet", "code", "html", "epub"),
    )
    language: str = _key("", "language tag such as en, it, tr; for code it is found from the file name")
    weight: float = _key(1.0, "relative share where the order policy uses weights", above=0, high=1e6)
    group: str = _key("", "group of sources that an order treats as one, such as web or wiki; its own where empty")
    document: str = _key(
        "file",
        "what one document of a text file is: the whole file, a paragraph (blank line between), or a line",
        choices=("file", "paragraph", "line"),
    )
    text_field: str = _key("text", "JSONL, CSV, Parquet: the field that holds the text")
    title_field: str = _key("", "JSONL, CSV, Parquet: a field put before the text, kept together with it")
    include: tuple[str, ...] = _key((), "folder: only file names that match one of these patterns (*.md)")
    exclude: tuple[str, ...] = _key((), "folder: no file whose relative path matches one of these patterns")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of a staged order."""

    name: str = field(metadata={"doc": "name of the stage in every report", "filled": True})
    groups: tuple[str, ...] = _key((), "groups, or sources that are in none, that this stage reads")
    share: float | None = _key(
        None, "share of the training; what is left goes to the other stages by their tokens", above=0, high=1.0
    )
    parts: int | None = _key(None, "chain: parts of this stage; by its text where not given", low=1, high=2_000)
    until: str = _key(
        "end",
        "chain: plateau leaves the rest of the stage out when its validation loss stops improving",
        choices=("end", "plateau"),
    )
    replay: float = _key(0.0, "share of this stage that reads groups of the stages before again", low=0.0, high=0.9)


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """Which documents are left out, and Unicode in one form; what is left out is counted by reason."""

    unicode: str = _key(
        "as_is",
        "nfc writes letters with accents in one way (e and an accent become è), and folds nothing: ı and i stay two",
        choices=("as_is", "nfc"),
    )
    min_words: int = _key(0, "leave out documents with fewer words", unit="words", low=0, high=1_000_000)
    max_word_chars: int | None = _key(
        None, "leave out documents that hold a longer word than this", unit="characters", low=1, high=1_000_000
    )
    keep_languages: tuple[str, ...] = _key(
        (), "leave out documents that surely are in a language other than these (tr, it); short ones are never sure"
    )
    drop_languages: tuple[str, ...] = _key((), "leave out documents that surely are in one of these languages")
    near_duplicates: float | None = _key(
        None,
        "leave out documents that share this part of their stretches of five words with an earlier one (0.8); it is "
        "estimated, to within 0.1",
        low=0.3,
        high=0.99,
    )


@dataclass(frozen=True, kw_only=True)
class ChainConfig:
    """Training in parts, each of which is evaluated, verified and kept; parts not begun yet may still change."""

    parts: int = _key(0, "parts to cut the text into, all stages together; 0 trains it in one go", low=0, high=2_000)
    safety: float = _key(
        1.0, "planned steps of a part are this times its tokens / (context x batch)", low=1.0, high=10.0
    )
    retries: int = _key(
        3, "further tries of a part that fails, or kills the trainer, at the same place", low=0, high=100
    )
    on_failure: str = _key("stop", "then stop the chain, or skip what is left of the part", choices=("stop", "skip"))
    patience: int = _key(2, "plateau: parts without improvement before a stage ends", low=1, high=1_000)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which text, how it is split, and in which order it is learned."""

    sources: tuple[SourceConfig, ...] = _key((), "the sources, in order: [[data.sources]] tables")
    split: str = _key(
        "hash:0.05",
        "validation split: hash:F takes a share F of the documents of each source, tail:F its last part",
    )
    order: str = _key(
        "shuffled",
        "order in which windows are learned: shuffled together; sequential or alphabetical source by source; mixed "
        "evenly by weight x tokens (proportional), by weight alone (weighted), all alike (interleaved) or groups alike "
        "(source_balanced); staged by [[data.stages]]",
        choices=(
            "shuffled",
            "sequential",
            "alphabetical",
            "proportional",
            "weighted",
            "interleaved",
            "source_balanced",
            "staged",
        ),
    )
    temperature: float = _key(
        1.0, "proportional, source_balanced, staged: above 1 small sources count for more", low=1.0, high=100.0
    )
    stages: tuple[StageConfig, ...] = _key((), "stages of a staged order, first to last: [[data.stages]] tables")
    seed: int = _key(1337, "seed of the order", low=0, high=_LARGEST_SEED)
    max_unique_tokens: int | None = _key(
        None, "train on at most this many different tokens", unit="tokens", low=1, high=_MANY_TOKENS
    )
    deduplicate: bool = _key(
        True,
        "drop documents that are exact copies of an earlier one; without it a copy may be validated on, where a "
        "source "
        "of fewer than 100 documents is cut into sections",
    )
    bad_utf8: str = _key(
        "skip_line",
        "invalid UTF-8: leave out the line, leave out the document, or refuse the build; always counted",
        choices=("skip_line", "skip_document", "refuse"),
    )
    chunk_tokens: int = _key(262_144, "tokens in one micro-chunk file", unit="tokens", low=1024, high=2**24)
    clean: CleanConfig = CleanConfig()


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How text becomes token ids."""

    kind: str = _key(
        "auto",
        "auto takes bpe where the tokenizers package is installed, else sentencepiece-bpe, else byte",
        choices=("auto", "bpe", "sentencepiece-bpe", "sentencepiece-unigram", "byte", "char"),
    )
    vocab_size: int | None = _key(
        None, "size of a trained vocabulary; derived from the corpus size", low=2, high=1_000_000
    )
    min_frequency: int = _key(2, "bpe, char: a merge or symbol must occur at least this often", low=1, high=1_000_000)
    sample_mb: int = _key(10, "at most this much text is read to train the tokenizer", unit="MB", low=1, high=10_000)
    path: str = _key("", "use this tokenizer instead: a folder, tokenizer.json, or vocab.json next to merges.txt")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of the network."""

    base: str = _key("", "begin with the weights, shape and tokenizer of this model: a Hugging Face folder")
    arch: str = _key("llama", "decoder family", choices=("llama", "gpt2"))
    layers: int | None = _key(None, "number of blocks", low=1, high=1_000)
    width: int | None = _key(None, "width of the residual stream", low=8, high=65_536)
    heads: int | None = _key(None, "attention heads", low=1, high=4_096)
    kv_heads: int | None = _key(None, "key and value heads (llama); equals heads where not given", low=1, high=4_096)
    hidden: int | None = _key(None, "width inside the feed-forward layer", low=8, high=262_144)
    context: int | None = _key(None, "longest sequence", unit="tokens", low=2, high=65_536)
    tied: bool = _key(True, "share the embedding with the output head")
    dropout: float = _key(0.0, "dropout rate", low=0.0, high=0.99)
    rope_theta: float = _key(10_000.0, "base of the rotary embedding (llama)", above=0, high=1e12)
    norm_eps: float = _key(1e-5, "epsilon of the normalization layers", above=0, high=1.0)


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What of a base model learns: everything, or low-rank updates beside frozen matrices."""

    method: str = _key(
        "none", "none trains every weight of model.base; lora trains an adapter and needs it", choices=("none", "lora")
    )
    rank: int = _key(8, "rank of the updates", low=1, high=4_096)
    alpha: float = _key(16.0, "strength of the updates, which are multiplied with alpha / rank", above=0, high=1e6)
    dropout: float = _key(0.0, "dropout on the way into the updates", low=0.0, high=0.99)
    targets: tuple[str, ...] = _key(
        (), "matrices, as PEFT names them (q_proj, v_proj ...; c_attn ...); queries and values where empty"
    )
    rank_stabilized: bool = _key(False, "multiply with alpha / sqrt(rank), which suits large ranks")
    base_format: str = _key(
        "fp32",
        "how the frozen matrices are kept: nf4 and int4 take an eighth of the memory, int8 a quarter, bf16 half; each "
        "with an error, fp32 without (the embedding never has fewer than 8 bits)",
        choices=("fp32", "bf16", "int8", "int4", "nf4"),
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the weights are learned."""

    tokens: int | None = _key(
        None, "token budget: stops at the first step at or past it", unit="tokens", low=1, high=_MANY_TOKENS
    )
    steps: int | None = _key(None, "optimizer steps; give either tokens, steps or epochs", low=1, high=_MANY_STEPS)
    epochs: float | None = _key(None, "passes over the training tokens", above=0, high=1e6)
    batch: int | None = _key(None, "sequences in one optimizer step (the effective batch)", low=1, high=65_536)
    optimizer: str = _key(
        "muon",
        "optimizer; muon takes orthogonal updates for the matrices inside the blocks and AdamW for the rest",
        choices=("adamw", "muon"),
    )
    optimizer_state: str = _key(
        "fp32",
        "how adamw keeps its two averages; int8 takes a quarter of the memory, with an error of a few percent",
        choices=("fp32", "int8"),
    )
    lr: float | None = _key(None, "peak learning rate; derived from the width", above=0, high=1e30)
    lr_min: float | None = _key(None, "final learning rate; a tenth of lr where not given", low=0, high=1e30)
    schedule: str = _key(
        "cosine",
        "shape of the learning rate; wsd keeps the peak and decays in a tail",
        choices=("constant", "linear", "cosine", "wsd"),
    )
    warmup_steps: int | None = _key(
        None, "steps of linear warmup; derived from the number of steps", low=0, high=_MANY_STEPS
    )
    tail: str = _key(
        "inverse-proportional",
        "wsd: shape of the decay tail",
        choices=("inverse-proportional", "linear", "cosine", "1-sqrt"),
    )
    tail_fraction: float = _key(0.1, "wsd: share of the steps spent in the tail", low=0.0, high=1.0)
    weight_decay: float = _key(0.1, "decay of matrices (never of norms, biases)", low=0.0, high=1_000.0)
    beta1: float = _key(0.9, "AdamW beta1", low=0.0, high=0.9999)
    beta2: float = _key(0.99, "AdamW beta2", low=0.0, high=0.999999)
    eps: float = _key(1e-8, "AdamW epsilon", above=0, high=1.0)
    clip: float = _key(1.0, "largest gradient norm; 0 turns clipping off", low=0.0, high=1e9)
    seed: int = _key(1337, "seed of initialisation and dropout", low=0, high=_LARGEST_SEED)
    precision: str = _key(
        "auto",
        "arithmetic of the matrix products; auto takes bf16 only where a timed probe proves it faster",
        choices=("auto", "fp32", "bf16"),
    )


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """The one dial: what is not given elsewhere is derived from this."""

    minutes: float | None = _key(
        None, "time to spend; becomes tokens once, by a probe", unit="minutes", above=0, high=1e6
    )
    memory_mb: float | None = _key(None, "memory the whole process may use", unit="MB", above=0, high=_MUCH_MB)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How often and on how much text the model is measured."""

    count: int = _key(21, "evaluations over the run, first and last included; 0 turns them off", low=0, high=10_000)
    max_tokens: int | None = _key(
        None,
        "validation tokens per source at each evaluation; 0 takes all; derived so that evaluating takes about 5 % of "
        "the run",
        unit="tokens",
        low=0,
        high=_MANY_TOKENS,
    )


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """The text the model writes during training and when asked."""

    prompts: tuple[str, ...] = _key((), "prompts of the samples during training; the corpus gives one where empty")
    count: int = _key(5, "samples over the run; 0 turns them off", low=0, high=10_000)
    max_new_tokens: int = _key(64, "length of a sample", unit="tokens", low=1, high=100_000)
    temperature: float = _key(0.8, "0 always takes the likeliest token", low=0.0, high=1_000.0)
    top_k: int = _key(50, "choose among the k likeliest tokens; 0 means all", low=0, high=1_000_000)
    top_p: float = _key(0.95, "choose among the likeliest tokens that share this probability", above=0, high=1.0)
    repetition_penalty: float = _key(1.0, "above 1 makes tokens already seen less likely", above=0, high=1_000.0)
    seed: int = _key(1, "seed of the sampling", low=0, high=_LARGEST_SEED)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How the work is cut to fit the device; never changes what is learned."""

    micro_batch: int | None = _key(None, "sequences in one forward and backward pass", low=1, high=65_536)
    threads: int | None = _key(None, "threads of the arithmetic", low=1, high=256)
    activation_checkpointing: bool | None = _key(None, "compute activations twice instead of keeping them")
    loss_chunk_tokens: int = _key(512, "tokens whose logits exist at the same time", unit="tokens", low=16, high=2**20)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How politely the run behaves; may change at any moment and never changes what is learned."""

    fixed_fit: bool = _key(False, "never change the fit, whatever happens")
    save_every_s: float = _key(
        300.0, "longest time between checkpoints while saving is cheap", unit="s", above=0, high=1e6
    )
    save_every_steps: int | None = _key(
        None, "also save at every multiple of this step, for forks and tails", unit="steps", low=1, high=1e9
    )
    save_in_background: bool = _key(False, "copy the state and write it while training goes on, where memory allows")
    keep_last: int = _key(3, "newest checkpoints to keep, ready to go on from (at least 2)", low=2, high=10_000)
    keep_every_steps: int | None = _key(
        None, "also keep the first checkpoint at or past every multiple of this step", unit="steps", low=1, high=1e9
    )
    keep_best: int = _key(1, "also keep this many with the lowest validation loss", low=0, high=10_000)
    keep_best_quality: int = _key(1, "also keep this many with the highest quality score", low=0, high=10_000)
    drop_old_optimizer: bool = _key(
        True, "older kept checkpoints lose their optimizer state, which only training needs; pinned ones keep it"
    )
    min_free_disk_mb: float = _key(200.0, "free disk that must remain after a save", unit="MB", low=0, high=_MUCH_MB)
    max_rss_mb: float | None = _key(
        None, "save and leave when the process grows beyond this", unit="MB", above=0, high=_MUCH_MB
    )
    preset: str = _key(
        "auto",
        "the manners of keys left out; auto takes balanced for a phone and desk for everything else",
        choices=("auto", "gentle", "balanced", "plugged-overnight", "desk"),
    )
    max_battery_c: float | None = _key(
        None, "warmest battery; work is spread so that it stays a little under", unit="C", low=20, high=60
    )
    max_skin_c: float | None = _key(None, "warmest body of a phone", unit="C", low=20, high=70)
    max_cpu_c: float | None = _key(None, "hottest processor while it works", unit="C", low=40, high=110)
    max_headroom: float | None = _key(
        None, "Android's own heat scale, where 1 is severe; used where it can be read", low=0.3, high=1.0
    )
    resume_battery_c: float | None = _key(
        None, "after a stop for heat, work begins again below this; 3 under the warmest", unit="C", low=10, high=60
    )
    back_off_s: float | None = _key(None, "and not before this time has passed", unit="s", low=0, high=86_400)
    duty_max: float | None = _key(None, "largest share of the time spent working", above=0, high=1.0)
    max_slowdown: float | None = _key(
        None, "work less while a step takes this many times what it took on the cold device", low=1.02, high=10.0
    )
    plugged_only: bool | None = _key(None, "work only on the charger; plugged but falling counts as unplugged")
    battery_floor_percent: float | None = _key(
        None, "below this charge wait for the charger", unit="%", low=0, high=100
    )
    charge_target_percent: float | None = _key(
        None, "after a wait for the charger, work again from this charge on", unit="%", low=0, high=100
    )
    hours: str | None = _key(
        None, "when to work, in local time: 22:30-06:45, or mon-fri 22:30-06:45, sat 00:00-24:00; always"
    )
    pause_when_screen_on: bool | None = _key(None, "wait while someone uses the device, where that can be read")
    min_available_share: float | None = _key(
        None, "below this share of free memory save and make the fit smaller", low=0.0, high=0.9
    )
    price_per_kwh: float | None = _key(
        None, "what a kilowatt-hour costs, in your money; only for the forecast", unit="per kWh", above=0, high=1e6
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole config file."""

    name: str = _key("", "name of the run; derived from the data where empty")
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    chain: ChainConfig = field(default_factory=ChainConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    limits: Limits = field(default_factory=Limits)
