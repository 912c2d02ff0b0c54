"""Arithmetic of sizing and plan: one dial in, every number out, with reasons."""

import dataclasses

import pytest

from ondevice.errors import DataError, ResourceError, UsageError
from ondevice.model.counts import count_parameters
from ondevice.model.shape import check_shape
from ondevice.run.config import parse_config
from ondevice.run.recipe import DataRecipe
from ondevice.train.chain_plan import chained
from ondevice.train.fitting import choose_fit
from ondevice.train.keeper import save_interval_s
from ondevice.train.memory import estimate_memory, estimate_run
from ondevice.train.plan import estimate, make_recipe, spread, train_budget, warnings_of
from ondevice.train.sizing import Corpus, Machine, choose_batch, choose_lr, choose_shape, expected_tokens

CORPUS = Corpus(train_tokens=3_000_000, val_tokens=150_000, vocab_size=4096, sources=1)
LAPTOP = Machine(flops_s=1e11, memory_mb=4000, cores=2)
DATA = DataRecipe(
    dataset="x",
    dataset_sha256="",
    tokenizer_sha256="",
    order="shuffled",
    order_sha256="",
    seed=1,
    weights={"a": 1.0},
    train_tokens=3_000_000,
)


def config(tmp_path, *changes):
    return parse_config("", where="test", base=tmp_path, changes=changes)


def recipe_of(wish, corpus=CORPUS, machine=LAPTOP, tok_s=10_000.0):
    why = {}
    shape = choose_shape(wish, corpus, machine, why)
    batch = choose_batch(wish, shape, expected_tokens(wish, corpus, shape, machine), why)
    fit = choose_fit(wish, shape, machine, batch=batch, why=why)
    data = dataclasses.replace(DATA, train_tokens=corpus.train_tokens)
    recipe = make_recipe(
        wish, corpus, shape=shape, batch=batch, data=data, precision="fp32", tok_s=tok_s, prompts=("p",), why=why
    )
    return recipe, fit


def test_more_minutes_give_a_larger_model_and_more_tokens(tmp_path):
    sizes = []
    for minutes in (1, 5, 30, 240):
        recipe, _ = recipe_of(config(tmp_path, f"budget.minutes={minutes}"))
        check_shape(recipe.model)
        sizes.append((count_parameters(recipe.model), recipe.train.tokens))
    assert sizes == sorted(sizes)
    assert sizes[0][0] < sizes[-1][0]


def test_a_faster_machine_gets_a_larger_model_in_the_same_minutes(tmp_path):
    wish = config(tmp_path, "budget.minutes=30")
    slow, fast = (choose_shape(wish, CORPUS, dataclasses.replace(LAPTOP, flops_s=rate), {}) for rate in (1e10, 1e12))
    assert count_parameters(slow) < count_parameters(fast)


def test_memory_alone_gives_the_largest_shape_that_fits_it(tmp_path):
    text = dataclasses.replace(CORPUS, train_tokens=300_000_000)
    sizes = []
    for memory_mb in (400, 2000):
        wish = config(tmp_path, f"budget.memory_mb={memory_mb}")
        recipe, fit = recipe_of(wish, corpus=text, machine=dataclasses.replace(LAPTOP, memory_mb=memory_mb))
        assert estimate_memory(recipe.model, fit, optimizer=recipe.train.optimizer).total_mb <= memory_mb
        sizes.append(count_parameters(recipe.model))
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("dial", ["budget.memory_mb=2000", "train.epochs=4", "train.steps=100"])
def test_a_small_text_never_gets_a_large_model(tmp_path, dial):
    notes = dataclasses.replace(CORPUS, train_tokens=60_000, vocab_size=1024)
    recipe, _ = recipe_of(config(tmp_path, dial), corpus=notes)
    assert count_parameters(recipe.model) < 500_000
    assert "budget.minutes" not in recipe.why


@pytest.mark.parametrize("minutes", [1, 5, 20, 60, 200])
def test_given_heads_restrict_the_derived_width(tmp_path, minutes):
    for change in ("model.kv_heads=2", "model.heads=6"):
        recipe, _ = recipe_of(config(tmp_path, change, f"budget.minutes={minutes}"))
        check_shape(recipe.model)


@pytest.mark.parametrize(("sources", "tokens"), [(40, 3_000_000), (12, 300_000), (40, 300_000)])
def test_many_sources_do_not_make_evaluation_dear(tmp_path, sources, tokens):
    many = dataclasses.replace(CORPUS, sources=sources)
    recipe, _ = recipe_of(config(tmp_path, f"train.tokens={tokens}", "eval.count=9", "model.width=96"), corpus=many)
    window = recipe.model.context
    cost = len(recipe.eval.steps) * recipe.eval.max_tokens * sources / 3 / recipe.train.tokens
    assert cost <= 0.036 or recipe.eval.max_tokens == window


def test_what_a_person_gave_is_kept(tmp_path):
    wish = config(
        tmp_path,
        "model.layers=3",
        "model.width=96",
        "model.heads=3",
        "train.batch=5",
        "train.lr=0.01",
        "train.steps=70",
    )
    recipe, fit = recipe_of(wish)
    assert (recipe.model.layers, recipe.model.width, recipe.model.heads) == (3, 96, 3)
    assert (recipe.train.batch, recipe.train.lr, recipe.train.steps) == (5, 0.01, 70)
    assert fit.micro_batch <= 5
    assert "train.lr" not in recipe.why


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@pytest.mark.parametrize("width", [8, 30, 100, 128, 190, 300, 512, 1000])
def test_any_even_width_gets_heads_that_divide_it(tmp_path, arch, width):
    recipe, _ = recipe_of(config(tmp_path, f"model.width={width}", f"model.arch={arch}", "train.steps=10"))
    check_shape(recipe.model)
    assert recipe.model.heads == 1 or 24 <= recipe.model.head_dim <= 128


def test_every_derived_key_says_why(tmp_path):
    recipe, _ = recipe_of(config(tmp_path))
    assert {"model", "model.context", "train.batch", "train.lr", "train.steps", "fit", "budget.minutes"} <= set(
        recipe.why
    )


def test_minutes_become_tokens_at_the_measured_rate(tmp_path):
    steps, why = train_budget(config(tmp_path, "budget.minutes=10"), CORPUS, tokens_per_step=1000, tok_s=2000.0)
    assert steps == int(600 * 0.9 * 2000 / 1000)
    assert "2,000 tokens/s" in why


def test_a_token_budget_ends_at_the_first_step_at_or_past_it(tmp_path):
    steps, _ = train_budget(config(tmp_path, "train.tokens=20_000_000"), CORPUS, tokens_per_step=4096, tok_s=None)
    assert (steps, steps * 4096) == (4883, 20_000_768)


def test_two_budgets_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"'train\.tokens' and 'train\.steps' say the same thing"):
        train_budget(config(tmp_path, "train.tokens=1", "train.steps=1"), CORPUS, tokens_per_step=1, tok_s=1.0)


def test_too_little_memory_is_refused_with_what_would_help(tmp_path):
    with pytest.raises(ResourceError, match=r"MB may be used; make model\.width"):
        recipe_of(config(tmp_path), machine=dataclasses.replace(LAPTOP, memory_mb=100))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_given_size_may_be_trained_in_a_leaner_way(tmp_path, optimizer):
    wish = config(
        tmp_path,
        f"train.optimizer={optimizer}",
        "model.width=768",
        "model.layers=12",
        "model.context=512",
        "train.batch=4",
        "train.steps=9",
    )
    _, plain = recipe_of(wish)
    recipe, fit = recipe_of(wish, machine=dataclasses.replace(LAPTOP, memory_mb=1500))
    assert not plain.activation_checkpointing and (fit.activation_checkpointing or fit.layerwise)
    assert estimate_run(recipe, fit).total_mb <= 1500


def test_the_smallest_size_may_be_trained_in_a_leaner_way_too(tmp_path):
    long = dataclasses.replace(CORPUS, vocab_size=300)
    wish = config(tmp_path, "model.context=8192", "train.optimizer=adamw", "budget.minutes=5", "train.batch=1")
    _, plain = recipe_of(wish, corpus=long)
    assert not plain.activation_checkpointing and not plain.layerwise
    recipe, fit = recipe_of(wish, corpus=long, machine=dataclasses.replace(LAPTOP, memory_mb=340))
    assert recipe.model.width == 64 and "model" in recipe.why
    assert fit.activation_checkpointing or fit.layerwise
    assert estimate_run(recipe, fit).total_mb <= 340


def test_a_derived_size_leaves_room_for_all_that_the_wish_holds(tmp_path):
    machine = dataclasses.replace(LAPTOP, memory_mb=500)
    plain, compiled = (
        choose_shape(config(tmp_path, "budget.memory_mb=500", *change), CORPUS, machine, {})
        for change in ((), ("train.compile=true",))
    )
    assert count_parameters(compiled) < count_parameters(plain)


def test_memory_shrinks_the_micro_batch_and_never_the_batch(tmp_path):
    wish = config(tmp_path, "model.width=256", "model.layers=6", "train.batch=16", "train.steps=500")
    roomy, tight = (recipe_of(wish, machine=dataclasses.replace(LAPTOP, memory_mb=mb)) for mb in (4000, 480))
    assert roomy[0].train.batch == tight[0].train.batch == 16
    assert tight[1].micro_batch < roomy[1].micro_batch
    assert estimate_memory(tight[0].model, tight[1], optimizer="muon").total_mb <= 480


def test_a_corpus_smaller_than_one_block_is_refused(tmp_path):
    tiny = dataclasses.replace(CORPUS, train_tokens=20)
    with pytest.raises(DataError, match="fewer than one block of 65"):
        recipe_of(config(tmp_path, "model.context=64", "train.steps=10"), corpus=tiny)


def test_many_small_sources_get_a_context_that_fits_the_largest(tmp_path):
    wish = config(tmp_path, "train.steps=10", "train.batch=2")
    contexts = {}
    for largest in (100_000, 900, 60, 20, 9, None):
        corpus = dataclasses.replace(CORPUS, train_tokens=100_000, largest_tokens=largest)
        recipe, _ = recipe_of(wish, corpus=corpus)
        contexts[largest] = recipe.model.context
    assert contexts == {100_000: 128, 900: 64, 60: 32, 20: 16, 9: 8, None: 128}
    assert recipe_of(wish)[0].model.context == 256


def test_a_text_too_short_for_any_window_is_refused(tmp_path):
    shortest = dataclasses.replace(CORPUS, train_tokens=100_000, largest_tokens=8)
    for changes, needed in ((), 9), (("model.context=64",), 65):
        with pytest.raises(DataError, match=f"its largest source has 8 training tokens and a window needs {needed};"):
            recipe_of(config(tmp_path, "train.steps=10", *changes), corpus=shortest)


def test_a_step_has_an_end(tmp_path):
    recipe_of(config(tmp_path, "model.context=256", "train.batch=65536", "train.steps=1"))
    with pytest.raises(UsageError, match="makes 33,554,432 tokens a step; at most 16,777,216 are allowed"):
        recipe_of(config(tmp_path, "model.context=512", "train.batch=65536", "train.steps=1"))


def test_a_floor_above_the_peak_is_refused(tmp_path):
    with pytest.raises(UsageError, match="above the peak"):
        recipe_of(config(tmp_path, "train.lr=1e-4", "train.lr_min=1e-3", "train.steps=10"))


def test_wsd_needs_a_floor_above_zero(tmp_path):
    with pytest.raises(UsageError, match="must be more than 0"):
        recipe_of(config(tmp_path, "train.schedule=wsd", "train.lr_min=0.0", "train.steps=10"))


def test_few_updates_and_many_epochs_are_warned_about(tmp_path):
    recipe, fit = recipe_of(config(tmp_path, "train.steps=20", "train.batch=8"))
    assert "fewer than 100" in warnings_of(estimate(recipe, fit, tok_s=None))[0]
    recipe, fit = recipe_of(config(tmp_path, "train.epochs=9"))
    assert warnings_of(estimate(recipe, fit, tok_s=None)) == [
        "The text is repeated 9.0 times: beyond 4 a model learns little that is new and starts to recite. Add text, "
        "or spend fewer tokens."
    ]


def test_evaluation_is_sized_to_a_twentieth_of_the_time(tmp_path):
    recipe, _ = recipe_of(config(tmp_path, "train.tokens=20_000_000"))
    cost = len(recipe.eval.steps) * recipe.eval.max_tokens * CORPUS.sources / 3 / recipe.train.tokens
    assert 0.01 < cost <= 0.036


@pytest.mark.parametrize(("parts", "tokens"), [(120, 20_000_000), (6, 3_000_000), (0, 100_000)])
def test_evaluations_are_paid_as_often_as_they_come(tmp_path, parts, tokens):
    """A chain is measured after each part, however many evaluations the config counts."""
    corpus = dataclasses.replace(CORPUS, train_tokens=tokens)
    own = "" if parts else f"train.tokens={tokens}"
    wish = config(tmp_path, "model.width=96", "train.batch=4", *([own] if own else [f"chain.parts={parts}"]))
    recipe, _ = recipe_of(chained(wish) if parts else wish, corpus=corpus)
    times = parts + 1 if parts else len(recipe.eval.steps)
    cost = times * recipe.eval.max_tokens * corpus.sources / 3 / recipe.train.tokens
    assert cost <= 0.036 or recipe.eval.max_tokens == recipe.model.context


def test_no_validation_text_means_no_evaluation(tmp_path):
    recipe, _ = recipe_of(config(tmp_path, "train.steps=10"), corpus=dataclasses.replace(CORPUS, val_tokens=0))
    assert recipe.eval.steps == ()


@pytest.mark.parametrize(
    ("count", "steps", "expected"),
    [(0, 10, ()), (1, 10, (10,)), (2, 10, (0, 10)), (3, 10, (0, 5, 10)), (21, 4, (0, 1, 2, 3, 4))],
)
def test_spread_includes_both_ends(count, steps, expected):
    assert spread(count, steps) == expected


def test_rate_falls_with_width_beyond_128(tmp_path):
    shape, _ = recipe_of(config(tmp_path, "train.steps=10"))
    widths = [dataclasses.replace(shape.model, width=w) for w in (64, 128, 512)]
    adamw, muon = (config(tmp_path, f"train.optimizer={name}") for name in ("adamw", "muon"))
    assert [choose_lr(adamw, width, {}) for width in widths] == [3e-3, 3e-3, 7.5e-4]
    assert [choose_lr(muon, width, {}) for width in widths] == [1e-2, 1e-2, 5e-3]


@pytest.mark.parametrize(
    ("save_s", "every_s", "expected"), [(0.1, 300, 300), (12.0, 300, 600), (90.0, 300, 1800), (90.0, 3600, 3600)]
)
def test_saving_never_costs_more_than_a_fiftieth_of_the_time(save_s, every_s, expected):
    assert save_interval_s(save_s, every_s) == expected
