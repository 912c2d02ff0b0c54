"""Which fit a launch takes. It is sticky: it stays unless memory killed the run, the device shrank, or a person asks.

What changes it while a run goes on is in ``ondevice.train.refit_live``. A change never alters what is learned but by
rounding (and by the masks of dropout); it says where exactness restarts.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ondevice.data.parcel import open_dataset
from ondevice.device.host import on_android
from ondevice.device.memory import machine_memory
from ondevice.device.unknown import attempt
from ondevice.errors import OndeviceError
from ondevice.run.config import read_wish
from ondevice.run.directory import RunDir
from ondevice.run.files import read_json
from ondevice.run.postmortem import Death
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.schema import Limits
from ondevice.run.store import Checkpoint
from ondevice.run.telemetry import as_number, launch_files, read_file
from ondevice.run.vocabulary import vocabulary_recipe
from ondevice.train.autotune import candidates, threads_to_try
from ondevice.train.fitting import choose_fit
from ondevice.train.memory import estimate_run
from ondevice.train.prepare import measure_machine, micro_batches, most_mb
from ondevice.train.told_fits import Told, last_told
from ondevice.train.tuned import tuned_choice
from ondevice.train.vocabulary import WORTH_MB, kept_ids

__all__ = ["Decision", "Device", "decide", "differences", "smaller"]

LESS = 0.75  # of the memory that a fit governs is left after one shrinking, at most
SMALLEST_CHUNK = 64  # tokens
SHRUNK = 0.9  # a device with less than this share of the memory it had is another one


@dataclass(frozen=True, kw_only=True)
class Device:
    """What a fit depends on. ``memory_mb`` is what the process may use at most; None where it is unknown."""

    cores: int
    total_mb: float | None
    memory_mb: float | None
    android: bool

    @classmethod
    def here(cls, limits: Limits) -> Device:
        android, memory = on_android(os.environ), attempt({}, "", machine_memory)
        bounds = [most_mb(memory, android=android)] if memory else []
        bounds += [limits.max_rss_mb] if limits.max_rss_mb else []
        total_mb = memory.total_mb if memory else None
        return cls(cores=_cores(), total_mb=total_mb, memory_mb=min(bounds, default=None), android=android)


def _cores() -> int:
    """Cores the device has, also those that sleep or that other programs were given for now."""
    return max(os.sysconf("SC_NPROCESSORS_CONF"), os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The fit of a launch, the one before it, and ``why`` it changed ("" where it did not). ``said``: sentences.

    ``full_threads``: what the threads were before a live run gave some up, for as long as they are missing.
    """

    fit: Fit
    before: Fit
    why: str = ""
    said: list[str] = field(default_factory=list)
    told: Told | None = None

    @property
    def full_threads(self) -> int | None:
        told = self.told
        return told.full_threads if told is not None and told.fit.threads == self.fit.threads else None

    @property
    def changes(self) -> list[str]:
        """``micro_batch: 4 -> 2`` for each value that is another one."""
        return differences(self.before, self.fit)


def differences(before: Fit, after: Fit) -> list[str]:
    """``micro_batch: 4 -> 2`` for each value that differs."""
    old, new = before.to_json(), after.to_json()
    return [f"{name}: {old[name]} -> {new[name]}" for name in old if old[name] != new[name]]


def decide(
    run: RunDir,
    recipe: Recipe,
    checkpoint: Checkpoint | None,
    *,
    death: Death | None,
    limits: Limits,
    device: Device,
    asked: bool = False,
) -> Decision:
    """The fit of the launch that begins now. ``asked``: a person wants it chosen anew for this device."""
    told = _last_fit(run, checkpoint)
    before = told.fit
    died = death is not None and death.cause == "memory"
    fit, why = before, []
    if asked:
        fit, reason = _chosen_anew(run, recipe, before, device, keep_size=died)
        why.append(reason)
    if died:
        fit = smaller(fit, recipe, limit_mb=device.memory_mb)
        why.append("the last launch was killed for want of memory")
    elif not asked:
        fit, reasons = _for_this_device(run, recipe, fit, device)
        why += reasons
    if fit == before:
        said = _unchanged(run, before, recipe, limits, died=died, asked=asked)
        return Decision(fit=before, before=before, said=said, told=told)
    if limits.fixed_fit:
        refused = f"The fit stays as it is because limits.fixed_fit is set, though {' and '.join(why)}."
        return Decision(fit=before, before=before, said=[refused], told=told)
    return dataclasses.replace(_changed(before, fit, recipe, why=" and ".join(why)), told=None if asked else told)


def _changed(before: Fit, fit: Fit, recipe: Recipe, *, why: str) -> Decision:
    masks = " The masks of dropout are drawn anew." if recipe.model.dropout else ""
    said = f"The fit changes ({', '.join(differences(before, fit))}) because {why}; equal to rounding, not to the bit."
    return Decision(fit=fit, before=before, why=why, said=[said + masks])


def _unchanged(run: RunDir, fit: Fit, recipe: Recipe, limits: Limits, *, died: bool, asked: bool) -> list[str]:
    """What to say where nothing changes though something might have."""
    if died:
        need_mb = estimate_run(recipe, fit).total_mb
        said = (
            f"Memory killed the last launch, and the fit is as small as it gets (about {need_mb:,.0f} MB): close other "
            f"programs, or {_with_consent(run, recipe, fit)}."
        )
        return [said + (" Turn limits.save_in_background off." if limits.save_in_background else "")]
    return ["The fit was looked at again and stays as it is."] if asked else []


def _with_consent(run: RunDir, recipe: Recipe, fit: Fit) -> str:
    """What would take less memory and learn otherwise: a child run, for a person to begin."""
    name, now = run.name, recipe.train.optimizer_state
    if not recipe.adapter and not now.endswith("int8"):
        keys = "train.optimizer_state=int8"
        if recipe.train.optimizer != "adamw":
            keys = f"train.optimizer=adamw --set {keys}"
        state = "adamw-bf16-int8" if now == "adamw-bf16" else "adamw-int8"
        return _child("states of 8 bits", keys, state, name, recipe, fit)
    if now == "adamw-int8" and not (recipe.adapter or recipe.train.average or recipe.train.compile):
        return _child("weights of 16 bits", "train.weights=bf16", "adamw-bf16-int8", name, recipe, fit)
    return _fewer_tokens(run, recipe, fit) or "begin a run with a smaller model or context"


def _fewer_tokens(run: RunDir, recipe: Recipe, fit: Fit) -> str:
    """A child run that trains the tokens that occur; "" where that spares nothing, or nobody can tell."""
    if recipe.base is None or recipe.vocabulary is not None:
        return ""
    with suppress(OndeviceError):
        kept = kept_ids(read_wish(run.config), open_dataset(recipe.data))
        less = dataclasses.replace(recipe, vocabulary=vocabulary_recipe(kept))
        now_mb, need_mb = (estimate_run(each, fit).total_mb for each in (recipe, less))
        if now_mb - need_mb >= WORTH_MB:
            return (
                f"go on as a child run that trains only the {len(kept):,} tokens that occur of "
                f"{recipe.model.vocab_size:,} (about {need_mb:,.0f} MB): `ondevice fork {run.name} --set "
                "model.vocabulary=trimmed`"
            )
    return ""


def _child(what: str, keys: str, state: str, name: str, recipe: Recipe, fit: Fit) -> str:
    train = dataclasses.replace(recipe.train, optimizer="adamw", optimizer_state=state)
    need_mb = estimate_run(dataclasses.replace(recipe, train=train), fit).total_mb
    return f"go on as a child run with {what} (about {need_mb:,.0f} MB): `ondevice fork {name} --set {keys}`"


def smaller(fit: Fit, recipe: Recipe, *, limit_mb: float | None = None) -> Fit:
    """The next fit that needs clearly less memory; the same one where there is none.

    Halves the micro-batch, then recomputes activations, then halves the loss chunk, then (AdamW on whole models) steps
    inside the backward pass and gives up holding gradients, until a quarter of what a fit governs (activations, logits,
    and gradients of layerwise fits; weights and optimizer stay) is saved, and the whole is below ``limit_mb`` where any
    fit can reach that.
    """
    now_mb, fixed_mb = estimate_run(recipe, fit).total_mb, _fixed_mb(recipe)
    rungs = [(rung, estimate_run(recipe, rung).total_mb) for rung in _ladder(fit, recipe)]
    # A layerwise step keeps the edges of a whole batch, which may be more than it spares.
    rungs = [(rung, total_mb) for rung, total_mb in rungs if total_mb < now_mb or not rung.layerwise]
    least_mb = min((total_mb for _, total_mb in rungs), default=now_mb)
    bound_mb = limit_mb if limit_mb is not None and least_mb <= limit_mb else float("inf")
    enough_mb = min(bound_mb, fixed_mb + LESS * (now_mb - fixed_mb))
    last = rungs[-1][0] if rungs else fit
    return next((rung for rung, total_mb in rungs if total_mb <= enough_mb), last)


def _fixed_mb(recipe: Recipe) -> float:
    """Megabytes of the estimate that no fit changes."""
    least = Fit(micro_batch=1, threads=1, activation_checkpointing=True, loss_chunk_tokens=1)
    estimate = estimate_run(recipe, least)
    gradients = estimate.gradients_mb if _may_be_layerwise(recipe) else 0.0
    return estimate.total_mb - estimate.activations_mb - estimate.allocator_mb - estimate.head_mb - gradients


def _may_be_layerwise(recipe: Recipe) -> bool:
    train = recipe.train
    return recipe.adapter is None and train.optimizer_state.startswith("adamw") and not train.compile


def _ladder(fit: Fit, recipe: Recipe) -> Iterator[Fit]:
    """Ever smaller fits, in the order of what they cost in time."""
    layers = min(recipe.model.layers, recipe.train.top_layers or recipe.model.layers)
    while fit.micro_batch > 1:
        fit = dataclasses.replace(fit, micro_batch=fit.micro_batch // 2)
        yield fit
    if not fit.layerwise and not fit.activation_checkpointing:
        fit = dataclasses.replace(fit, activation_checkpointing=True)
        yield fit
    while fit.layerwise and fit.kept_blocks:
        fit = dataclasses.replace(fit, kept_blocks=fit.kept_blocks // 2)
        yield fit
    chunk = min(fit.loss_chunk_tokens, fit.micro_batch * recipe.model.context)
    while chunk > SMALLEST_CHUNK:
        chunk = max(SMALLEST_CHUNK, chunk // 2)
        fit = dataclasses.replace(fit, loss_chunk_tokens=chunk)
        yield fit
    if not fit.layerwise and _may_be_layerwise(recipe):
        fit = dataclasses.replace(fit, activation_checkpointing=False, layerwise=True)
        yield fit
    while fit.layerwise and fit.repeated_blocks < layers:
        fit = dataclasses.replace(fit, repeated_blocks=min(layers, fit.repeated_blocks + -(-layers // 4)))
        yield fit


def _last_fit(run: RunDir, checkpoint: Checkpoint | None) -> Told:
    """The newest fit that is known: of the last launch, even if it saved nothing; of the checkpoint; of the start."""
    saved_by = checkpoint.facts.get("launch") if checkpoint is not None else 0
    told = last_told(run, since=saved_by if type(saved_by) is int else 0)
    if told is not None:
        return told
    if checkpoint is not None:
        made = Fit.from_json(checkpoint.facts.get("fit"), where=str(checkpoint.path / "manifest.json"))
        return Told(fit=made, step=checkpoint.step)
    return Told(fit=Fit.from_json(read_json(run.fit), where=str(run.fit)), step=0)


def _for_this_device(run: RunDir, recipe: Recipe, fit: Fit, device: Device) -> tuple[Fit, list[str]]:
    """The fit where the device has fewer cores than threads, or lost memory it had when the run last lived."""
    why: list[str] = []
    if fit.threads > device.cores:
        why.append(f"this device has {device.cores} cores, fewer than {fit.threads} threads")
        fit = dataclasses.replace(fit, threads=device.cores)
    had_mb = _told_memory(run)
    less = had_mb is not None and device.total_mb is not None and device.total_mb < SHRUNK * had_mb
    need_mb = estimate_run(recipe, fit).total_mb
    if less and device.memory_mb is not None and need_mb > device.memory_mb:
        why.append(f"this device has {device.total_mb:,.0f} MB of memory, the one before had {had_mb:,.0f} MB")
        fit = smaller(fit, recipe, limit_mb=device.memory_mb)
    return fit, why


def _told_memory(run: RunDir) -> float | None:
    """Memory of the device that the last launch ran on, in MB; None where it did not say."""
    files = launch_files(run.telemetry)
    records: Any = read_file(files[-1]) if files else ()
    return next((as_number(item.get("memory_total_mb")) for item in records if item["kind"] == "launch"), None)


def _chosen_anew(run: RunDir, recipe: Recipe, fit: Fit, device: Device, *, keep_size: bool) -> tuple[Fit, str]:
    """Micro-batch and threads by the plan's rule and timed steps, as for a new run; what the config fixed stays.

    Raises ResourceError when nothing fits into the memory that may be used.
    """
    config, shape, batch = read_wish(run.config), recipe.trained, recipe.train.batch
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, precision=recipe.train.precision))
    if recipe.adapter is not None:  # which may have brought these along
        own = dataclasses.replace(config.adapter, rank=recipe.adapter.rank, targets=recipe.adapter.targets)
        config = dataclasses.replace(config, adapter=own)
    sizes, plain = [fit.micro_batch], min(fit.threads, device.cores)
    if not keep_size:
        ids = recipe.model.vocab_size
        machine = measure_machine(config, cores=device.cores, android=device.android, flops_s=0.0)
        fit = dataclasses.replace(choose_fit(config, shape, machine, batch=batch, why={}, ids=ids), threads=plain)
        sizes = micro_batches(config, shape, fit, machine, batch=batch, ids=ids)
    counts = [config.fit.threads] if config.fit.threads else threads_to_try(plain, device.cores)
    wanted = candidates(precisions=[recipe.train.precision], threads=counts)
    if len(wanted) == len(sizes) == 1:
        return wanted[0].applied_to(fit), "it was asked for"
    optimizer, adapter = recipe.train.optimizer_state, recipe.adapter
    choice, _ = tuned_choice(
        shape,
        fit,
        wanted,
        sizes,
        batch=batch,
        optimizer=optimizer,
        adapter=adapter,
        top_layers=recipe.train.top_layers,
        again=True,
    )
    found = f"{choice.threads} threads and micro-batch {choice.micro_batch} were timed to be fastest"
    return choice.applied_to(fit), f"it was asked for ({found}, {choice.tok_s:,.0f} tokens/s)"
