"""From declared sources to a dataset: scan, tokenizer, chunks, and last the manifest.

Repeating a build that was killed goes on where it stopped; repeating a finished one does nothing; a source that
changed rebuilds only its own chunks. Everything is a pure function of the sources, the config and the tokenizer.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any

from ondevice.data.build_folder import remove_leftovers, unused_folder
from ondevice.data.build_manifest import given_items, joined, source_entry, totals_of
from ondevice.data.build_plan import FEW_DOCUMENTS, Dropped, SourcePlan, find_duplicates, find_near
from ondevice.data.build_scan import Scan, full_disk, list_content, mask_digest, scan_files, scan_source
from ondevice.data.build_tokenizer import existing_tokenizer, new_tokenizer, tokenizer_of_texts
from ondevice.data.build_tokens import finished_record, tokenise_source
from ondevice.data.chat import same_ids
from ondevice.data.clean import check_clean
from ondevice.data.dataset import (
    MANIFEST,
    MANIFEST_VERSION,
    Dataset,
    earlier_manifest,
    seal_manifest,
    tokens_hash,
)
from ondevice.data.documents import Problems
from ondevice.data.examples_build import ExampleWish, example_wish, refuse_examples, tokenise_examples
from ondevice.data.items import check_items
from ondevice.data.kept import KeptFile
from ondevice.data.piece import kept_scans, scan_names
from ondevice.data.split import parse_split
from ondevice.data.tokenizer import Tokenizer, import_tokenizer
from ondevice.data.tokenizer_base import content_hash
from ondevice.errors import DataError, DeviceError, RunBusy
from ondevice.run.files import fsync_folder, read_json, write_json
from ondevice.run.schema import DataConfig, TokenizerConfig

__all__ = ["Progress", "build_beside", "build_dataset", "train_from_sources"]

Progress = Callable[[int, int, str], None]
"""``progress(done_bytes, total_bytes, phase)``; phases are ``scan``, ``tokenizer`` and ``tokens``."""

_LOCK = "build.lock"


def build_dataset(
    data: DataConfig,
    tokenizer: TokenizerConfig,
    *,
    base: Path,
    folder: Path,
    progress: Progress | None = None,
    retrain: bool = False,
    verify: bool = True,
    keep: Collection[str] = (),
) -> Dataset:
    """Builds or completes the dataset in ``folder``; relative paths in the config start at ``base``.

    ``retrain`` trains the tokenizer anew although there is one; ``verify`` compares existing chunks with their hashes
    and makes damaged ones again. Raises DataError (sources, vocabulary), ResourceError (disk full), RunBusy (another
    build in this folder), DeviceError (a package is missing).

    >>> build_dataset(config.data, config.tokenizer, base=Path("."), folder=Path("datasets/notes")).sources[0].name
    'notes'
    """
    build = _Build(data, tokenizer, base, folder, progress or (lambda *_: None))
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder), full_disk(folder):
        if not retrain and (finished := build.finished(verify=verify)):
            return finished
        build.run(retrain=retrain, verify=verify, keep=keep)
        return Dataset.open(folder)


def build_beside(
    dataset: Dataset, data: DataConfig, *, base: Path, least_tokens: int = 1, progress: Progress | None = None
) -> Dataset | None:
    """The dataset and, as sources of their own beside it, those of ``data``: in its vocabulary, without what it has
    already, and without touching a chunk of it. None where they have fewer than ``least_tokens`` to train on.

    Repeating one that was killed goes on where it stopped. Raises as a build does.
    """
    folder = dataset.folder
    with _locked(folder), full_disk(folder):
        build = _Build(data, TokenizerConfig(), base, folder, progress or (lambda *_: None))
        return build.beside(dataset, least_tokens)


def train_from_sources(
    data: DataConfig, tokenizer: TokenizerConfig, *, base: Path, folder: Path, progress: Progress | None = None
) -> Tokenizer:
    """Trains the tokenizer a dataset of these sources would get, and saves it in ``folder``. Raises as a build does."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder.parent) as scratch, full_disk(folder.parent):
        build = _Build(data, tokenizer, base, Path(scratch), progress or (lambda *_: None))
        trained = build.train()
    trained.save(folder)
    return trained


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder against other builds. Raises RunBusy, DeviceError where the filesystem has no locks."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunBusy(f"{folder}: another build of this dataset is running; wait for it to end.") from error
    except OSError as error:
        raise DeviceError(
            f"{folder}: this filesystem has no file locks ({error.strerror}); keep datasets in your home folder."
        ) from error


@dataclass
class _Meter:
    """Turns "so many bytes more" into calls of the progress function."""

    progress: Progress
    total: int
    phase: str
    done: int = 0

    def __call__(self, more: int) -> None:
        self.done = min(self.done + more, self.total)
        self.progress(self.done, self.total, self.phase)


class _Build:
    """One build: the config and the files as they are now."""

    def __init__(
        self, data: DataConfig, tokenizer: TokenizerConfig, base: Path, folder: Path, progress: Progress
    ) -> None:
        self._data = data
        self._config = tokenizer
        self._base = base
        self._folder = folder
        self._progress = progress
        self._split = parse_split(data.split)
        self._scans = folder / "scan"
        if not data.sources:
            raise DataError("There are no sources: name at least one file or folder under [[data.sources]].")
        check_clean(data.clean)
        check_items(data.items)
        self._items = [items] if (items := given_items(data.items)) else []
        self._lists = [list_content(source, data, base=base, folder=self._scans) for source in data.sources]
        self._examples = example_wish(data, self._lists, self._split, base=base)

    def _inputs(self, tokenizer: Tokenizer) -> str:
        """Hash of everything the manifest depends on."""
        examples = [self._examples.facts(tokenizer)] if self._examples else []
        near = self._data.clean.near_duplicates
        wish = [
            self._data.split,
            self._data.chunk_tokens,
            self._data.deduplicate,
            *([near] if near else []),
            *self._items,
        ]
        units = [
            [
                listed.content,
                listed.source.weight,
                *([listed.source.group] if listed.source.group else []),
                *([["score", listed.source.score]] if listed.source.score is not None else []),
            ]
            for listed in self._lists
        ]
        return content_hash([MANIFEST_VERSION, wish, units, tokenizer.sha256, *examples])

    def finished(self, *, verify: bool) -> Dataset | None:
        """The dataset of an earlier build if nothing changed and nothing is damaged."""
        try:
            dataset = Dataset.open(self._folder)
            tokenizer = dataset.tokenizer()
            note = dataset.manifest["tokenizer"]
            if note["config"] != asdict(self._config) or dataset.manifest["inputs"] != self._inputs(tokenizer):
                return None
            if verify:
                dataset.verify()
        except (DataError, KeyError):
            return None
        changed = self._config.path and not same_ids(self._imported(), tokenizer)
        return None if changed else dataset

    def _imported(self) -> Tokenizer:
        return import_tokenizer(self._base / Path(os.path.expanduser(self._config.path)))

    def run(self, *, retrain: bool, verify: bool, keep: Collection[str]) -> None:
        """All passes; the manifest is written when everything it names is durable."""
        remove_leftovers(self._folder)
        existing = existing_tokenizer(self._config, self._folder, base=self._base, retrain=retrain)
        if self._examples:
            tokenizer, note, keys, records = self._example_pass(self._examples, existing, verify=verify)
        else:
            with self._plans(existing[0] if existing else None) as (plans, dropped):
                tokenizer, note = existing or self._new_tokenizer(plans)
                keys = [self._key(plan, bits, tokenizer) for plan, bits in zip(plans, dropped, strict=True)]
                records = self._tokenise(plans, keys, tokenizer, verify=verify)
        self._set_aside(keep)
        self._commit(keys, records, tokenizer, note)
        self._remove_stale(keys, note["folder"], keep)

    def beside(self, dataset: Dataset, least_tokens: int) -> Dataset | None:
        """The sources as a piece beside a dataset; the manifest of both is written last."""
        refuse_examples(self._examples)
        remove_leftovers(self._folder)
        tokenizer = dataset.tokenizer()
        with self._plans(tokenizer, kept_scans(dataset)) as (plans, dropped):
            keys = [self._key(plan, bits, tokenizer) for plan, bits in zip(plans, dropped, strict=True)]
            records = self._tokenise(plans, keys, tokenizer, verify=True)
        piece = self._manifest(keys, records, tokenizer, dataset.manifest["tokenizer"])
        if piece["totals"]["train_tokens"] < least_tokens:
            for key in set(keys) - {chunk["file"].split("/")[1] for chunk in dataset.manifest["chunks"]}:
                shutil.rmtree(self._folder / "chunks" / key, ignore_errors=True)
            return None
        both = joined(dataset.manifest, piece)
        write_json(self._folder / earlier_manifest(both["sha256"]), both)
        return Dataset.open(self._folder, sha256=both["sha256"])

    def train(self) -> Tokenizer:
        """The tokenizer alone."""
        if existing := existing_tokenizer(self._config, self._folder, base=self._base, retrain=True):
            return existing[0]
        if self._examples:
            return tokenizer_of_texts(self._config, self._examples.texts, self._folder)[0]
        with self._plans(None) as (plans, _):
            return self._new_tokenizer(plans)[0]

    @contextmanager
    def _plans(
        self, tokenizer: Tokenizer | None, earlier: Sequence[Scan] = ()
    ) -> Iterator[tuple[list[SourcePlan], list[bytes]]]:
        """What will be read of every source, and one bit a document for the copies that will not.

        ``tokenizer`` encodes while the sources are scanned, where it is known and documents stay whole; copies of what
        is in ``earlier`` are copies too.
        """
        self._scans.mkdir(exist_ok=True)
        # Where unknown symbols are counted, documents cut into items or scores read, the texts are needed again.
        again = self._data.items.max_tokens or any(source.score_field for source in self._data.sources)
        whole = self._split.kind == "hash" and not hasattr(tokenizer, "count_unknown") and not again
        ahead = tokenizer if whole else None
        with closing(KeptFile(self._folder, tokenizer=ahead, unencoded=FEW_DOCUMENTS)) as kept:
            scans = self._scan(kept)
            plans = [
                SourcePlan(listed, scan, bits, data=self._data, split=self._split, base=self._base)
                for listed, scan, bits in zip(self._lists, scans, self._dropped([*earlier, *scans]), strict=True)
            ]
            yield plans, [plan.dropped.all for plan in plans]

    def _dropped(self, scans: list[Scan]) -> list[Dropped]:
        """Which documents of this build's own scans, the last of all, are copies."""
        copies = find_duplicates(scans, self._folder, deduplicate=self._data.deduplicate)
        threshold, own = self._data.clean.near_duplicates, len(self._lists)
        if threshold is not None:  # an earlier build may have made no signatures
            signed = [scan.near_file.exists() for scan in scans[:-own]] + [True] * own
            scans, copies = list(compress(scans, signed)), list(compress(copies, signed))
        near = find_near(scans, copies, self._folder, threshold=threshold)
        return [Dropped(*bits) for bits in zip(copies, near, strict=True)][-own:]

    def _new_tokenizer(self, plans: list[SourcePlan]) -> tuple[Tokenizer, dict[str, Any]]:
        meter = _Meter(self._progress, sum(plan.scan.bytes for plan in plans), "tokenizer")
        return new_tokenizer(self._config, plans, self._folder, advance=meter)

    def _example_pass(
        self, wish: ExampleWish, existing: tuple[Tokenizer, dict[str, Any]] | None, *, verify: bool
    ) -> tuple[Tokenizer, dict[str, Any], list[str], list[dict[str, Any]]]:
        tokenizer, note = existing or tokenizer_of_texts(self._config, wish.texts, self._folder)
        wish.keep_template(tokenizer, self._folder / note["folder"])
        meter = _Meter(self._progress, sum(listed.bytes for listed in self._lists), "tokens")
        keys, records = tokenise_examples(wish, tokenizer, self._folder / "chunks", verify=verify, advance=meter)
        return tokenizer, note, keys, records

    def _scan(self, kept: KeptFile) -> list[Scan]:
        meter = _Meter(self._progress, sum(listed.bytes for listed in self._lists), "scan")
        scans = [
            scan_source(listed, self._data, base=self._base, folder=self._scans, kept_file=kept, advance=meter)
            for listed in self._lists
        ]
        names = [part.name for scan in scans for part in scan.parts]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"Two sources are called '{twice[0]}'; give one of them another name = ... in the config.")
        return scans

    def _key(self, plan: SourcePlan, dropped: bytes, tokenizer: Tokenizer) -> str:
        """Names everything that decides the chunks of one source."""
        wish = [self._data.split, self._data.chunk_tokens, self._data.deduplicate, *self._items]
        return content_hash([1, plan.listed.content, tokenizer.sha256, wish, mask_digest(dropped)])[:20]

    def _tokenise(
        self, plans: list[SourcePlan], keys: list[str], tokenizer: Tokenizer, *, verify: bool
    ) -> list[dict[str, Any]]:
        meter = _Meter(self._progress, sum(plan.scan.bytes for plan in plans), "tokens")
        records = []
        for plan, key in zip(plans, keys, strict=True):
            end = meter.done + plan.scan.bytes
            folder = self._folder / "chunks" / key
            record = finished_record(folder, verify=verify)
            if record is None:
                record = tokenise_source(plan, tokenizer, folder, data=self._data, advance=meter)
                fsync_folder(folder.parent)
            records.append(record)
            meter(end - meter.done)  # what was there already or dropped counts as done
        return records

    def _commit(
        self, keys: list[str], records: list[dict[str, Any]], tokenizer: Tokenizer, note: dict[str, Any]
    ) -> None:
        """Writes the manifest. Raises DataError when there is nothing to train on."""
        manifest = self._manifest(keys, records, tokenizer, note)
        if not manifest["totals"]["train_tokens"]:
            raise DataError("The corpus has no text to train on; add text to the sources or take a smaller split.")
        write_json(self._folder / MANIFEST, seal_manifest(manifest))

    def _manifest(
        self, keys: list[str], records: list[dict[str, Any]], tokenizer: Tokenizer, note: dict[str, Any]
    ) -> dict[str, Any]:
        """What was built, without its seal."""
        chunks = [
            {**chunk, "file": f"chunks/{key}/{chunk['file']}"}
            for key, record in zip(keys, records, strict=True)
            for chunk in record["chunks"]
        ]
        problems = Problems()
        for record in records:
            problems.merge(Problems.from_json(record["problems"]))
        sources = [
            source_entry(source, listed.source, problems)
            for listed, record in zip(self._lists, records, strict=True)
            for source in record["sources"]
        ]
        names = [source["name"] for source in sources]
        return {
            "v": MANIFEST_VERSION,
            "id": secrets.token_hex(8),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "sha256": tokens_hash(tokenizer.sha256, names, chunks),
            "inputs": self._inputs(tokenizer),
            "tokenizer": note,
            "split": self._data.split,
            "sources": sources,
            "chunks": chunks,
            "problems": problems.to_json(),
            "totals": totals_of(sources),
            **({"examples": self._examples.told(tokenizer, records)} if self._examples else {}),
        }

    def _set_aside(self, keep: Collection[str]) -> None:
        """Copies the manifest that is about to be replaced, where an earlier run still needs it."""
        with suppress(DataError, KeyError, TypeError):
            old = read_json(self._folder / MANIFEST)
            if old["sha256"] in keep:
                write_json(self._folder / earlier_manifest(old["sha256"]), old)

    def _remove_stale(self, keys: list[str], tokenizer_folder: str, keep: Collection[str]) -> None:
        """Deletes what no manifest that is needed names, unless someone still reads from this dataset."""
        with unused_folder(self._folder) as unused:
            if not unused:
                return
            chunks, tokenizers = set(keys), {tokenizer_folder}
            for path in self._folder.glob(earlier_manifest("*")):
                if path.name not in {earlier_manifest(sha) for sha in keep}:
                    path.unlink(missing_ok=True)
                    continue
                earlier = read_json(path)
                chunks |= {chunk["file"].split("/")[1] for chunk in earlier["chunks"]}
                tokenizers.add(earlier["tokenizer"]["folder"])
            for path in (self._folder / "chunks").iterdir():
                if path.name not in chunks:
                    shutil.rmtree(path, ignore_errors=True)
            for path in self._folder.glob("tokenizer-*"):
                if path.name not in tokenizers:
                    shutil.rmtree(path, ignore_errors=True)
        known = {f"{x.slot}{end}" for x in self._lists for end in (".json", *scan_files(x.content))}
        known |= {name for key in chunks for name in scan_names(self._folder, key)}
        for path in self._scans.glob("*"):
            if path.name not in known:
                path.unlink(missing_ok=True)
