"""The wish: every key a person may write in a config file, with its default, unit and meaning.

``None`` means "derive it for me". Written by people, parsed by `ondevice.run.config`, turned into a decision by
``ondevice.train.plan``. Plain frozen dataclasses: no clock, no disk, no arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ondevice.run.schema_data import (
    ChainConfig,
    CleanConfig,
    CurriculumConfig,
    DataConfig,
    ItemsConfig,
    SourceConfig,
    StageConfig,
    TokenizerConfig,
)
from ondevice.run.schema_key import LARGEST_SEED, MANY_STEPS, MANY_TOKENS, MUCH_MB, key

__all__ = [
    "LIMITS_VERSION",
    "TAILS",
    "AdapterConfig",
    "BudgetConfig",
    "ChainConfig",
    "CleanConfig",
    "Config",
    "CurriculumConfig",
    "DataConfig",
    "EvalConfig",
    "FitConfig",
    "ItemsConfig",
    "Limits",
    "ModelConfig",
    "SampleConfig",
    "SourceConfig",
    "StageConfig",
    "TokenizerConfig",
    "TrainConfig",
]

LIMITS_VERSION = 1  # of a run's limits.json
TAILS = ("inverse-proportional", "linear", "cosine", "1-sqrt")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of the network."""

    base: str = key(
        "", "begin with the weights, shape and tokenizer of this model: a Hugging Face folder, or what pull fetched"
    )
    adapter: str = key(
        "",
        "go on with the adapter in this folder (PEFT's format, as export and package write it) instead of a new one; "
        "rank, alpha and targets are its own; needs adapter.method = 'lora'",
    )
    vocabulary: str = key(
        "full",
        "tokens of model.base that train; trimmed leaves out those that do not occur in the data, with their memory: "
        "the softmax is over the rest, and what is exported has every token again, those left out as in the base",
        choices=("full", "trimmed"),
    )
    arch: str = key("llama", "decoder family", choices=("llama", "gpt2"))
    layers: int | None = key(None, "number of blocks", low=1, high=1_000)
    width: int | None = key(None, "width of the residual stream", low=8, high=65_536)
    heads: int | None = key(None, "attention heads", low=1, high=4_096)
    kv_heads: int | None = key(None, "key and value heads (llama); equals heads where not given", low=1, high=4_096)
    hidden: int | None = key(None, "width inside the feed-forward layer", low=8, high=262_144)
    context: int | None = key(None, "longest sequence", unit="tokens", low=2, high=65_536)
    tied: bool = key(True, "share the embedding with the output head")
    dropout: float = key(0.0, "dropout rate", low=0.0, high=0.99)
    rope_theta: float = key(10_000.0, "base of the rotary embedding (llama)", above=0, high=1e12)
    norm_eps: float = key(1e-5, "epsilon of the normalization layers", above=0, high=1.0)


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What of a base model learns: everything, or low-rank updates beside frozen matrices."""

    method: str = key(
        "none", "none trains every weight of model.base; lora trains an adapter and needs it", choices=("none", "lora")
    )
    rank: int | None = key(None, "rank of the updates; 8 where not given", low=1, high=4_096)
    alpha: float | None = key(
        None,
        "strength of the updates, which are multiplied with alpha / rank; 16 where not given",
        above=0,
        high=1e6,
    )
    dropout: float = key(0.0, "dropout on the way into the updates", low=0.0, high=0.99)
    targets: tuple[str, ...] = key(
        (), "matrices, as PEFT names them (q_proj, v_proj ...; c_attn ...); queries and values where empty"
    )
    rank_stabilized: bool | None = key(
        None, "multiply with alpha / sqrt(rank), which suits large ranks; false where not given"
    )
    base_format: str = key(
        "fp32",
        "how the frozen matrices are kept: nf4 and int4 take an eighth of the memory, int8 a quarter, bf16 half; each "
        "with an error, fp32 without (the embedding never has fewer than 8 bits)",
        choices=("fp32", "bf16", "int8", "int4", "nf4"),
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the weights are learned."""

    tokens: int | None = key(
        None, "token budget: stops at the first step at or past it", unit="tokens", low=1, high=MANY_TOKENS
    )
    steps: int | None = key(None, "optimizer steps; give either tokens, steps or epochs", low=1, high=MANY_STEPS)
    epochs: float | None = key(None, "passes over the training tokens", above=0, high=1e6)
    batch: int | None = key(None, "sequences in one optimizer step (the effective batch)", low=1, high=65_536)
    optimizer: str = key(
        "muon",
        "optimizer; muon takes orthogonal updates for the matrices inside the blocks and AdamW for the rest",
        choices=("adamw", "muon"),
    )
    optimizer_state: str = key(
        "fp32",
        "how adamw keeps its two averages; int8 takes a quarter of the memory, with an error of a few percent",
        choices=("fp32", "int8"),
    )
    weights: str = key(
        "fp32",
        "how adamw keeps the matrices that learn; bf16 takes half the memory of weights and gradients, and rounds each "
        "update up or down by chance, so that on average nothing is lost",
        choices=("fp32", "bf16"),
    )
    lr: float | None = key(None, "peak learning rate; derived from the width", above=0, high=1e30)
    lr_min: float | None = key(None, "final learning rate; a tenth of lr where not given", low=0, high=1e30)
    schedule: str = key(
        "cosine",
        "shape of the learning rate; wsd keeps the peak and decays in a tail; ramp climbs from lr_min to lr, for range "
        "tests",
        choices=("constant", "linear", "cosine", "wsd", "ramp"),
    )
    warmup_steps: int | None = key(
        None, "steps of linear warmup; derived from the number of steps", low=0, high=MANY_STEPS
    )
    tail: str = key(
        TAILS[0],
        "wsd: shape of the decay tail",
        choices=TAILS,
    )
    tail_fraction: float = key(0.1, "wsd: share of the steps spent in the tail", low=0.0, high=1.0)
    weight_decay: float = key(0.1, "decay of matrices (never of norms, biases)", low=0.0, high=1_000.0)
    beta1: float = key(0.9, "AdamW beta1", low=0.0, high=0.9999)
    beta2: float = key(0.99, "AdamW beta2", low=0.0, high=0.999999)
    eps: float = key(1e-8, "AdamW epsilon", above=0, high=1.0)
    clip: float = key(1.0, "largest gradient norm; 0 turns clipping off", low=0.0, high=1e9)
    clip_scope: str = key(
        "all",
        "what clip bounds: the norm of all gradients together, or that of each tensor by itself, which a layerwise fit "
        "need not wait for",
        choices=("all", "tensor"),
    )
    top_layers: int | None = key(
        None,
        "blocks from the last on that learn, with the final norm and a head of its own; what is below them, the "
        "embedding too, stays as the base has it (all learn)",
        low=1,
        high=1_000,
    )
    average: float = key(
        0.0,
        "evaluate, sample and save an average of the weights over this share of the steps so far (0.1: the last tenth) "
        "while training goes on from its own; 0 turns it off and spares the memory of one copy",
        low=0.0,
        high=1.0,
    )
    init: str = key(
        "gpt2",
        "first weights: gpt2 draws all at one size; fan-in goes by a matrix's columns, and blocks begin as nothing",
        choices=("gpt2", "fan-in"),
    )
    seed: int = key(1337, "seed of initialisation and dropout", low=0, high=LARGEST_SEED)
    precision: str = key(
        "auto",
        "arithmetic of the matrix products; auto takes bf16 only where a timed probe proves it faster",
        choices=("auto", "fp32", "bf16"),
    )
    compile: bool = key(
        False,
        "have torch compile the blocks, on laptops with a C++ compiler for plain steps of whole models; a tenth faster "
        "at 1 M parameters, hardly at 10 M, and rounds otherwise; takes half a minute or more at a first launch",
    )


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """The one dial: what is not given elsewhere is derived from this."""

    minutes: float | None = key(
        None, "time to spend; becomes tokens once, by a probe", unit="minutes", above=0, high=1e6
    )
    memory_mb: float | None = key(None, "memory the whole process may use", unit="MB", above=0, high=MUCH_MB)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How often and on how much text the model is measured."""

    count: int = key(21, "evaluations over the run, first and last included; 0 turns them off", low=0, high=10_000)
    max_tokens: int | None = key(
        None,
        "validation tokens per source at each evaluation; 0 takes all; derived so that evaluating takes about 3.5 % of "
        "the run",
        unit="tokens",
        low=0,
        high=MANY_TOKENS,
    )
    panel: int | None = key(
        None,
        "texts written at each evaluation, to see whether the model repeats itself; at most 8, derived so that they "
        "take about 1 % of the run; 0 turns them off",
        low=0,
        high=64,
    )
    panel_tokens: int = key(48, "length of these texts", unit="tokens", low=8, high=1_024)


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """The text the model writes during training and when asked."""

    prompts: tuple[str, ...] = key((), "prompts of the samples during training; the corpus gives one where empty")
    count: int = key(5, "samples over the run; 0 turns them off", low=0, high=10_000)
    max_new_tokens: int = key(64, "length of a sample", unit="tokens", low=1, high=100_000)
    temperature: float = key(0.8, "0 always takes the likeliest token", low=0.0, high=1_000.0)
    top_k: int = key(50, "choose among the k likeliest tokens; 0 means all", low=0, high=1_000_000)
    top_p: float = key(0.95, "choose among the likeliest tokens that share this probability", above=0, high=1.0)
    repetition_penalty: float = key(1.0, "above 1 makes tokens already seen less likely", above=0, high=1_000.0)
    seed: int = key(1, "seed of the sampling", low=0, high=LARGEST_SEED)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How the work is cut to fit the device; never changes what is learned."""

    micro_batch: int | None = key(None, "sequences in one forward and backward pass", low=1, high=65_536)
    threads: int | None = key(None, "threads of the arithmetic", low=1, high=256)
    activation_checkpointing: bool | None = key(None, "compute activations twice instead of keeping them")
    probe: bool | None = key(
        None,
        "before a run is made, let one real step in a process of its own show its memory, and take a leaner fit where "
        "that is too much; done for fine-tunes whose estimate is near a budget that was given",
    )
    frozen_cache: bool = key(
        False,
        "keep what the blocks below train.top_layers give for each row of examples in a file of the run, and read it "
        "in later passes; the same bits, for 4 bytes a number on the disk",
    )
    loss_chunk_tokens: int = key(512, "tokens whose logits exist at the same time", unit="tokens", low=16, high=2**20)
    layerwise: bool | None = key(
        None, "use gradients block by block inside the backward pass; derived where memory is short"
    )
    kept_blocks: int | None = key(
        None, "layerwise: so many last blocks keep their activations, the others compute them twice", low=0, high=1_000
    )
    repeated_blocks: int | None = key(
        None,
        "layerwise: so many last blocks compute their gradients twice rather than hold them until their norm is known",
        low=0,
        high=1_000,
    )


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How politely the run behaves; may change at any moment and never changes what is learned."""

    fixed_fit: bool = key(False, "never change the fit, whatever happens")
    save_every_s: float = key(
        300.0, "longest time between checkpoints while saving is cheap", unit="s", above=0, high=1e6
    )
    save_every_steps: int | None = key(
        None, "also save at every multiple of this step, for forks and tails", unit="steps", low=1, high=1e9
    )
    save_in_background: bool = key(False, "copy the state and write it while training goes on, where memory allows")
    keep_last: int = key(3, "newest checkpoints to keep, ready to go on from (at least 2)", low=2, high=10_000)
    keep_every_steps: int | None = key(
        None, "also keep the first checkpoint at or past every multiple of this step", unit="steps", low=1, high=1e9
    )
    keep_best: int = key(1, "also keep this many with the lowest validation loss", low=0, high=10_000)
    keep_best_quality: int = key(1, "also keep this many with the highest quality score", low=0, high=10_000)
    drop_old_optimizer: bool = key(
        True, "older kept checkpoints lose their optimizer state, which only training needs; pinned ones keep it"
    )
    min_free_disk_mb: float = key(200.0, "free disk that must remain after a save", unit="MB", low=0, high=MUCH_MB)
    max_rss_mb: float | None = key(
        None, "save and leave when the process grows beyond this", unit="MB", above=0, high=MUCH_MB
    )
    preset: str = key(
        "auto",
        "the manners of keys left out; auto takes balanced for a phone and desk for everything else",
        choices=("auto", "gentle", "balanced", "plugged-overnight", "desk"),
    )
    max_battery_c: float | None = key(
        None, "warmest battery; work is spread so that it stays a little under", unit="C", low=20, high=60
    )
    max_skin_c: float | None = key(None, "warmest body of a phone", unit="C", low=20, high=70)
    max_cpu_c: float | None = key(None, "hottest processor while it works", unit="C", low=40, high=110)
    max_headroom: float | None = key(
        None, "Android's own heat scale, where 1 is severe; used where it can be read", low=0.3, high=1.0
    )
    resume_battery_c: float | None = key(
        None, "after a stop for heat, work begins again below this; 3 under the warmest", unit="C", low=10, high=60
    )
    back_off_s: float | None = key(None, "and not before this time has passed", unit="s", low=0, high=86_400)
    duty_max: float | None = key(None, "largest share of the time spent working", above=0, high=1.0)
    max_slowdown: float | None = key(
        None, "work less while a step takes this many times what it took on the cold device", low=1.02, high=10.0
    )
    plugged_only: bool | None = key(None, "work only on the charger; plugged but falling counts as unplugged")
    battery_floor_percent: float | None = key(None, "below this charge wait for the charger", unit="%", low=0, high=100)
    charge_target_percent: float | None = key(
        None, "after a wait for the charger, work again from this charge on", unit="%", low=0, high=100
    )
    hours: str | None = key(
        None, "when to work, in local time: 22:30-06:45, or mon-fri 22:30-06:45, sat 00:00-24:00; always"
    )
    pause_when_screen_on: bool | None = key(None, "wait while someone uses the device, where that can be read")
    min_available_share: float | None = key(
        None, "below this share of free memory save and make the fit smaller", low=0.0, high=0.9
    )
    price_per_kwh: float | None = key(
        None, "what a kilowatt-hour costs, in your money; only for the forecast", unit="per kWh", above=0, high=1e6
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole config file."""

    name: str = key("", "name of the run; derived from the data where empty")
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
