"""Items: no token lost or doubled but the declared overlap, sizes as declared, words whole; and the dataset of them."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ondevice.data import items as items_module
from ondevice.data.build import build_dataset
from ondevice.data.items import INSIDE, ItemCutter, check_items
from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.data.tokenizer_char import CharTokenizer
from ondevice.errors import UsageError
from ondevice.run.schema import Config, DataConfig, ItemsConfig, SourceConfig, TokenizerConfig
from ondevice.train.wish import dataset_folder

BYTES = ByteTokenizer()
CHARS = CharTokenizer(sorted(set("abcdefghijklmnopqrstuvwxyzğış ABC.,!?\n'—。字()=:#@{}")))
RULES = st.tuples(st.integers(8, 90), st.integers(0, 45), st.integers(0, 22)).map(
    lambda n: ItemsConfig(max_tokens=n[0], min_tokens=min(n[1], n[0] // 2) or None, overlap_tokens=min(n[2], n[0] // 4))
)
TEXTS = st.text(alphabet=st.sampled_from("abğ ı.!?\n'。字\u0301def class(){}:#")) | st.text()


@pytest.fixture(autouse=True)
def _short_stretches(monkeypatch):
    """Long documents are looked at in stretches; here all are long."""
    monkeypatch.setattr(items_module, "_STRETCH", 300)
    monkeypatch.setattr(items_module, "_SEEN_AHEAD", 40)


def bytes_of(text):
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)


@settings(deadline=None, max_examples=300)
@given(
    text=st.lists(TEXTS, max_size=6).map("".join) | TEXTS.map(lambda t: t * 7),
    rule=RULES,
    is_code=st.booleans(),
    overlaps=st.booleans(),
    tokenizer=st.sampled_from([BYTES, CHARS]),
)
def test_no_token_is_lost_or_doubled_but_the_declared_overlap(text, rule, is_code, overlaps, tokenizer):
    ids = tokenizer.encode_batch([text.encode("utf-8", "ignore").decode()])[0]
    items = ItemCutter(tokenizer, rule).cut(ids, is_code=is_code, overlaps=overlaps)
    assert items[0].start == 0 and items[-1].end == len(ids)
    for before, item in itertools.pairwise(items):
        overlap = before.end - item.start
        assert 0 <= overlap <= (rule.overlap_tokens if overlaps and before.kind == INSIDE else 0)
        assert item.end > before.end and item.start > before.start  # something new, and nothing twice within an overlap
    new = [
        ids[max(item.start, before) : item.end]
        for before, item in zip([0, *[i.end for i in items]], items, strict=False)
    ]
    assert np.concatenate(new).tolist() == ids.tolist()
    least = rule.min_tokens or rule.max_tokens // 4
    for item in items:
        assert item.end - item.start + 1 <= rule.max_tokens
        assert item.end - item.start + 1 >= least or len(items) == 1


@settings(deadline=None, max_examples=150)
@example(  # an overlap longer than the item before it
    text="0000000000 " + "\x80" * 11 + "\u0800" + "\U00010000" * 3,
    rule=ItemsConfig(max_tokens=48, overlap_tokens=12),
    overlaps=True,
)
@given(text=st.lists(TEXTS, max_size=6).map("".join), rule=RULES, overlaps=st.booleans())
def test_what_is_laid_out_is_the_items_each_with_its_end(text, rule, overlaps):
    ids = np.append(bytes_of(text).astype(np.uint16), np.uint16(BYTES.eot_id))
    cutter = ItemCutter(BYTES, rule)
    laid, lengths, cuts = cutter.lay_out(ids, is_code=False, overlaps=overlaps)
    items = cutter.cut(ids[:-1], is_code=False, overlaps=overlaps)
    parts = np.split(laid, np.cumsum(lengths)[:-1])
    assert all(part[-1] == BYTES.eot_id and BYTES.eot_id not in part[:-1] for part in parts)
    assert [part[:-1].tolist() for part in parts] == [ids[i.start : i.end].tolist() for i in items]
    repeated = cuts.pop("overlap_tokens", 0)
    assert sum(cuts.values()) == len(items) - 1 and lengths.sum() == len(ids) + len(items) - 1 + repeated


def shown(text, rule, *, is_code=False, overlaps=True, tokenizer=BYTES):
    ids = tokenizer.encode_batch([text])[0]
    items = ItemCutter(tokenizer, rule).cut(ids, is_code=is_code, overlaps=overlaps)
    return [tokenizer.decode(ids[item.start : item.end].tolist()) for item in items]


def test_paragraphs_come_before_sentences_and_sentences_before_lines():
    text = "One two. Three\nfour.\n\nFive six seven. Eight nine\nten eleven twelve. End."
    assert shown(text, ItemsConfig(max_tokens=40, min_tokens=5)) == [
        "One two. Three\nfour.\n\n",
        "Five six seven. ",
        "Eight nine\nten eleven twelve. End.",
    ]


def test_a_sentence_that_is_too_long_goes_through_a_window_with_overlap_between_words():
    text = " ".join(f"don't{i}" for i in range(30))
    items = shown(text, ItemsConfig(max_tokens=64, min_tokens=30, overlap_tokens=16))
    assert len(items) > 3
    for before, item in itertools.pairwise(items):
        overlap = next(n for n in range(16, -1, -1) if before.endswith(item[:n]))
        assert 8 <= overlap <= 16
        assert set(item.split()) <= set(text.split()) and set(before.split()) <= set(text.split())


@settings(deadline=None, max_examples=100)
@example(words=["aaéé", "aéééé", "aaaaaaa", "aééééééक", "éééééé"], most=64)  # no room for a whole word in the overlap
@given(
    words=st.lists(st.text(alphabet="abcğışé'字カकि\u0301-", min_size=1, max_size=9), min_size=1, max_size=60),
    most=st.integers(64, 120),
)
def test_no_word_shorter_than_an_item_is_ever_cut(words, most):
    # Two dashes stand between words, as typewriters have them.
    words = [f"x{word}y" for word in words if "--" not in word and not any(char > "\u3000" for char in word)]
    text = " ".join(words)
    for item in shown(text, ItemsConfig(max_tokens=most, overlap_tokens=most // 8)):
        assert set(item.split()) <= set(words)


def test_text_without_spaces_is_cut_between_its_letters_and_never_inside_one():
    text = "日本語の文字は三バイトである" * 9
    items = shown(text, ItemsConfig(max_tokens=50))
    assert "".join(items) == text and len(items) >= 8 and not any("\ufffd" in item for item in items)
    endless = "é" * 200
    assert "".join(shown(endless, ItemsConfig(max_tokens=33))) == endless


def test_code_is_cut_before_its_definitions():
    text = "".join(f"# about f{i}\ndef f{i}(x):\n    y = x\n\n    return y\n\n\n" for i in range(6))
    items = shown(text, ItemsConfig(max_tokens=120, min_tokens=20), is_code=True)
    assert all(item.startswith("# about f") for item in items) and "".join(items) == text


def test_the_stretches_that_are_looked_at_change_nothing(monkeypatch):
    text = "".join(f"Sentence {i} is {'very ' * (i % 40)}long. {'Then{:{'[: i % 8]} more?\n\n" for i in range(300))
    rule = ItemsConfig(max_tokens=100, overlap_tokens=20)
    short = shown(text, rule)
    monkeypatch.setattr(items_module, "_STRETCH", 1 << 30)
    assert shown(text, rule) == short and len(short) > 300


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (ItemsConfig(min_tokens=5), "need max_tokens"),
        (ItemsConfig(overlap_tokens=5), "need max_tokens"),
        (ItemsConfig(max_tokens=10, min_tokens=6), "take at most 5"),
        (ItemsConfig(max_tokens=16, overlap_tokens=5), "take at most 4"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(rule, words):
    with pytest.raises(UsageError, match=words):
        check_items(rule)


TEXT = "".join(f"Paragraph {i} tells of {i * 7919 % 1000} things. It is short. Really, it is!\n\n" for i in range(40))


@pytest.fixture
def place(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(150):
        (tmp_path / "a" / f"{i:03}.txt").write_text(f"Text {i}. {TEXT[: 40 + i * 15]}")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "x.py").write_text("".join(f"def f{i}():\n    return {i}\n\n\n" for i in range(200)))
    return tmp_path


def build(place, folder="d", **changes):
    sources = (SourceConfig(path="a", name="a"), SourceConfig(path="code", format="code", name="code"))
    data = DataConfig(sources=sources, chunk_tokens=1024, **changes)
    return build_dataset(data, TokenizerConfig(kind="byte"), base=place, folder=place / folder)


def documents(dataset, source, split):
    stream = dataset.stream(source, split)
    ids = stream.read(0, len(stream))
    parts = np.split(ids, np.flatnonzero(ids == 256) + 1)[:-1]
    return [bytes(part[:-1].tolist()).decode() for part in parts]


def test_a_dataset_holds_the_items_of_its_documents(place):
    rule = ItemsConfig(max_tokens=200, min_tokens=50)
    plain, cut = build(place), build(place, "cut", items=rule)
    for split in ("train", "val"):
        for source in ("a", "code.python"):
            items = documents(cut, source, split)
            assert "".join(items) == "".join(documents(plain, source, split))
            assert len(items) > len(documents(plain, source, split)) and max(map(len, items)) < 200
    assert all(item.startswith("def f") for item in documents(cut, "code.python", "train")[1:-1])
    entry = cut.sources[0]
    assert entry.documents == 150 and entry.train_documents == len(documents(cut, "a", "train"))
    assert set(entry.cuts) <= {"paragraph", "sentence"} and entry.overlap_tokens == 0
    assert entry.train_bytes == plain.sources[0].train_bytes and cut.sha256 != plain.sha256


def test_validation_text_is_never_doubled(place):
    (place / "a" / "long.txt").write_text(" ".join(f"word{i}" for i in range(2000)))
    rule = ItemsConfig(max_tokens=100, overlap_tokens=25)
    cut = build(place, items=rule, split="tail:0.5")
    assert sum(map(len, documents(cut, "a", "val"))) == cut.sources[0].val_bytes
    train = sum(len(text.encode()) for text in documents(cut, "a", "train"))
    assert train == cut.sources[0].train_bytes + cut.sources[0].overlap_tokens and cut.sources[0].cuts["inside"] > 10


def test_a_build_goes_on_behind_the_chunks_that_are_there(place):
    rule = ItemsConfig(max_tokens=100, overlap_tokens=20)
    whole = build(place, items=rule)
    chunks = [whole.folder / chunk["file"] for chunk in whole.manifest["chunks"]]
    times = [path.stat().st_ino for path in chunks]
    (whole.folder / "dataset.json").unlink()
    for path in chunks[3:]:
        path.unlink()
    for record in whole.folder.glob("chunks/*/source.json"):
        record.unlink()
    again = build(place, items=rule)
    assert again.sha256 == whole.sha256 and again.sources == whole.sources
    assert [path.stat().st_ino for path in chunks[:3]] == times[:3]


def test_a_dataset_is_named_by_its_items_and_by_nothing_else_that_came_later(place):
    source = SourceConfig(path=str(place / "a"), name="a")

    def name(**changes):
        return dataset_folder(Config(data=DataConfig(sources=(source,), **changes))).name

    assert name() == name(items=ItemsConfig()) != name(items=ItemsConfig(max_tokens=64))
