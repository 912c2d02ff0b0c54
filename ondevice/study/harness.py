"""A target as a model of lm-evaluation-harness, and its tasks from local files: ``loglikelihood``,
``loglikelihood_rolling`` and ``generate_until`` through the same backends as everything else.

The harness is a package for laptops; nothing of it is imported before it is asked for, and nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ondevice.errors import DataError, DeviceError, OndeviceError, UsageError
from ondevice.evaluate.log_likelihood import likelihoods, rolling_windows
from ondevice.infer.batch import generate_batch
from ondevice.infer.sampling import Sampling
from ondevice.study.target import Target

__all__ = ["HarnessModel", "run_tasks"]

_LENGTH = 256  # new tokens where a task does not say, as the harness has it
_SEED = 1234


class HarnessModel:
    """What the harness asks of a model. Each method takes its requests, of which only ``args`` are read.

    >>> HarnessModel(target).loglikelihood(requests)  # doctest: +SKIP
    [(-3.2, False)]
    """

    rank, world_size = 0, 1
    device = None
    cache_hook: Any = None

    def __init__(self, target: Target, *, batch: int = 32) -> None:
        self._backend, self._tokenizer, self._batch = target.backend, target.tokenizer, batch

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(nats, whether greedy) of each (context, continuation)."""
        found = likelihoods(self._backend, [self._pair(*request.args) for request in requests])
        return [(each.nats, each.greedy) for each in found]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Nats of each whole text, its first token after end-of-text."""
        eot, context = self._tokenizer.eot_id, self._backend.context
        nats = []
        for request in requests:
            windows = list(rolling_windows(self._encode(request.args[0]), prefix=eot, context=context))
            nats.append(sum(each.nats for each in likelihoods(self._backend, windows)))
        return nats

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """What is written after each context, up to the first of its stopping texts, which is left out."""
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(index)
        texts: dict[int, str] = {}
        for indices in groups.values():
            contexts = [requests[index].args[0] for index in indices]
            texts.update(zip(indices, self._write(contexts, requests[indices[0]].args[1]), strict=True))
        return [texts[index] for index in range(len(requests))]

    def set_cache_hook(self, cache_hook: Any) -> None:
        self.cache_hook = cache_hook

    def chat_template(self, chat_template: bool | str = False) -> str:
        return ""

    @property
    def tokenizer_name(self) -> str:
        return self._tokenizer.sha256

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text))

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Spaces at the end of a context belong to what follows, and both are encoded as one text, as there."""
        cut = len(context.rstrip())
        head, whole = self._encode(context[:cut]), self._encode(context + continuation)
        return ([self._tokenizer.eot_id], whole) if not head else (whole[: len(head)], whole[len(head) :])

    def _write(self, contexts: Sequence[str], wish: dict[str, Any]) -> list[str]:
        until, tokenizer = _until(wish), self._tokenizer
        written = generate_batch(
            self._backend,
            [self._encode(context) for context in contexts],
            settings=_sampling(wish),
            stop_ids={tokenizer.eot_id},
            max_new_tokens=int(wish.get("max_gen_toks", wish.get("max_new_tokens", _LENGTH))),
            eot_id=tokenizer.eot_id,
            vocab_size=tokenizer.vocab_size,
            batch=self._batch,
            ends=self._ends_with_one_of(until),
        )
        return [_cut(tokenizer.decode(list(each.ids)), until) for each in written]

    def _ends_with_one_of(self, until: Sequence[str]) -> Callable[[Sequence[int]], bool]:
        """Whether one of the texts stands at the end of the tokens, as many of the last as could spell it."""
        longest = max((len(text.encode()) for text in until), default=0) + 4
        return lambda ids: bool(until) and any(text in self._tokenizer.decode(list(ids[-longest:])) for text in until)


def _until(wish: dict[str, Any]) -> list[str]:
    until = wish.get("until") or []
    return [text for text in ([until] if isinstance(until, str) else until) if text]


def _sampling(wish: dict[str, Any]) -> Sampling:
    """Greedy, unless the task samples. Raises UsageError for settings that are none."""
    if not wish.get("do_sample", float(wish.get("temperature", 0.0)) > 0):
        return Sampling(temperature=0.0)
    return Sampling(
        temperature=float(wish.get("temperature", 1.0)),
        top_k=int(wish.get("top_k", 0)),
        top_p=float(wish.get("top_p", 1.0)),
        seed=_SEED,
    )


def _cut(text: str, until: Sequence[str]) -> str:
    return text[: min((text.find(each) for each in until if each in text), default=len(text))]


def run_tasks(target: Target, files: Sequence[Path], *, limit: int | None = None) -> dict[str, Any]:
    """What the harness found: ``results`` by task, ``n`` samples, ``versions``. ``files`` are its YAML task files.

    Raises DeviceError without the package, DataError for a file that is no task or whose data are not there,
    UsageError for two tasks of one name.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the packages when they are imported
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    try:
        import lm_eval
        from lm_eval.api.model import LM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise DeviceError(
            f"lm-evaluation-harness is not here ({error}); on a laptop: pip install 'ondevice[harness]'."
        ) from error
    LM.register(HarnessModel)
    names = [_task_name(path) for path in files]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two task files are called {twice!r}; rename one.")
    manager = TaskManager(include_path=sorted({str(path.parent) for path in files}), include_defaults=False)
    try:
        found = lm_eval.simple_evaluate(
            model=HarnessModel(target),
            tasks=names,
            task_manager=manager,
            limit=limit,
            bootstrap_iters=0,
            log_samples=False,
        )
    except OndeviceError:
        raise
    except Exception as error:  # whatever a stranger's task file makes the harness stumble over
        told = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(f"{', '.join(map(str, files))}: the harness cannot run this task: {told}") from error
    return {
        "target": target.name,
        "step": target.step,
        "identity": target.identity,
        "backend": target.backend.name,
        "harness": lm_eval.__version__,
        "results": found["results"],
        "n": {name: each["effective"] for name, each in found["n-samples"].items()},
        "versions": found["versions"],
    }


def _task_name(path: Path) -> str:
    """The name under ``task:`` of a file. Raises DataError."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads past the harness's own tags."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    try:
        raw = yaml.load(path.read_bytes(), Loader)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        first = str(error).split("\n")[0]
        raise DataError(f"{path}: not YAML ({first}).") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("task"), str):
        raise DataError(f"{path}: names no task; a task file of lm-evaluation-harness has `task: NAME`.")
    return str(raw["task"])
