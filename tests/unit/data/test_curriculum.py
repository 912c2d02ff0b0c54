"""The curriculum: every window once a pass, from one end of the ranks to the other, at any position, on any machine."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.data.build import build_dataset
from ondevice.data.curriculum import Curriculum, ranked
from ondevice.data.cursor import BatchCursor
from ondevice.data.dataset import Dataset
from ondevice.data.difficulty import Difficulty, _window_sums, window_difficulty
from ondevice.data.order import Grid
from ondevice.data.parcel import dataset_files
from ondevice.errors import CheckpointError, DataError, UsageError
from ondevice.run.recipe import CurriculumRecipe
from ondevice.run.schema import DataConfig, ItemsConfig, SourceConfig, TokenizerConfig

BY_LENGTH = CurriculumRecipe(by="length", direction="ascending", mixing=0.0, afterwards="shuffled")
BY_SCORE = CurriculumRecipe(by="score", direction="ascending", mixing=0.0, afterwards="shuffled")
SUMS = st.lists(st.integers(-5, 5) | st.integers(-(10**15), 10**15), min_size=1, max_size=80)


@settings(deadline=None)
@given(SUMS, st.booleans(), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 2**63 - 1))
def test_a_pass_has_every_window_once(sums, descending, mixing, seed):
    order = ranked(np.array(sums), descending=descending, mixing=mixing, seed=seed)
    assert sorted(order.tolist()) == list(range(len(sums)))
    if not mixing:
        values = np.array(sums)[order].tolist()
        assert values == sorted(sums, reverse=descending)


@settings(deadline=None)
@given(SUMS, st.integers(1, 80), st.sampled_from([0.0, 0.5]))
def test_a_training_shorter_than_a_pass_goes_over_all_ranks(sums, first, mixing):
    order = ranked(np.array(sums), descending=False, mixing=mixing, seed=3, first=first)
    assert sorted(order.tolist()) == list(range(len(sums)))
    by_rank = np.empty(len(sums), dtype=np.int64)
    by_rank[ranked(np.array(sums), descending=False, mixing=0.0, seed=3)] = np.arange(len(sums))
    read = np.sort(by_rank[order[:first]])
    even = (np.arange(len(read)) + 1) * len(sums) / len(read) - 1
    assert np.abs(read - even).max() < 1  # evenly from all ranks
    assert mixing or (np.diff(by_rank[order[:first]]) > 0).all()


def test_equal_windows_stand_in_an_order_of_the_seed():
    sums = np.repeat([3, 1, 2], 100)
    one, two = (ranked(sums, descending=False, mixing=0.0, seed=seed) for seed in (1, 2))
    assert not np.array_equal(one, two) and np.array_equal(sums[one], sums[two])
    assert abs(np.corrcoef(one[:100], np.arange(100))[0, 1]) < 0.3


def test_mixing_goes_from_easy_to_mixed():
    count = 20_000
    sums = np.arange(count)
    places = [ranked(sums, descending=False, mixing=mixing, seed=1) / count for mixing in (0.0, 0.5, 1.0)]
    starts, ends = [each[: count // 10].mean() for each in places], [each[-count // 10 :] for each in places]
    assert starts[0] < starts[1] < starts[2] < 0.25  # it still begins with the easy ones
    assert ends[0].min() >= 0.9 and np.quantile(ends[2], 0.1) < 0.4  # and ends with everything
    assert np.quantile(ends[1], 0.1) > np.quantile(ends[2], 0.1)


def test_the_mixture_at_the_end_is_what_the_rule_says():
    """At place p of 0 ... 1 windows of rank r < p come with density 1 / (1 - r): the share below 0.5 follows."""
    count = 100_000
    order = ranked(np.arange(count), descending=False, mixing=1.0, seed=7) / count
    first, last = (int((p + (1 - p) * math.log(1 - p)) * count) for p in (0.70, 0.72))  # the share of windows before p
    part = order[first:last]
    expected = math.log(2) / -math.log(1 - 0.71)
    sigma = math.sqrt(expected * (1 - expected) / len(part))
    assert abs((part < 0.5).mean() - expected) < 4 * sigma + 0.005


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.lists(st.integers(1, 40), max_size=30), min_size=1, max_size=3),
    context=st.integers(2, 16),
    values=st.integers(0, 9),
)
def test_a_windows_difficulty_is_the_mean_over_its_tokens(lengths, context, values):
    for own in lengths:
        ends = np.cumsum(own).astype(np.int64)
        scores = (np.arange(len(own)) * 7 + values) % 10
        windows = max(0, (int(ends[-1]) if own else 0) - 1) // context
        if windows:
            tokens = np.repeat(scores, own)[: windows * context].reshape(windows, context)
            assert _window_sums(scores, ends, windows, context).tolist() == tokens.sum(axis=1).tolist()


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any),
    position=st.integers(0, 300),
    later=st.sampled_from(["shuffled", "ranked"]),
)
def test_a_position_is_computed_alone_and_counts_agree(sizes, position, later):
    windows = np.array(sizes, dtype=np.int64)
    grid = Grid(windows, windows * 8 + 4, 8, 5)
    sums = (np.arange(grid.total) * 37) % 11
    order = Curriculum(grid, Difficulty(sums, 8), CurriculumRecipe(**{**vars_of(BY_LENGTH), "afterwards": later}))
    whole = order.windows(np.arange(position + 1))
    alone = order.windows(np.array([position]))
    assert (alone.sources[0], alone.starts[0]) == (whole.sources[position], whole.starts[position])
    counts = np.bincount(whole.sources[:position], minlength=len(sizes))
    assert order.counts(position).tolist() == counts.tolist()
    for epoch in (0, 1):
        found = order.windows(np.arange(grid.total) + epoch * grid.total)
        places = set(zip(found.sources.tolist(), found.starts.tolist(), strict=True))
        assert (found.epochs == epoch).all() and len(places) == grid.total
        means = order.difficulty(np.arange(grid.total) + epoch * grid.total).tolist()
        assert (means == sorted(means)) or (epoch == 1 and later == "shuffled")


def vars_of(recipe):
    return {key: getattr(recipe, key) for key in ("by", "direction", "mixing", "afterwards", "scores")}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("curriculum")
    rows = [{"text": f"row {i} " + "x" * (i * 7919 % 200), "hard": (i * 37) % 100 / 10 - 3} for i in range(400)]
    (root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "plain.txt").write_text("\n\n".join(f"Paragraph {i}. " + "Word. " * (i % 30) for i in range(150)))
    return root


def build(place, folder, *, score_field="hard", kind="byte", **changes):
    sources = (
        SourceConfig(path="rows.jsonl", name="rows", score_field=score_field),
        SourceConfig(path="plain.txt", name="plain", document="paragraph", score=4.0),
    )
    data = DataConfig(sources=sources, split="hash:0.1", **{"chunk_tokens": 2048, **changes})
    return build_dataset(data, TokenizerConfig(kind=kind), base=place, folder=place / folder)


@pytest.fixture(scope="module")
def dataset(place):
    return build(place, "d")


def cursor(dataset, curriculum, **changes):
    fixed = {"context": 32, "batch": 8, "order": "curriculum", "seed": 5, "curriculum": curriculum}
    return BatchCursor(dataset, **{**fixed, **changes})


def documents(dataset, source):
    stream = dataset.stream(source, "train")
    ids = stream.read(0, len(stream))
    return [bytes(part[:-1].tolist()).decode() for part in np.split(ids, np.flatnonzero(ids == 256) + 1)[:-1]]


def test_scores_of_rows_stay_with_their_rows_through_split_copies_and_items(place, dataset):
    rows = [json.loads(line) for line in (place / "rows.jsonl").read_text().split("\n")]
    expected = {row["text"]: row["hard"] for row in rows}
    assert dataset.scores("rows").tolist() == [expected[text] for text in documents(dataset, "rows")]
    assert dataset.scores("plain") is None and dataset.sources[1].score == 4.0
    cut = build(place, "cut", items=ItemsConfig(max_tokens=40, overlap_tokens=8))
    scores, items = cut.scores("rows").tolist(), documents(cut, "rows")
    assert len(scores) == len(items) > 360
    number = {f"row {i} ": expected[text] for i, text in enumerate(expected)}
    for score, item in zip(scores, items, strict=True):
        assert not item.startswith("row ") or score == number[f"{item.rsplit(' ', 1)[0]} "]


def test_windows_come_short_first_over_all_sources(dataset):
    curriculum = cursor(dataset, BY_LENGTH)
    total = curriculum.windows_per_epoch
    means = curriculum.difficulty(np.arange(total))
    assert (np.diff(means) >= 0).all() and means[0] < 30 < 150 < means[-1]
    assert curriculum.tokens_by_source(total) == {
        name: windows * 32 for name, windows in zip(("rows", "plain"), curriculum.windows_by_source, strict=True)
    }
    first = bytes(curriculum.next().x_BT[0].clip(0, 255).tolist())
    assert first.count(b"\xff") >= 1  # the shortest documents: several in one window


def test_scores_rank_rows_and_whole_sources_on_one_ladder(dataset):
    found = cursor(dataset, CurriculumRecipe(**{**vars_of(BY_SCORE), "scores": {"plain": 4.0}}))
    total = found.windows_per_epoch
    means, sources = found.difficulty(np.arange(total)), found.places(np.arange(total)).sources
    assert (np.diff(means) >= 0).all() and means[0] >= -3 and means[-1] <= 6.9
    assert np.allclose(means[sources == 1], 4.0, atol=1e-6) and (means[sources == 0] > 4).any()
    down = cursor(dataset, CurriculumRecipe(**{**vars_of(found_recipe()), "direction": "descending"}))
    assert (np.diff(down.difficulty(np.arange(total))) <= 0).all()


def found_recipe():
    return CurriculumRecipe(**{**vars_of(BY_SCORE), "scores": {"plain": 4.0}})


def test_resume_is_a_number_and_bound_to_the_same_scores(place, dataset):
    straight = cursor(dataset, found_recipe())
    batches = [straight.next() for _ in range(40)]
    for _ in range(3):
        again = cursor(dataset, found_recipe())
        again.load_state_dict({**straight.state_dict(), "position": 8 * 20})
        assert all(np.array_equal(again.next().x_BT, batch.x_BT) for batch in batches[20:])
    other = cursor(dataset, CurriculumRecipe(**{**vars_of(found_recipe()), "mixing": 0.5}))
    with pytest.raises(CheckpointError, match="another order"):
        other.load_state_dict(straight.state_dict())


def test_other_scores_are_another_order_of_the_same_tokens(place, dataset):
    rows = [json.loads(line) for line in (place / "rows.jsonl").read_text().split("\n")]
    (place / "rows.jsonl").write_text("\n".join(json.dumps({**row, "hard": -row["hard"]}) for row in rows))
    try:
        other = build(place, "other")
    finally:
        (place / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert other.sha256 == dataset.sha256
    assert cursor(other, found_recipe()).order_sha256 != cursor(dataset, found_recipe()).order_sha256
    assert cursor(other, BY_LENGTH).order_sha256 == cursor(dataset, BY_LENGTH).order_sha256


def test_sources_without_scores_are_named(dataset):
    with pytest.raises(UsageError, match="'plain' has no scores; give it score_field"):
        cursor(dataset, BY_SCORE)


def test_a_damaged_score_file_is_noticed_made_again_and_travels(place):
    dataset = build(place, "damaged")
    path = dataset.folder / dataset.sources[0].scores["file"]
    assert f"data/{dataset.sources[0].scores['file']}" in [name for name, _, _ in dataset_files(dataset)]
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(DataError, match=r"train\.scores: these scores are damaged"):
        Dataset.open(dataset.folder).verify()
    with pytest.raises(DataError, match="damaged"):
        cursor(dataset, found_recipe())
    build(place, "damaged")
    assert path.read_bytes() == good
    path.unlink()
    build(place, "damaged")
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{}", r"rows.jsonl:3: there is no field 'hard'; the fields are: text; set score_field"),
        ('{"hard": "many"}', r"rows.jsonl:3: the field 'hard' holds 'many', which is no number"),
        ('{"hard": null}', r"rows.jsonl:3: the field 'hard' holds nothing, which is no number"),
        ('{"hard": true}', r"rows.jsonl:3: the field 'hard' holds True, which is no number"),
        ('{"hard": [1]}', r"rows.jsonl:3: the field 'hard' holds \[1\], which is no number"),
        ('{"hard": NaN}', r"rows.jsonl:3: the field 'hard' holds nan; a score is a number from"),
        ('{"hard": 1e300}', r"rows.jsonl:3: the field 'hard' holds 1e\+300; a score is a number from"),
    ],
)
def test_rows_without_a_number_are_named(tmp_path, value, words):
    row = json.dumps({"text": "a b c", **json.loads(value)}, allow_nan=True)
    good = json.dumps({"text": "first", "hard": 1})
    (tmp_path / "rows.jsonl").write_text(f"{good}\n{good}\n{row}\n{good}")
    with pytest.raises(DataError, match=words):
        build_rows(tmp_path, "rows.jsonl", format="jsonl")


def build_rows(place, path, **keys):
    data = DataConfig(sources=(SourceConfig(path=path, score_field="hard", **keys),), split="hash:0")
    return build_dataset(data, TokenizerConfig(kind="byte"), base=place, folder=place / "d")


def test_tables_have_scores_too(tmp_path):
    (tmp_path / "t.csv").write_text("text,hard\n" + "".join(f"line {i},{i / 4}\n" for i in range(9)))
    found = build_rows(tmp_path, "t.csv", format="csv")
    assert found.scores("t").tolist() == [i / 4 for i in range(9)]
    (tmp_path / "t.csv").write_text("text,hard\na,1\nb,\n")
    with pytest.raises(DataError, match=r"t\.csv:3: the field 'hard' holds '', which is no number"):
        build_rows(tmp_path, "t.csv", format="csv")


def test_parquet_has_scores_too(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {"text": [f"line {i}" for i in range(5)], "hard": [1.5, 2, 3, 4, 5]}
    parquet.write_table(pyarrow.table(table), tmp_path / "t.parquet")
    assert build_rows(tmp_path, "t.parquet", format="parquet").scores("t").tolist() == table["hard"]
    parquet.write_table(pyarrow.table({**table, "hard": [1, 2, None, 4, 5]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet:3: the field 'hard' holds nothing"):
        build_rows(tmp_path, "t.parquet", format="parquet")


def test_text_without_rows_has_no_field_for_scores(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    with pytest.raises(UsageError, match=r"a\.txt: 'a' has score_field = 'hard', and this file has no rows"):
        build_rows(tmp_path, "a.txt")


def test_lengths_do_not_depend_on_how_the_text_was_chunked(place, dataset):
    wide = build(place, "wide", chunk_tokens=1 << 16)
    grid = Grid(np.array([10, 5]), np.array([400, 200]), 32, 1)
    one, two = (window_difficulty(each, grid, BY_LENGTH).sums_W for each in (dataset, wide))
    lengths = np.array([len(text.encode()) for text in documents(dataset, "rows")])
    expected = np.repeat(lengths, lengths + 1)[:320].reshape(10, 32).sum(axis=1)
    assert one.tolist() == two.tolist() and one[:10].tolist() == expected.tolist()
