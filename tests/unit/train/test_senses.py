"""What the device can no longer feel is said once, and again when it is back."""

from __future__ import annotations

from ondevice.device.readings import Reading
from ondevice.train.senses import MOST_TOLD, Senses


def warm(battery_c, why="the command hangs"):
    return Reading(t=1.0, battery_c=battery_c, unknown={} if battery_c is not None else {"battery_c": why})


def told(*temperatures):
    senses = Senses()
    return [list(senses.changes(warm(battery_c))) for battery_c in temperatures]


def test_what_never_was_there_is_no_loss():
    assert told(None, None, None) == [[], [], []]


def test_one_late_answer_is_no_loss():
    assert told(30.0, None, 31.0) == [[], [], []]


def test_a_loss_is_said_once_with_its_reason_and_so_is_the_return():
    lost = "The temperature of the battery can no longer be read (the command hangs); what is left must do."
    assert told(30.0, None, None, None, 31.0, 31.0) == [
        [],
        [],
        [lost],
        [],
        ["The temperature of the battery can be read again."],
        [],
    ]


def test_a_sensor_that_comes_and_goes_does_not_fill_the_story():
    said = [sentence for sentences in told(30.0, *[None, None, 30.0] * 50) for sentence in sentences]
    assert len(said) == 2 * MOST_TOLD and "again" in said[-1]


def test_every_sense_is_on_its_own():
    senses = Senses()
    senses.changes(Reading(t=1.0))
    assert list(senses.changes(Reading(t=1.0, battery_c=30.0, plugged=True, cpu_c=50.0))) == []
    blind = Reading(t=2.0, cpu_c=50.0)
    assert list(senses.changes(blind)) == []
    assert [sentence.partition(" can")[0] for sentence in senses.changes(blind)] == [
        "The temperature of the battery",
        "Whether the charger is in",
    ]
