"""From a wish and its dataset to a run: measures the machine, fixes the recipe, makes the run directory.

Everything here happens once in a run's life; afterwards the recipe is read, never derived again.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ondevice.data.cursor import BatchCursor
from ondevice.data.dataset import Dataset
from ondevice.data.picture import look, warnings_about
from ondevice.device.memory import MachineMemory, give_back_memory, machine_memory
from ondevice.device.save_rate import measure_save_rate
from ondevice.errors import ResourceError
from ondevice.model.base import base_recipe
from ondevice.model.hugging_face import open_hugging_face
from ondevice.model.shape import check_shape
from ondevice.run.config import to_toml
from ondevice.run.create import create_run
from ondevice.run.directory import RunDir, home
from ondevice.run.postmortem import ANDROID_SHARE
from ondevice.run.recipe import Fit, ModelShape, Recipe
from ondevice.run.schema import Config
from ondevice.run.vocabulary import write_kept
from ondevice.train.adapter import with_adapter
from ondevice.train.adapter_wish import adapter_of
from ondevice.train.autotune import Choice, candidates, micro_batches_to_try, threads_to_try
from ondevice.train.caching import check_cache, plan_cache, told_cache
from ondevice.train.chain_plan import chained, cut, with_parts
from ondevice.train.compiler import check_compile
from ondevice.train.examples_plan import plan_examples
from ondevice.train.fitting import Way, choose_fit, frontier, memory_of, optimizer_state_of, ways
from ondevice.train.measure import Measured, Probed, is_worth_measuring, measure, measured_fit
from ondevice.train.order import data_recipe, with_order
from ondevice.train.parent_adapter import open_parent
from ondevice.train.plan import (
    LARGEST_PANEL,
    Estimate,
    estimate,
    make_recipe,
    warnings_of,
)
from ondevice.train.probe import MatmulRates, matmul_rates
from ondevice.train.prompts import panel_prompts, sample_prompts
from ondevice.train.saving import SavePlan, plan_saving
from ondevice.train.sizing import (
    Machine,
    choose_batch,
    choose_shape,
    expected_tokens,
    needs_rate,
)
from ondevice.train.top_layers import check_top_layers
from ondevice.train.tuned import tuned_choice
from ondevice.train.vocabulary import check_vocabulary, kept_ids, told_vocabulary
from ondevice.train.wish import base_folder, corpus_of, run_name

__all__ = ["Prepared", "make_run", "measure_machine", "micro_batches", "most_mb", "precisions_to_try", "prepare"]

LAPTOP_SHARE = 0.6
GROUP_SHARE = 0.85  # of a control group's limit, which is nobody else's; other processes of the app count too


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A recipe with the fit it starts with and what it is expected to take at ``tok_s`` tokens a second (None: not
    timed); what its checkpoints will take at the speed this disk was measured to have; what may disappoint; the ways to
    cut the work that there were to choose from, with the memory that may be used; what a real step of it took; and the
    tokens of a trimmed vocabulary."""

    recipe: Recipe
    fit: Fit
    estimate: Estimate
    saving: SavePlan
    tok_s: float | None
    warnings: tuple[str, ...] = ()
    ways: tuple[Way, ...] = ()
    memory_mb: float | None = None
    measured: Measured | None = None
    kept: Sequence[int] | None = None


def measure_machine(config: Config, *, cores: int, android: bool, flops_s: float) -> Machine:
    """The machine as the plan sees it: memory from the config, or a polite share of what is there, or nearly all of
    what a control group has been given."""
    memory = machine_memory()
    given_mb = config.budget.memory_mb
    if given_mb is not None and given_mb > memory.total_mb:
        raise ResourceError(f"'budget.memory_mb' {given_mb:,.0f} is more than the {memory.total_mb:,.0f} MB there are.")
    polite_mb = min(most_mb(memory, android=android), 0.8 * memory.available_mb + 200.0)
    return Machine(flops_s=flops_s, memory_mb=given_mb or polite_mb, cores=cores)


def most_mb(memory: MachineMemory, *, android: bool) -> float:
    """What the process may use of all that there is, whatever is free at the moment."""
    return (GROUP_SHARE if memory.of_group else ANDROID_SHARE if android else LAPTOP_SHARE) * memory.total_mb


def prepare(
    config: Config,
    dataset: Dataset,
    *,
    cores: int,
    android: bool,
    rate: float | None = None,
    always_time: bool = False,
) -> Prepared:
    """The decision. Times matrix products and whole steps where something depends on them, or ``always_time``; a
    ``rate`` in tokens a second takes the place of timed steps."""
    torch.set_flush_denormal(True)  # before the first parallel operation, or it covers one thread only
    why: dict[str, str] = {}
    config = chained(config)
    rates = _matmul_rates(config)
    machine = measure_machine(config, cores=cores, android=android, flops_s=rates.fp32_flops_s if rates else 0.0)
    corpus = corpus_of(dataset)
    folder = base_folder(config)
    base = None if folder is None else open_hugging_face(folder)
    examples = plan_examples(config, dataset, corpus, why, longest_context=base.shape.context if base else None)
    if examples is not None:
        config, corpus = examples.config, examples.corpus
    if config.data.max_unique_tokens is not None:
        unique = min(corpus.train_tokens, config.data.max_unique_tokens)
        corpus = dataclasses.replace(corpus, train_tokens=unique)
    shape = choose_shape(config, corpus, machine, why, base=base.shape if base is not None else None)
    check_shape(shape)
    parent = open_parent(config, shape)
    if parent is not None:
        config = parent.applied_to(config)
    check_top_layers(config, shape, learned=base is not None)
    check_compile(config, examples=examples is not None)
    check_cache(config, packed=examples is not None)
    check_vocabulary(config)
    kept = kept_ids(config, dataset) if base is not None else None
    whole, trimmed = shape, config.model.vocabulary == "trimmed"
    if kept is not None and trimmed:
        shape = dataclasses.replace(shape, vocab_size=len(kept))
    batch = choose_batch(config, shape, expected_tokens(config, corpus, shape, machine), why)
    ids = whole.vocab_size
    fit = choose_fit(config, shape, machine, batch=batch, why=why, ids=ids)
    timed = rate is None and (always_time or needs_rate(config))
    precisions = precisions_to_try(config, shape, fit, machine, rates, batch=batch, ids=ids)
    sizes = [fit.micro_batch]
    if rate is None:
        sizes = micro_batches(config, shape, fit, machine, batch=batch, ids=ids, precision=precisions[-1])
    choice = _choose(config, shape, fit, machine, precisions, batch=batch, sizes=sizes, timed=timed, why=why)
    give_back_memory()
    fit = choice.applied_to(fit)
    tok_s = rate or choice.tok_s
    data = data_recipe(config, dataset)
    if examples is not None:
        data = dataclasses.replace(data, train_tokens=examples.corpus.train_tokens)
    recipe = make_recipe(
        config,
        corpus,
        shape=whole,
        batch=batch,
        data=data,
        precision=choice.precision,
        tok_s=tok_s,
        prompts=sample_prompts(dataset),
        why=why,
        panel_prompts=panel_prompts(dataset, LARGEST_PANEL if config.eval.panel is None else config.eval.panel),
    )
    parts = cut(config, dataset, context=shape.context, batch=batch)
    recipe = with_parts(recipe, dataset, parts) if parts else with_order(recipe, config, dataset)
    recipe = with_adapter(recipe, config)
    if base is not None:
        recipe = dataclasses.replace(recipe, base=base_recipe(base))
    if kept is not None:
        recipe = told_vocabulary(recipe, fit, kept, trimmed=trimmed)
    if parent is not None:
        recipe = parent.recorded_in(recipe)
    known = ways(config, shape, batch=batch, threads=fit.threads, ids=ids, precision=choice.precision)
    probed = _probed(config, recipe, fit, known, machine, kept=kept if trimmed else None)
    fit = probed.fit
    recipe = _with_cache(config, recipe, fit, rows=None if examples is None else sum(examples.rows.counts))
    expected = estimate(recipe, fit, tok_s=tok_s)
    return Prepared(
        recipe=recipe,
        fit=fit,
        estimate=expected,
        saving=plan_saving(recipe, config.limits, save_mb_s=measure_save_rate(home()), tok_s=tok_s),
        tok_s=tok_s,
        warnings=(
            *warnings_of(expected),
            *probed.said,
            *_order_warnings(recipe, dataset),
            *(examples.warnings() if examples is not None else ()),
        ),
        ways=tuple(frontier(known)),
        memory_mb=machine.memory_mb,
        measured=probed.measured,
        kept=kept if trimmed else None,
    )


def _with_cache(config: Config, recipe: Recipe, fit: Fit, *, rows: int | None) -> Recipe:
    """The recipe, which says why a cache of frozen blocks pays or not; it changes nothing else."""
    plan = None if rows is None else plan_cache(recipe, fit, rows=rows)
    if plan is None:
        return recipe
    told = told_cache(plan, wished=config.fit.frozen_cache)
    return dataclasses.replace(recipe, why={**recipe.why, "fit.frozen_cache": told})


def _probed(
    config: Config, recipe: Recipe, fit: Fit, known: list[Way], machine: Machine, *, kept: Sequence[int] | None
) -> Probed:
    if not is_worth_measuring(config, recipe, fit, machine.memory_mb):
        return Probed(fit=fit, measured=None)
    return measured_fit(recipe, fit, known, memory_mb=machine.memory_mb, ask=functools.partial(measure, kept=kept))


def _order_warnings(recipe: Recipe, dataset: Dataset) -> Iterator[str]:
    cursor = BatchCursor.of(dataset, recipe.data, context=recipe.model.context, batch=recipe.train.batch)
    yield from warnings_about(look(cursor, windows=recipe.train.planned_steps * recipe.train.batch, stretches=1))


def _matmul_rates(config: Config) -> MatmulRates | None:
    """Measured where precision or size depends on it."""
    sized = (config.model.width or config.model.layers) and (config.train.batch or not needs_rate(config))
    return None if sized and config.train.precision != "auto" else matmul_rates()


def precisions_to_try(
    config: Config,
    shape: ModelShape,
    fit: Fit,
    machine: Machine,
    rates: MatmulRates | None,
    *,
    batch: int,
    ids: int | None = None,
) -> list[str]:
    """As the config says; for auto fp32, and then bf16 where its products are fast by the measured ``rates`` and memory
    has room for its copies of the matrices."""
    if config.train.precision != "auto":
        return [config.train.precision]
    assert rates is not None
    need_mb = memory_of(config, shape, fit, batch=batch, ids=ids, precision="bf16").total_mb
    return ["fp32", "bf16"] if rates.bf16_is_worth_trying and need_mb <= machine.memory_mb else ["fp32"]


def micro_batches(
    config: Config,
    shape: ModelShape,
    fit: Fit,
    machine: Machine,
    *,
    batch: int,
    ids: int | None = None,
    precision: str | None = None,
) -> list[int]:
    """The micro-batches to choose from, the fit's own first; it alone where the config gave one. ``precision``: the one
    to be timed that takes the most memory."""
    if config.fit.micro_batch is not None or fit.layerwise:
        return [fit.micro_batch]

    def has_room(larger: Fit) -> bool:
        need_mb = memory_of(config, shape, larger, batch=batch, ids=ids, precision=precision).total_mb
        return need_mb <= machine.memory_mb

    return micro_batches_to_try(fit, batch=batch, has_room=has_room)


def _choose(
    config: Config,
    shape: ModelShape,
    fit: Fit,
    machine: Machine,
    precisions: list[str],
    *,
    batch: int,
    sizes: list[int],
    timed: bool,
    why: dict[str, str],
) -> Choice:
    """One of ``precisions``, threads and one of ``sizes`` (micro-batch): by timed steps where there is a choice."""
    threads = [config.fit.threads] if config.fit.threads else threads_to_try(fit.threads, machine.cores)
    wanted = candidates(precisions=precisions, threads=threads)
    if len(wanted) == len(sizes) == 1 and not timed:
        return wanted[0]
    optimizer, adapter = optimizer_state_of(config), adapter_of(config, shape)
    choice, known = tuned_choice(
        shape,
        fit,
        wanted,
        sizes,
        batch=batch,
        optimizer=optimizer,
        adapter=adapter,
        top_layers=config.train.top_layers,
        rate=timed,
    )
    found = f"the fastest of {len(wanted) + len(sizes) - 1} timed" if len(wanted) + len(sizes) > 2 else "as given"
    cut = f"{choice.precision}, {choice.threads} thread{'s' * (choice.threads > 1)}, micro-batch {choice.micro_batch}"
    before = " on this device before" if known else ""
    why["train.precision, fit"] = f"{cut}: {choice.tok_s:,.0f} tokens/s, {found}{before}"
    return choice


def make_run(config: Config, prepared: Prepared, dataset: Dataset, *, folder: Path | None = None) -> RunDir:
    """The run directory of a decision, in ``folder`` (None: that of all runs)."""
    return create_run(
        (folder or home() / "runs") / run_name(config),
        config_toml=to_toml(config),
        recipe=prepared.recipe,
        fit=prepared.fit,
        measured=None if prepared.measured is None else prepared.measured.to_json(),
        save_tokenizer=dataset.tokenizer().save,
        save_vocabulary=None if prepared.kept is None else functools.partial(write_kept, kept=prepared.kept),
    )
