"""Conversations: what is dropped first, what is read again, seeds, taking back, and texts over the edge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.errors import UsageError
from ondevice.infer.chat import ChatFormat, Message, chat_of, fit_messages
from ondevice.infer.conversation import Conversation
from ondevice.infer.sampling import Sampling
from tests.unit.infer.serving import Alphabet

GREEDY = Sampling(temperature=0.0)
LETTERS = ChatFormat(encode=lambda said: [b for m in said for b in m.content.encode()], stop_ids=frozenset({256}))


def said(*words: str) -> list[Message]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [Message(role=roles[each[0]], content=each) for each in words]


def test_whole_old_turns_go_first_and_the_system_stays() -> None:
    messages = said("sys", "u1....", "a1....", "u2....", "a2....", "u3")
    fits = fit_messages(messages, LETTERS, context=30, room=5)
    assert (bytes(fits.ids), fits.dropped) == (b"sysu2....a2....u3", 2)
    assert bytes(fit_messages(messages, LETTERS, context=30, room=20).ids) == b"sysu3"  # room is half at most
    assert fit_messages(messages, LETTERS, context=100, room=5).dropped == 0
    with pytest.raises(UsageError, match="make it shorter"):
        fit_messages(messages, LETTERS, context=8, room=4)


@given(st.lists(st.sampled_from(["u", "a", "u12345678", "a12"]), min_size=1, max_size=12), st.integers(12, 80))
def test_what_fits_is_a_whole_end_of_the_conversation(words: list[str], context: int) -> None:
    messages = said("s", *words, "u!")
    fits = fit_messages(messages, LETTERS, context=context, room=4)
    assert len(fits.ids) <= context - min(4, context // 2)
    assert bytes(fits.ids) == b"s" + "".join(["s", *words, "u!"][1 + fits.dropped :]).encode()


def talk(context: int = 400, **options: object) -> tuple[Conversation, Alphabet]:
    backend, tokenizer = Alphabet(context), ByteTokenizer()
    options = {"settings": GREEDY, "length": 4, **options}
    return Conversation(backend, tokenizer, chat_of(tokenizer), **options), backend  # type: ignore[arg-type]


def test_turns_are_read_once() -> None:
    conversation, backend = talk(system="Hm")
    assert list(conversation.say("q1")) == ["a", "b", "c", "d"]
    assert "".join(conversation.say("q2")) == "abcd"
    assert bytes(backend.read[0]) == b"### System:\nHm\n\n### User:\nq1\n\n### Assistant:\n"
    assert backend.read[4] == [ord("d"), 256, *b"\n\n### User:\nq2\n\n### Assistant:\n"]
    assert conversation.reused == len(backend.read[0]) + 3
    assert [each.content for each in conversation.messages] == ["q1", "abcd", "q2", "abcd"]


def test_a_long_talk_slides_and_says_so() -> None:
    conversation, backend = talk(context=120, system="Be")
    for _ in range(6):
        assert "".join(conversation.say("hello")) == "abcd"
    assert conversation.last is not None and conversation.last.dropped >= 2
    assert len(conversation.messages) == 12
    assert bytes(backend.read[-4][:33]).startswith(b"### System:\nBe\n\n### User:\nhello")


def test_a_message_that_cannot_be_read_is_not_kept() -> None:
    conversation, _ = talk(context=120)
    for wrong in ("", "  \n", "x" * 200):
        with pytest.raises(UsageError):
            list(conversation.say(wrong))
    assert conversation.messages == []


def test_an_answer_that_was_ended_is_kept_as_far_as_it_came() -> None:
    conversation, _ = talk()
    pieces = conversation.say("q1")
    assert [next(pieces), next(pieces)] == ["a", "b"]
    pieces.close()
    assert conversation.messages[-1] == Message(role="assistant", content="ab")
    assert "".join(conversation.retry()) == "abcd" and len(conversation.messages) == 2
    assert conversation.undo() and conversation.messages == [] and not conversation.undo()
    with pytest.raises(UsageError, match="Nothing was said"):
        conversation.retry()


def test_a_seed_gives_the_same_talk_and_retry_another_answer() -> None:
    def answers(seed: int) -> list[str]:
        conversation, _ = talk(settings=Sampling(temperature=3.0, top_k=0, top_p=1.0, seed=seed), length=12)
        return ["".join(conversation.say("q")), "".join(conversation.retry()), "".join(conversation.say("r"))]

    assert answers(1) == answers(1) != answers(2)
    assert answers(1)[0] != answers(1)[1]
    conversation, _ = talk(settings=Sampling(temperature=3.0, top_k=0, top_p=1.0, seed=1), length=12)
    first = "".join(conversation.say("q"))
    conversation.reset()
    assert "".join(conversation.say("q")) == first


def test_stop_strings_and_the_others_part_end_an_answer() -> None:
    conversation, _ = talk(stop=["cd"])
    assert "".join(conversation.say("q")) == "ab"
    assert conversation.last is not None and conversation.last.finish == "stop"
    assert "### User:" in chat_of(ByteTokenizer()).stop
