"""The wish's keys on text: its sources, cleaning, order, stages and parts, and how it becomes tokens.

Part of `ondevice.run.schema`, which everyone imports. Plain frozen dataclasses: no clock, no disk, no arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ondevice.run.schema_key import LARGEST_SEED, MANY_TOKENS, key

__all__ = [
    "ChainConfig",
    "CleanConfig",
    "CurriculumConfig",
    "DataConfig",
    "ItemsConfig",
    "SourceConfig",
    "StageConfig",
    "TokenizerConfig",
]


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One named source of text."""

    path: str = field(
        metadata={"doc": "file or folder to read (~ is expanded; relative to the config file)", "filled": True}
    )
    name: str = key("", "name in every report; derived from the path where empty")
    format: str = key(
        "auto",
        "how to read it; auto decides by file name (code: one source per programming language), and takes csv and "
        "markdown for text: declared, csv makes each row a document, markdown drops front matter and comments",
        choices=("auto", "text", "markdown", "jsonl", "csv", "parquet", "code", "html", "epub"),
    )
    language: str = key("", "language tag such as en, it, tr; for code it is found from the file name")
    weight: float = key(1.0, "relative share where the order policy uses weights", above=0, high=1e6)
    group: str = key("", "group of sources that an order treats as one, such as web or wiki; its own where empty")
    document: str = key(
        "file",
        "what one document of a text file is: the whole file, a paragraph (blank line between), or a line",
        choices=("file", "paragraph", "line"),
    )
    text_field: str = key("text", "JSONL, CSV, Parquet: the field that holds the text")
    title_field: str = key("", "JSONL, CSV, Parquet: a field put before the text, kept together with it")
    score_field: str = key("", "JSONL, CSV, Parquet: the field that holds a row's score, a number, for a curriculum")
    score: float | None = key(
        None, "score of every document of a source without score_field, for a curriculum", low=-1e12, high=1e12
    )
    include: tuple[str, ...] = key((), "folder: only file names that match one of these patterns (*.md)")
    exclude: tuple[str, ...] = key((), "folder: no file whose relative path matches one of these patterns")
    files: tuple[str, ...] = key((), "folder: these files alone, by relative path, such as those that came later")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of a staged order."""

    name: str = field(metadata={"doc": "name of the stage in every report", "filled": True})
    groups: tuple[str, ...] = key((), "groups, or sources that are in none, that this stage reads")
    share: float | None = key(
        None,
        "share of the training; what is left goes to the other stages by their tokens; not in a chain, which reads all",
        above=0,
        high=1.0,
    )
    parts: int | None = key(None, "chain: parts of this stage; by its text where not given", low=1, high=20_000)
    until: str = key(
        "end",
        "chain: plateau leaves the rest of the stage out when its validation loss stops improving",
        choices=("end", "plateau"),
    )
    replay: float = key(0.0, "share of this stage that reads groups of the stages before again", low=0.0, high=0.9)


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """Which documents are left out, and Unicode in one form; what is left out is counted by reason."""

    unicode: str = key(
        "as_is",
        "nfc writes letters with accents in one way (e and an accent become è), and folds nothing: ı and i stay two",
        choices=("as_is", "nfc"),
    )
    min_words: int = key(0, "leave out documents with fewer words", unit="words", low=0, high=1_000_000)
    max_word_chars: int | None = key(
        None, "leave out documents that hold a longer word than this", unit="characters", low=1, high=1_000_000
    )
    keep_languages: tuple[str, ...] = key(
        (), "leave out documents that surely are in a language other than these (tr, it); short ones are never sure"
    )
    drop_languages: tuple[str, ...] = key((), "leave out documents that surely are in one of these languages")
    near_duplicates: float | None = key(
        None,
        "leave out documents that share this part of their stretches of five words with an earlier one (0.8); it is "
        "estimated, to within 0.1",
        low=0.3,
        high=0.99,
    )


@dataclass(frozen=True, kw_only=True)
class ItemsConfig:
    """Long documents cut into training items, each followed by end-of-text; off unless ``max_tokens`` is given."""

    max_tokens: int | None = key(
        None,
        "cut documents into items of at most this many tokens: at paragraphs, else sentences, else lines; code before "
        "definitions, else at blank lines",
        unit="tokens",
        low=8,
        high=1_000_000,
    )
    min_tokens: int | None = key(
        None,
        "no item is shorter, unless its whole document is; a quarter of max_tokens where not given",
        unit="tokens",
        low=1,
        high=500_000,
    )
    overlap_tokens: int = key(
        0,
        "where a sentence is longer than an item, the next one repeats up to this many tokens of it, for training only",
        unit="tokens",
        low=0,
        high=250_000,
    )


@dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """How the order ``curriculum`` ranks windows, and how strictly it keeps to that."""

    by: str = key(
        "length",
        "rank by the length of the documents or items that a window holds, or by their score (score_field or score of "
        "the sources); the mean over its tokens",
        choices=("length", "score"),
    )
    direction: str = key(
        "ascending",
        "short or low scores first, or long or high scores first",
        choices=("ascending", "descending"),
    )
    mixing: float = key(
        0.0,
        "0 keeps strictly to the ranks; up to 1, more and more of what comes first is held back, so that training goes "
        "from easy to mixed",
        low=0.0,
        high=1.0,
    )
    afterwards: str = key(
        "shuffled", "the passes after the first one: shuffled, or ranked again", choices=("shuffled", "ranked")
    )


@dataclass(frozen=True, kw_only=True)
class ChainConfig:
    """Training in parts, each of which is evaluated, verified and kept; parts not begun yet may still change."""

    parts: int = key(0, "parts to cut the text into, all stages together; 0 trains it in one go", low=0, high=20_000)
    safety: float = key(
        1.0, "planned steps of a part are this times its tokens / (context x batch)", low=1.0, high=10.0
    )
    retries: int = key(
        3, "further tries of a part that fails, or kills the trainer, at the same place", low=0, high=100
    )
    on_failure: str = key("stop", "then stop the chain, or skip what is left of the part", choices=("stop", "skip"))
    patience: int = key(2, "plateau: parts without improvement before a stage ends", low=1, high=1_000)
    grow: bool = key(False, "new files in the folders of the sources become parts: looked for at each start and end")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which text, how it is split, and in which order it is learned."""

    sources: tuple[SourceConfig, ...] = key((), "the sources, in order: [[data.sources]] tables")
    split: str = key(
        "hash:0.05",
        "validation split: hash:F takes a share F of the documents of each source, tail:F its last part",
    )
    order: str = key(
        "shuffled",
        "order in which windows are learned: shuffled together; sequential or alphabetical source by source; mixed "
        "evenly by weight x tokens (proportional), by weight alone (weighted), all alike (interleaved) or groups alike "
        "(source_balanced); curriculum by length or score, as [data.curriculum] says; staged by [[data.stages]]",
        choices=(
            "shuffled",
            "sequential",
            "alphabetical",
            "proportional",
            "weighted",
            "interleaved",
            "source_balanced",
            "curriculum",
            "staged",
        ),
    )
    temperature: float = key(
        1.0, "proportional, source_balanced, staged: above 1 small sources count for more", low=1.0, high=100.0
    )
    stages: tuple[StageConfig, ...] = key((), "stages of a staged order, first to last: [[data.stages]] tables")
    seed: int = key(1337, "seed of the order", low=0, high=LARGEST_SEED)
    max_unique_tokens: int | None = key(
        None, "train on at most this many different tokens", unit="tokens", low=1, high=MANY_TOKENS
    )
    deduplicate: bool = key(
        True,
        "drop documents that are exact copies of an earlier one; without it a copy may be validated on, where a "
        "source "
        "of fewer than 100 documents is cut into sections",
    )
    bad_utf8: str = key(
        "skip_line",
        "invalid UTF-8: leave out the line, leave out the document, or refuse the build; always counted",
        choices=("skip_line", "skip_document", "refuse"),
    )
    examples: str = key(
        "auto",
        "what JSONL rows are: instruction (instruction, input, output), chat (messages), completion (prompt, "
        "completion), of which only the answers are learned; off reads them as plain text; auto decides by the fields",
        choices=("auto", "off", "instruction", "chat", "completion"),
    )
    contract: str = key(
        "", "refuse to build from examples that break this contract (contract.toml); `ondevice data check` shows all"
    )
    too_long: str = key(
        "keep_end",
        "examples longer than model.context: keep_end drops the beginning of the prompt, drop leaves them out; one "
        "whose answer alone is too long is always left out",
        choices=("keep_end", "drop"),
    )
    chunk_tokens: int = key(262_144, "tokens in one micro-chunk file", unit="tokens", low=1024, high=2**24)
    clean: CleanConfig = CleanConfig()
    items: ItemsConfig = ItemsConfig()
    curriculum: CurriculumConfig = CurriculumConfig()


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How text becomes token ids."""

    kind: str = key(
        "auto",
        "auto takes bpe where the tokenizers package is installed, else sentencepiece-bpe, else byte",
        choices=("auto", "bpe", "sentencepiece-bpe", "sentencepiece-unigram", "byte", "char"),
    )
    vocab_size: int | None = key(
        None, "size of a trained vocabulary; derived from the corpus size", low=2, high=1_000_000
    )
    min_frequency: int = key(2, "bpe, char: a merge or symbol must occur at least this often", low=1, high=1_000_000)
    sample_mb: int = key(10, "at most this much text is read to train the tokenizer", unit="MB", low=1, high=10_000)
    path: str = key("", "use this tokenizer instead: a folder, tokenizer.json, or vocab.json next to merges.txt")
