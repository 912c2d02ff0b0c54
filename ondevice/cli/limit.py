"""``ondevice limit RUN [KEY=VALUE ...]``: how politely a run behaves, shown or changed at any moment."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ondevice.cli.common import print_json
from ondevice.cli.control import ask
from ondevice.cli.folding import tell
from ondevice.errors import UsageError
from ondevice.run.audit import end_of_story
from ondevice.run.config import change_limits, changed_keys, limit_words, read_limits, read_wish, write_limits
from ondevice.run.directory import RunDir, find_run, lock_holder, offline_lock
from ondevice.run.liveness import read_status
from ondevice.run.schema import Limits

__all__ = ["EXAMPLES", "add_arguments", "change_run", "device_limits", "limits_of", "run"]

EXAMPLES = """examples:
  ondevice limit notes                              what holds now, and why
  ondevice limit notes max_battery_c=38 plugged_only=true
  ondevice limit notes hours="22:30-06:45"
  ondevice limit notes hours=                       back to what the preset says"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name or path of the run")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="limits to change; none: show them")
    parser.add_argument("--wait", type=float, default=30.0, metavar="S", help="seconds to wait for a live trainer (30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    run_dir = find_run(args.run)
    if not args.changes:
        return _show(run_dir, as_json=args.json)
    changes = _parsed(args.changes)
    before = limits_of(run_dir)
    after = _checked(change_limits(before, changes, where="limit"))
    done = _change(run_dir, changes, after, wait_s=args.wait)
    if args.json:
        print_json({"run": run_dir.name, "ok": True if done else None, "limits": dataclasses.asdict(after)})
    elif not done:
        tell(f"{run_dir.name}: asked; the trainer answers when its micro-batch is done.")
    else:
        for sentence in _told(run_dir, before, after, changes):
            tell(sentence)
    return 0


def change_run(run_dir: RunDir, changes: Sequence[str]) -> list[str]:
    """Carries out what ``--set`` of a command that goes on with a run says about how it behaves; sentences about it.

    Limits are written; a fit stays. Raises UsageError for bad limits, RunBusy while a trainer lives.
    """
    began_with, before = read_wish(run_dir.config), limits_of(run_dir)
    said = [
        f"fit.{key} is left as it is: a run keeps its fit, so that it goes on exactly."
        for key, value in changed_keys(changes, "fit").items()
        if value != getattr(began_with.fit, key)
    ]
    after = _checked(change_limits(before, changed_keys(changes, "limits"), where="--set"))
    if after != before:
        with offline_lock(run_dir, what="ondevice train"):
            write_limits(run_dir.limits, after, after=end_of_story(run_dir.telemetry))
    now = dataclasses.asdict(after)
    changed = [key for key, value in dataclasses.asdict(before).items() if value != now[key]]
    return said + list(_told(run_dir, before, after, changed))


def _told(run_dir: RunDir, before: Limits, after: Limits, keys: Iterable[str]) -> Iterator[str]:
    """A sentence for each key: what holds from now on, and what held."""
    for key in keys:
        now, was = (_holding(run_dir, limits, key) for limits in (after, before))
        yield f"limits.{key} = {now} from now on, was {was}."


def _parsed(changes: list[str]) -> dict[str, Any]:
    """``key=value`` words; an empty value gives a key back to its default."""
    found: dict[str, Any] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        key = key.strip().removeprefix("limits.")
        if not equals or not key:
            raise UsageError(f"{change}: write it as KEY=VALUE, such as max_battery_c=38.")
        found |= changed_keys([f"limits.{key}={value}"], "limits") if value.strip() else {key: None}
    return found


def device_limits(changes: list[str]) -> Limits:
    """The limits of work that belongs to no run: what suits this device, with ``key=value`` changes.

    Raises UsageError.
    """
    return _checked(change_limits(Limits(), _parsed(changes), where="--limit") if changes else Limits())


def _checked(limits: Limits) -> Limits:
    from ondevice.governor.presets import check

    check(limits)
    return limits


def limits_of(run_dir: RunDir) -> Limits:
    """What holds for a run now. Raises DataError where its limits are damaged."""
    if run_dir.limits.exists():
        return read_limits(run_dir.limits)
    return read_wish(run_dir.config).limits


def _change(run_dir: RunDir, changes: dict[str, Any], after: Limits, *, wait_s: float) -> bool:
    """Through the live trainer, else under its lock. False where the trainer was asked and has not answered yet."""
    if lock_holder(run_dir) is not None:
        return ask(run_dir, "limit", changes, wait_s=wait_s) is not None
    with offline_lock(run_dir, what="ondevice limit"):
        write_limits(run_dir.limits, after, after=end_of_story(run_dir.telemetry))
    return True


def _show(run_dir: RunDir, *, as_json: bool) -> int:
    limits = limits_of(run_dir)
    if as_json:
        print_json({"run": run_dir.name, "limits": dataclasses.asdict(limits), "why": _reasons(run_dir, limits)})
        return 0
    tell("\n".join(_lines(run_dir, limits)))
    return 0


def _lines(run_dir: RunDir, limits: Limits) -> Iterator[str]:
    why = _reasons(run_dir, limits)
    for key, said in why.items():
        yield f"{key} = {said}"
    for key, value in dataclasses.asdict(limits).items():
        if key not in why:
            yield f"{key} = {limit_words(value)}"


def _holding(run_dir: RunDir, limits: Limits, key: str) -> str:
    """What holds for a key, also where the preset decides it."""
    value = getattr(limits, key)
    why = {} if value is not None else _reasons(run_dir, limits)
    return f"{why[key].partition(': ')[0]} by the preset" if key in why else limit_words(value)


def _reasons(run_dir: RunDir, limits: Limits) -> dict[str, str]:
    from ondevice.governor.presets import reasons

    return reasons(limits, handheld=_is_handheld(run_dir))


def _is_handheld(run_dir: RunDir) -> bool:
    """Whether the device is that the run last lived on, simulated or this one."""
    from ondevice.device.host import on_android
    from ondevice.device.simulate_wish import parse_device

    simulated = read_status(run_dir).get("simulated")
    if isinstance(simulated, dict):
        with suppress(UsageError):  # a profile or recording that is gone
            return parse_device(str(simulated.get("device"))).handheld
    return on_android(os.environ)
