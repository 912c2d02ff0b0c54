"""What people ask of a live run: control letters become standing orders and answers. Pure; the loop carries them out.

Letters that act at once (limits, pins) are answered with what changed; the rest set a field that the loop reads at its
next safe point.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.governor.presets import check
from ondevice.run.config import change_limits
from ondevice.run.control import Letter
from ondevice.run.schema import Limits
from ondevice.run.store import Store
from ondevice.train.sample_request import SampleRequest, read_request

__all__ = ["Orders", "obey"]


@dataclass
class Orders:
    """Standing orders. ``hold`` is empty or says who paused the run; ``stop`` says why to leave.

    ``leave``: the governor's reason to leave for a while; a person may still have said ``stop`` for good. ``busy``:
    what was asked is being done, so that no hold or wait may stand in its way; heat may.
    """

    hold: str = ""
    stop: str = ""
    leave: str = ""
    save: bool = False
    evaluate: bool = False
    busy: bool = False
    samples: list[SampleRequest] = field(default_factory=list)

    @property
    def asked(self) -> bool:
        """Whether there is something to do between steps, even for a held run."""
        return self.save or self.evaluate or bool(self.samples)

    @property
    def returns(self) -> bool:
        """Whether it leaves for a while only, and whoever looks after the run starts it again."""
        return bool(self.leave) and self.stop == self.leave


def obey(letter: Letter, orders: Orders, limits: Limits, store: Store) -> tuple[Limits, dict[str, Any]]:
    """Applies one letter. Gives the limits that hold now and the fields of the ``control`` record that answers it."""
    answer: dict[str, Any] = {"id": letter.id, "verb": letter.verb, "from": letter.sender}
    if letter.fault:
        return limits, {**answer, "ok": False, "why": letter.fault}
    try:
        limits = _apply(letter, orders, limits, store)
    except (OndeviceError, KeyError, TypeError, ValueError, OverflowError) as error:
        return limits, {**answer, "ok": False, "why": str(error)}
    return limits, {**answer, "ok": True, "args": letter.args}


def _apply(letter: Letter, orders: Orders, limits: Limits, store: Store) -> Limits:
    if letter.verb == "pause":
        orders.hold = f"paused by {letter.sender}"
    elif letter.verb == "resume":
        orders.hold = ""
    elif letter.verb == "stop":
        orders.stop = f"stopped by {letter.sender}"
    elif letter.verb == "save":
        orders.save = True
    elif letter.verb == "eval":
        orders.evaluate = True
    elif letter.verb == "sample":
        orders.samples.append(read_request(letter.args, letter=letter.id))
    elif letter.verb == "limit":
        changed = change_limits(limits, letter.args)
        check(changed)
        return changed
    elif letter.verb == "pin":
        reason = letter.args.get("reason", "asked for")
        store.pin(int(letter.args["step"]), None if reason is None else str(reason))
    return limits
