"""Governors against an oracle, BOINC's on/off rule and plain duties, on simulated phones.

    python tools/bench/governor.py [--quick] [--only TEXT] [--policy NAME ...] [--limit 40] [--hard 42]
                                    [--hours 9] [--tuning]

Overshoot is of the battery's true temperature above the limit, whatever the governor can read; work is a share of the
oracle's under the same limit, with the same micro-batch as its smallest piece, and of BOINC's; changes are orders an
hour (kind, or duty by more than ten points) in the second half of steady scenarios. "capped" compares with half of the
time, which is all that a governor without any thermometer may take. A run in which a policy passed the limit by more
than the wanted figures is marked with !, since its work was not all earned; "kept" is BOINC's rule with its limit
lowered until it passes the real one by no more than that. Where not even one micro-batch fits under the limit there is
no share of the oracle; near there the oracle's own work is so small that a share is mostly that of the margins, and
"margin" says how far the battery stayed below the limit on average, in the second half. Seeds: reporting uses dice
from 1000 on, which nothing was ever tuned on; --tuning uses the others. Formula: Governor, version 2 (1 took the limit
of the best sensor for the one that counts, and asked nobody during rests).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from ondevice.governor.debt import Debt
from ondevice.governor.order import Order, is_change
from tools.bench.governor_oracle import oracle_work_s
from tools.bench.governor_policies import POLICIES, Answer, Boinc, Caps, Policy, make_policy
from tools.bench.governor_scenarios import Scenario, all_scenarios, held_out, quick_scenarios

LOOK_S = 2.0  # how often a resting governor is asked, and the truth is looked at
NOTHING_S = 1e-3  # of rest
LEAVE_S = 900.0  # until the job scheduler starts a run again
LEAST_DUTY = 0.005  # of the oracle, below which a share of it says nothing
ALLOWED_OVER_C, ALLOWED_S_PER_H = 0.5, 10.0


@dataclass
class Outcome:
    """What a policy did in a scenario. Seconds and degrees of the truth."""

    hours: float
    work_s: float = 0.0
    over_c: float = 0.0
    over_s: float = 0.0
    hard_s: float = 0.0
    below_cs: float = 0.0  # degrees under the limit, times seconds, in the second half
    changes_s: list[float] = field(default_factory=list)  # when, in seconds

    @property
    def clean(self) -> bool:
        """Whether it kept the limit as well as is wanted."""
        return self.over_c <= ALLOWED_OVER_C and self.over_s / self.hours <= ALLOWED_S_PER_H and not self.hard_s

    @property
    def changes_per_hour(self) -> float:
        """In the second half."""
        return sum(at_s > 1800 * self.hours for at_s in self.changes_s) / (self.hours / 2)

    @property
    def margin_c(self) -> float:
        """Of the mean, in the second half."""
        return self.below_cs / (1800 * self.hours)


class Watch:
    """A phone, looked at all the time, and what was seen."""

    def __init__(self, scenario: Scenario, caps: Caps) -> None:
        self.phone, self.outcome = scenario.phone(), Outcome(scenario.hours)
        self._until_s, self._caps = scenario.until_s, caps
        self._told: Order | None = None

    @property
    def over(self) -> bool:
        """Whether the time is."""
        return self.phone.now_s >= self._until_s

    def work(self, full_speed_s: float) -> float:
        """A micro-batch; what it took."""
        began_s, left_s = self.phone.now_s, full_speed_s
        while left_s > 1e-9:
            piece_s = min(LOOK_S, left_s)
            self._look(self.phone.work(piece_s))
            left_s -= piece_s
        return self.phone.now_s - began_s

    def rest(self, rest_s: float) -> float:
        """Seconds without work; how many."""
        began_s = self.phone.now_s
        end_s = min(began_s + rest_s, self._until_s)
        while (left_s := end_s - self.phone.now_s) > 1e-6:
            piece_s = min(LOOK_S, left_s)
            self.phone.advance(piece_s, duty=0.0)
            self._look(piece_s)
        return self.phone.now_s - began_s

    def note(self, order: Order) -> None:
        """An order; counted where it is another one."""
        if is_change(self._told, order):
            self._told = order
            self.outcome.changes_s.append(self.phone.now_s)

    def _look(self, dt_s: float) -> None:
        outcome, battery_c = self.outcome, self.phone.network.temperature("battery")
        over_c = battery_c - self._caps.battery_c
        if over_c > 0:
            outcome.over_c = max(outcome.over_c, over_c)
            outcome.over_s += dt_s
            outcome.hard_s += dt_s * (battery_c > self._caps.hard_battery_c)
        if self.phone.now_s > 0.5 * self._until_s:
            outcome.below_cs -= over_c * dt_s


def run(policy: Policy, scenario: Scenario, caps: Caps) -> Outcome:
    """One policy through one scenario."""
    watch = Watch(scenario, caps)
    phone, debt, worked_s = watch.phone, Debt(), 0.0
    while not watch.over:
        answer = policy.step(phone.read(), phone.t, worked_s)
        if isinstance(answer, Order):
            debt = governed(policy, watch, debt, answer)
        else:
            watch.note(Order(duty=worked_s / (worked_s + answer) if worked_s else float(not answer)))
            watch.rest(answer)
        if not watch.over:
            worked_s = watch.work(scenario.micro_batch_s)
            debt = debt.after(worked_s)
    watch.outcome.work_s = phone.worked_s
    return watch.outcome


def governed(policy: Policy, watch: Watch, debt: Debt, answer: Answer) -> Debt:
    """Rests as ordered, asking again meanwhile, as the training loop does; what is still owed."""
    debt = told(watch, debt, answer)
    while not watch.over and isinstance(answer, Order) and (answer.kind != "run" or debt.due_s > NOTHING_S):
        wanted_s = LEAVE_S if answer.kind == "leave" else LOOK_S if answer.kind != "run" else min(LOOK_S, debt.due_s)
        debt = debt.rested(watch.rest(wanted_s))
        answer = policy.step(watch.phone.read(), watch.phone.t, 0.0)
        debt = told(watch, debt, answer)
    return debt


def told(watch: Watch, debt: Debt, answer: Answer) -> Debt:
    """The debt under an order that was just given."""
    if not isinstance(answer, Order):
        return debt
    watch.note(replace(answer, threads=None))
    return debt.under(answer)


def compare(scenario: Scenario, names: list[str], caps: Caps) -> Iterator[Row]:
    """A row for each policy; BOINC's rule knows nothing but the battery and is no measure where that cannot be read."""
    phone = scenario.phone()
    threads = phone.profile.threads
    oracle_s = oracle_work_s(phone, scenario.until_s, scenario.micro_batch_s, {"battery": caps.battery_c})
    if not scenario.sensors:
        oracle_s = min(oracle_s, 0.5 * scenario.until_s)
    known = boinc_outcomes(scenario, caps) if "battery" in scenario.sensors else {}
    for name in names:
        outcome = known.get(name)
        if outcome is None and not name.startswith("boinc"):
            outcome = run(make_policy(name, caps, threads, scenario.micro_batch_s), scenario, caps)
        if outcome is not None:
            against = [outcome.work_s / max(each.work_s, 1e-9) for each in known.values()]
            measurable = oracle_s >= LEAST_DUTY * scenario.until_s
            yield Row(scenario, name, outcome, outcome.work_s / oracle_s if measurable else None, against)


def boinc_outcomes(scenario: Scenario, caps: Caps) -> dict[str, Outcome]:
    """BOINC's rule, and the same with its limit lowered, a degree at a time, until it overshoots no more than a
    governor may; without the latter where no limit does that."""
    limit_c = caps.battery_c
    raw = kept = run(Boinc(limit_c), scenario, caps)
    while not kept.clean and limit_c > caps.battery_c - 5:
        limit_c -= 1.0
        kept = run(Boinc(limit_c), scenario, caps)
    return {"boinc": raw, "boinc-kept": kept} if kept.clean else {"boinc": raw}


@dataclass(frozen=True)
class Row:
    """One policy in one scenario; work against the oracle's, and against BOINC's rule as it is and as kept."""

    scenario: Scenario
    name: str
    outcome: Outcome
    of_oracle: float | None
    of_boinc: list[float]

    def __str__(self) -> str:
        done, scenario = self.outcome, self.scenario
        changes = f"{done.changes_per_hour:.1f}" if scenario.steady else "-"
        of_oracle = "-" if self.of_oracle is None else f"{self.of_oracle:.3f}"
        boinc = [*(f"{ratio:.2f}" for ratio in self.of_boinc), "-", "-"]
        return (
            f"{scenario.name:<29} {self.name:<10} {done.over_c:>6.2f} {done.over_s / done.hours:>6.0f} "
            f"{done.hard_s:>6.0f} {of_oracle:>9}{' ' if done.clean else '!'} {boinc[0]:>6} {boinc[1]:>6} "
            f"{changes:>6} {done.margin_c:>6.2f}{'' if scenario.sensors else '  capped'}"
        )


HEADER = (
    f"{'scenario':<29} {'policy':<10} {'over C':>6} {'s/h':>6} {'hard s':>6} {'of oracle':>9}  {'BOINC':>6} "
    f"{'kept':>6} {'chg/h':>6} {'margin':>6}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one scenario of each kind")
    parser.add_argument("--only", default="", help="part of a scenario's name")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="only this one; may be repeated")
    parser.add_argument("--limit", type=float, default=Caps.battery_c, help="of the battery, degrees Celsius")
    parser.add_argument("--hard", type=float, default=Caps.hard_battery_c)
    parser.add_argument("--hours", type=float, default=9.0, help="no scenario lasts longer")
    parser.add_argument("--tuning", action="store_true", help="the seeds that may be tuned on")
    args = parser.parse_args()
    caps, names = Caps(battery_c=args.limit, hard_battery_c=args.hard), args.policy or list(POLICIES)
    began = time.monotonic()
    scenarios = quick_scenarios() if args.quick else all_scenarios()
    scenarios = [replace(each, hours=min(each.hours, args.hours)) for each in scenarios]
    scenarios = scenarios if args.tuning else held_out(scenarios)
    print(f"Governor, formula version 2; battery limit {caps.battery_c:g} C, maximum {caps.hard_battery_c:g} C")
    print(HEADER, flush=True)
    for scenario in (scenario for scenario in scenarios if args.only in scenario.name):
        for row in compare(scenario, names, caps):
            print(row, flush=True)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
