"""Generation over a scripted backend: stops, the sliding window, long and empty prompts, whole characters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.errors import UsageError
from ondevice.infer.generate import fit_prompt, generate
from ondevice.infer.sampling import Sampler, Sampling
from ondevice.infer.text import stream_text

GREEDY = Sampling(temperature=0.0)
EOT = 256


class Counting:
    """Greedy, it gives last token + 1; it remembers what it was asked to read."""

    name = "counting"

    def __init__(self, context: int = 8, vocab_size: int = 300) -> None:
        self.context, self.vocab_size = context, vocab_size
        self.reads: list[list[int]] = []
        self.held = 0

    def start(self, batch: int) -> None:
        assert batch == 1
        self.held = 0

    def wanted(self, ids: list[int]) -> int:
        return (ids[-1] + 1) % self.vocab_size

    def step(self, ids_BT: np.ndarray) -> np.ndarray:
        self.held += ids_BT.shape[1]
        assert self.held <= self.context
        self.reads.append(ids_BT[0].tolist())
        return np.eye(self.vocab_size, dtype=np.float32)[[self.wanted(ids_BT[0].tolist())]]

    def logits(self, ids_BT: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class Script(Counting):
    """Writes given bytes, then the end of text."""

    def __init__(self, text: bytes) -> None:
        super().__init__(context=1000, vocab_size=257)
        self.rest = [*text, EOT]

    def wanted(self, ids: list[int]) -> int:
        return self.rest.pop(0)


def test_tokens_are_read_once_and_the_last_not_at_all() -> None:
    backend = Counting()
    tokens = generate(backend, [5, 9], settings=GREEDY, max_new_tokens=3)
    assert (list(tokens), tokens.finish, tokens.note) == ([10, 11, 12], "length", "")
    assert backend.reads == [[5, 9], [10], [11]]


def test_a_stop_token_ends_without_being_given() -> None:
    tokens = generate(Counting(), [5], settings=GREEDY, stop_ids=[8], max_new_tokens=99)
    assert (list(tokens), tokens.finish) == ([6, 7], "stop")


def test_a_full_window_slides_to_its_last_half() -> None:
    backend = Counting(context=8)
    tokens = generate(backend, [0, 1, 2, 3, 4, 5], settings=GREEDY, max_new_tokens=9)
    assert list(tokens) == list(range(6, 15))
    assert backend.reads == [[0, 1, 2, 3, 4, 5], [6], [7], [5, 6, 7, 8], [9], [10], [11], [12], [10, 11, 12, 13]]
    assert tokens.slides == 2


@pytest.mark.parametrize("context", [1, 2, 3])
def test_the_smallest_windows_go_on(context: int) -> None:
    assert list(generate(Counting(context), [1], settings=GREEDY, max_new_tokens=9)) == list(range(2, 11))


@pytest.mark.parametrize(("new", "kept"), [(3, [5, 6, 7, 8, 9]), (99, [6, 7, 8, 9]), (0, list(range(2, 10)))])
def test_a_long_prompt_keeps_its_last_part_and_says_so(new: int, kept: list[int]) -> None:
    prompt = fit_prompt(range(10), context=8, vocab_size=300, max_new_tokens=new, eot_id=None)
    assert list(prompt.ids) == kept
    assert prompt.note == f"The prompt has 10 tokens, the context 8; only its last {len(kept)} tokens were read."


def test_a_prompt_as_long_as_the_context_is_read_whole() -> None:
    backend = Counting(context=4)
    assert list(generate(backend, [1, 2, 3, 4], settings=GREEDY, max_new_tokens=2)) == [5, 6]
    assert backend.reads == [[1, 2, 3, 4], [4, 5]]


def test_an_empty_prompt_begins_a_document() -> None:
    backend = Counting()
    assert next(generate(backend, [], settings=GREEDY, max_new_tokens=1, eot_id=7)) == 8
    with pytest.raises(UsageError, match="empty"):
        generate(backend, [], settings=GREEDY, max_new_tokens=1)


@pytest.mark.parametrize("wrong", [300, -1])
def test_ids_outside_the_vocabulary_are_refused(wrong: int) -> None:
    with pytest.raises(UsageError, match=f"Token {wrong} "):
        generate(Counting(), [1, wrong], settings=GREEDY, max_new_tokens=1)
    with pytest.raises(UsageError, match="max_new_tokens"):
        generate(Counting(), [1], settings=GREEDY, max_new_tokens=-1)


def test_ids_the_tokenizer_lacks_are_never_chosen() -> None:
    assert next(generate(Counting(), [9], settings=GREEDY, max_new_tokens=1, vocab_size=10)) == 0


def test_seeds_decide_and_a_sampler_may_be_continued() -> None:
    def drawn(seed: int, sampler: Sampler | None = None, count: int = 40) -> list[int]:
        settings = Sampling(temperature=5.0, top_k=0, top_p=1.0, seed=seed)
        return list(generate(Counting(), [1], settings=settings, max_new_tokens=count, sampler=sampler))

    assert drawn(1) == drawn(1) != drawn(2)
    sampler = Sampler(Sampling(temperature=5.0, top_k=0, top_p=1.0, seed=1))
    assert drawn(1, sampler) == drawn(1)
    assert drawn(1, sampler) != drawn(1)


def written(text: bytes, *stop: str, new: int = 500):
    stream = stream_text(Script(text), ByteTokenizer(), "x", settings=GREEDY, max_new_tokens=new, stop=stop)
    return list(stream), stream


def test_pieces_are_whole_characters() -> None:
    pieces, stream = written("perché 🌊 no".encode())
    assert "".join(pieces) == "perché 🌊 no" and "🌊" in pieces
    assert (stream.finish, stream.ids) == ("stop", list("perché 🌊 no".encode()))


def test_a_character_cut_by_the_length_is_marked() -> None:
    pieces, stream = written("🌊".encode(), new=2)
    assert (pieces, stream.finish) == (["\ufffd"], "length")


def test_a_stop_string_is_never_shown_in_part() -> None:
    pieces, stream = written(b"one THE END two", "THE END")
    assert ("".join(pieces), stream.finish) == ("one ", "stop")
    assert not any("T" in piece for piece in pieces)


def test_a_begun_stop_string_that_is_none_is_shown() -> None:
    assert "".join(written(b"one THE E", "THE END")[0]) == "one THE E"
    assert "".join(written(b"THE THE END", "THE END")[0]) == "THE "
    assert "".join(written(b"aaab", "aab")[0]) == "a"


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(UsageError, match="stop string"):
        written(b"x", "")


@given(text=st.text(alphabet="abé", max_size=30), stop=st.lists(st.text(alphabet="abé", min_size=1, max_size=4)))
def test_streamed_text_is_the_text_before_the_first_stop(text: str, stop: list[str]) -> None:
    ends = [text.find(each) + len(each) for each in stop if each in text]
    seen = text[: min(ends)] if ends else text  # the first moment at which any stop string is whole
    wanted = seen[: min((seen.find(each) for each in stop if each in seen), default=len(seen))]
    pieces, _ = written(text.encode(), *stop)
    assert "".join(pieces) == wanted
    assert "" not in pieces
