"""Governors against an oracle, BOINC's on/off rule and plain duties, on simulated phones.

    python tools/bench/governor.py [--quick] [--only TEXT] [--policy NAME ...] [--limit 40] [--hard 42]

Overshoot is of the battery's true temperature above the limit; work is a share of the oracle's under the same limit and
of BOINC's; changes are orders an hour (kind, or duty by more than ten points) in the second half of steady scenarios.
"capped" compares with half of the time, which is all that a governor without any thermometer may take. A run in which
a policy passed the limit by more than the wanted figures is marked with !, since its work was not all earned; "kept" is
BOINC's rule with its limit lowered until it passes the real one by no more than that. Where not even one micro-batch
fits under the limit there is no share of the oracle. Formula: Governor, version 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tools.bench.governor_oracle import oracle_work_s
from tools.bench.governor_policies import POLICIES, Answer, Boinc, Caps, Policy, make_policy
from tools.bench.governor_scenarios import Scenario, all_scenarios, quick_scenarios

LOOK_S = 5.0  # how often a resting policy is asked, and the truth is looked at
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
    battery_over_c: float = 0.0
    hard_s: float = 0.0
    changes_s: list[float] = field(default_factory=list)  # when, in seconds

    @property
    def clean(self) -> bool:
        """Whether it kept the limit as well as is wanted."""
        return self.over_c <= ALLOWED_OVER_C and self.over_s / self.hours <= ALLOWED_S_PER_H and not self.hard_s

    @property
    def changes_per_hour(self) -> float:
        """In the second half."""
        return sum(at_s > 1800 * self.hours for at_s in self.changes_s) / (self.hours / 2)


class Watch:
    """A phone, looked at all the time, and what was seen."""

    def __init__(self, scenario: Scenario, caps: Caps) -> None:
        self.phone, self.outcome = scenario.phone(), Outcome(scenario.hours)
        self._until_s, self._caps, self._limits_c = scenario.until_s, caps, caps.by_node(scenario.counted)
        self._told = ("", 1.0)

    @property
    def over(self) -> bool:
        """Whether the time is."""
        return self.phone.now_s >= self._until_s

    def work(self, full_speed_s: float) -> float:
        """A micro-batch; what it took."""
        began_s, left_s = self.phone.now_s, full_speed_s
        while left_s > 1e-9:
            piece_s = min(2.0, left_s)
            self._look(self.phone.work(piece_s))
            left_s -= piece_s
        return self.phone.now_s - began_s

    def rest(self, rest_s: float) -> float:
        """Seconds without work; how many."""
        began_s = self.phone.now_s
        end_s = min(began_s + rest_s, self._until_s)
        while (left_s := end_s - self.phone.now_s) > 1e-3:
            piece_s = min(LOOK_S, left_s)
            self.phone.advance(piece_s, duty=0.0)
            self._look(piece_s)
        return self.phone.now_s - began_s

    def note(self, kind: str, duty: float) -> None:
        """An order; counted where it is another one."""
        if kind != self._told[0] or abs(duty - self._told[1]) > 0.1:
            self._told = kind, duty
            self.outcome.changes_s.append(self.phone.now_s)

    def _look(self, dt_s: float) -> None:
        temperature, caps, outcome = self.phone.network.temperature, self._caps, self.outcome
        over_c = max(temperature(node) - limit_c for node, limit_c in self._limits_c.items())
        if over_c > 0:
            outcome.over_c = max(outcome.over_c, over_c)
            outcome.over_s += dt_s
        battery_over_c = temperature("battery") - caps.battery_c
        if battery_over_c > 0:
            outcome.battery_over_c = max(outcome.battery_over_c, battery_over_c)
            outcome.hard_s += dt_s * (battery_over_c > caps.hard_battery_c - caps.battery_c)


def run(policy: Policy, scenario: Scenario, caps: Caps) -> Outcome:
    """One policy through one scenario."""
    watch = Watch(scenario, caps)
    phone, owed_s, worked_s = watch.phone, 0.0, 0.0
    while not watch.over:
        answer = policy.step(phone.read(), phone.t, worked_s)
        watch.note(*kind_and_duty(answer, worked_s))
        while not runs(answer) and not watch.over:
            watch.rest(rest_after(answer, phone.t, 0.0))
            answer, owed_s, worked_s = policy.step(phone.read(), phone.t, 0.0), 0.0, 0.0
            watch.note(*kind_and_duty(answer, 0.0))
        owed_s += rest_after(answer, phone.t, worked_s)
        owed_s -= watch.rest(owed_s)
        if not watch.over:
            worked_s = watch.work(scenario.micro_batch_s)
    watch.outcome.work_s = phone.worked_s
    return watch.outcome


def runs(answer: Answer) -> bool:
    """Whether work goes on, after a rest that a duty asks for."""
    return isinstance(answer, float | int) or answer.kind == "run"


def kind_and_duty(answer: Answer, worked_s: float) -> tuple[str, float]:
    """What counts as one order. A plain rest is a duty of the micro-batch before it."""
    if isinstance(answer, float | int):
        return "run", worked_s / (worked_s + answer) if worked_s else float(not answer)
    return answer.kind, answer.duty if answer.kind == "run" else 0.0


def rest_after(answer: Answer, now: float, worked_s: float) -> float:
    """Seconds until the policy is asked again."""
    if isinstance(answer, float | int):
        return float(answer)
    if answer.kind == "run":
        return worked_s * (1 - answer.duty) / max(answer.duty, 0.005)
    if answer.kind == "leave":
        return LEAVE_S
    until_s = LOOK_S if answer.until_t is None else answer.until_t - now
    return min(LOOK_S, max(0.5, until_s))


def compare(scenario: Scenario, names: list[str], caps: Caps) -> Iterator[Row]:
    """A row for each policy; BOINC's rule knows nothing but the battery and is no measure where that cannot be read."""
    phone, limits_c = scenario.phone(), caps.by_node(scenario.counted)
    threads = phone.profile.threads
    oracle_s = oracle_work_s(phone, scenario.until_s, scenario.micro_batch_s, limits_c)
    if not scenario.sensors:
        oracle_s = min(oracle_s, 0.5 * scenario.until_s)
    boinc = run(Boinc(caps.battery_c), scenario, caps)
    kept = boinc_kept(scenario, caps, boinc)
    known = {"boinc": boinc, "boinc-kept": kept} if "battery" in scenario.sensors else {}
    for name in names:
        outcome = known.get(name)
        if outcome is None and not name.startswith("boinc"):
            outcome = run(make_policy(name, caps, scenario.counted, threads), scenario, caps)
        if outcome is not None:
            against = [outcome.work_s / max(each.work_s, 1e-9) for each in known.values()]
            measurable = oracle_s >= LEAST_DUTY * scenario.until_s
            yield Row(scenario, name, outcome, outcome.work_s / oracle_s if measurable else None, against)


def boinc_kept(scenario: Scenario, caps: Caps, outcome: Outcome) -> Outcome:
    """BOINC's rule with its limit lowered, a degree at a time, until it overshoots no more than a governor may."""
    limit_c = caps.battery_c
    while outcome.over_c > ALLOWED_OVER_C and limit_c > caps.battery_c - 5 and "battery" in scenario.sensors:
        limit_c -= 1.0
        outcome = run(Boinc(limit_c), scenario, caps)
    return outcome


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
        boinc = [f"{ratio:.2f}" for ratio in self.of_boinc] or ["-", "-"]
        return (
            f"{scenario.name:<29} {self.name:<10} {scenario.counted:<8}{done.over_c:>6.2f} "
            f"{done.over_s / done.hours:>7.0f} {done.battery_over_c:>6.2f} {done.hard_s:>6.0f} "
            f"{of_oracle:>9}{' ' if done.clean else '!'} {boinc[0]:>6} {boinc[1]:>6} {changes:>6}"
            f"{'' if scenario.sensors else '  capped'}"
        )


HEADER = (
    f"{'scenario':<29} {'policy':<10} {'limit':<8}{'over C':>6} {'s/h':>7} {'batt.':>6} {'hard s':>6} "
    f"{'of oracle':>9}  {'BOINC':>6} {'kept':>6} {'chg/h':>6}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one scenario of each kind")
    parser.add_argument("--only", default="", help="part of a scenario's name")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="only this one; may be repeated")
    parser.add_argument("--limit", type=float, default=Caps.battery_c, help="of the battery, degrees Celsius")
    parser.add_argument("--hard", type=float, default=Caps.hard_battery_c)
    args = parser.parse_args()
    caps, names = Caps(battery_c=args.limit, hard_battery_c=args.hard), args.policy or list(POLICIES)
    began = time.monotonic()
    scenarios = quick_scenarios() if args.quick else all_scenarios()
    print(f"Governor, formula version 1; battery limit {caps.battery_c:g} C, maximum {caps.hard_battery_c:g} C")
    print(HEADER, flush=True)
    for scenario in (scenario for scenario in scenarios if args.only in scenario.name):
        for row in compare(scenario, names, caps):
            print(row, flush=True)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
