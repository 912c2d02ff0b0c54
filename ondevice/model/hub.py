"""Models on the Hugging Face hub, or on any server that speaks like it: what files there are of one, and their sizes.

Reached through huggingface_hub, so HF_ENDPOINT, HF_TOKEN and proxies mean what they mean to other programs; offline,
what those fetched before is found in their cache. Of a repository only safetensors, tokenizer and JSON files are ever
taken, never a pickle. Knows files, not models; fetching is the business of `ondevice.model.hub_fetch`.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.device.host import platform_name
from ondevice.errors import CheckpointError, DataError, DeviceError, UsageError
from ondevice.run.files import sha256_of

__all__ = ["OF_THE_DISK", "HubFile", "Listing", "endpoint", "hub_errors", "look_up", "offline", "unreachable"]

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*")  # never a path
_BESIDE = re.compile(r".+\.(json|jinja)|merges\.txt|vocab\.txt|tokenizer\.model")
_WHOLE, _INDEX, _ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES)
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".gguf", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a repository; ``sha256`` is known of large files, ``blob`` (Git's SHA-1) of small ones. ``cached`` is
    where another program has it already."""

    name: str
    size: int
    sha256: str | None = None
    blob: str | None = None
    cached: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What is taken of a repository, weights last, and the names of what is not. ``revision`` is a commit."""

    repository: str
    revision: str
    source: str
    files: tuple[HubFile, ...]
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def endpoint() -> str:
    """The server: ``$HF_ENDPOINT``, else the hub itself."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def look_up(repository: str, *, revision: str | None = None) -> Listing:
    """What there is of a model. ``revision`` is a branch, tag or commit.

    Raises UsageError for what is no name, DataError where the hub has no such model or no safetensors of it,
    DeviceError without huggingface_hub or network.

    >>> look_up("gpt2").size
    551290714
    """
    if not _REPOSITORY.fullmatch(repository):
        raise UsageError(f"{repository!r}: not the name of a model on the hub, such as gpt2 or owner/model.")
    hub = _library()
    if offline():
        return _cached(hub, repository, revision)
    with hub_errors(repository, revision):
        found = hub.HfApi(endpoint=endpoint()).model_info(repository, revision=revision, files_metadata=True)
    files = [_file(each) for each in found.siblings or () if _PLAIN_NAME.fullmatch(each.rfilename)]
    return _chosen(found.id, str(found.sha), endpoint(), files)


def _library() -> Any:
    """The newest huggingface_hub that is all Python is an old one, and Android has no compiled part of later ones."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        which = "'huggingface_hub<0.30'" if platform_name() == "android" else "huggingface_hub"
        raise DeviceError(f"The huggingface_hub package is not installed: run `pip install {which}`.") from error


def _file(sibling: Any) -> HubFile:
    large = sibling.lfs
    sha256 = (large.get("sha256") if isinstance(large, dict) else large.sha256) if large else None
    return HubFile(name=sibling.rfilename, size=int(sibling.size or 0), sha256=sha256, blob=sibling.blob_id)


def _cached(hub: Any, repository: str, revision: str | None) -> Listing:
    """What other programs fetched of a model."""
    where = hub.try_to_load_from_cache(repository, "config.json", revision=revision or "main")
    if not isinstance(where, str):
        raise DeviceError(
            f"{repository}: HF_HUB_OFFLINE is set and nothing of it was fetched before; fetch it while online."
        )
    folder = Path(where).parent
    files = [
        HubFile(name=path.name, size=path.stat().st_size, sha256=sha256_of(path), cached=path)
        for path in sorted(folder.iterdir())
        if path.is_file() and _PLAIN_NAME.fullmatch(path.name)
    ]
    return _chosen(repository, folder.name, str(folder), files)


def _chosen(repository: str, revision: str, source: str, files: Sequence[HubFile]) -> Listing:
    """What of these files is taken. Raises DataError where there are no weights that may be."""
    names = {file.name for file in files}
    weights = _weights(names)
    if not weights:
        there = sorted(name for name in names if name.endswith(_OTHER_WEIGHTS))
        what = f"only {', '.join(there[:4])}" if there else "no weights"
        raise DataError(
            f"{repository}: has {what}, and only weights stored as model.safetensors are fetched; look for a copy of "
            "the model that has them."
        )
    taken = [file for file in files if file.name not in weights and _BESIDE.fullmatch(file.name)]
    if _INDEX not in weights:
        taken = [file for file in taken if not file.name.endswith(".safetensors.index.json")]
    taken += [file for file in files if file.name in weights and file not in taken]
    left = names - {file.name for file in taken}
    return Listing(
        repository=repository, revision=revision, source=source, files=tuple(taken), left_out=tuple(sorted(left))
    )


def _weights(names: set[str]) -> set[str]:
    """The files of the weights: one, or shards with their index; else those of an adapter."""
    shards = {name for name in names if _SHARD.fullmatch(name)}
    if _WHOLE in names:
        return {_WHOLE}
    if shards and _INDEX in names:
        return {_INDEX, *shards}
    return {_ADAPTER} & names


@contextmanager
def hub_errors(repository: str, revision: str | None = None) -> Iterator[None]:
    """Turns what huggingface_hub and the network raise into a sentence."""
    from huggingface_hub import errors

    broken: tuple[type[BaseException], ...] = (errors.HfHubHTTPError.__bases__[0], OSError)
    try:
        yield
    except errors.GatedRepoError as error:
        raise DataError(
            f"{repository}: its makers ask for consent first: accept their terms at {endpoint()}/{repository}, then "
            "set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"{repository}: {endpoint()} has no such model, or it is private; check the name, or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"{repository}: has no revision {revision!r}; leave --revision out for the newest.") from error
    except errors.EntryNotFoundError as error:
        raise CheckpointError(f"{repository}: a file that it lists is gone; repeat the command.") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "an error")
        advice = "check HF_TOKEN" if status in (401, 403) else "try again later"
        raise DataError(f"{repository}: {endpoint()} answers {status}; {advice}.") from error
    except broken as error:
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            raise
        raise unreachable(repository, error) from error


def unreachable(repository: str, error: BaseException | None) -> DeviceError:
    """What to say when the network fails; without an error the server just left."""
    what = "the connection broke" if error is None else type(error).__name__
    return DeviceError(
        f"{repository}: {endpoint()} cannot be reached ({what}); what came so far is kept: repeat the command when "
        "there is a network."
    )
