"""What to use of a run: checkpoints as they were judged, regressions, and settings that were held out."""

from __future__ import annotations

import pytest

from ondevice.report.page import Page, Paragraph, Table
from ondevice.report.run_choice import decoding, selection


def said(page):
    return " ".join(block.text for block in page.blocks if isinstance(block, Paragraph))


def swept(winner, low, high):
    row = {"arm": winner, "quality": 90.0, "diversity": 0.8, "loop_rate": 0.25}
    return {
        "step": 1090,
        "winner": {"arm": winner},
        "leaderboard": [row, row | {"arm": "greedy", "quality": 40.0}],
        "tuning": {"n": 40, "quality": 90.0},
        "holdout": {"n": 39, "quality": 89.0},
        "holdout_of_default": 88.5,
        "holdout_difference": {"estimate": 0.5, "low": low, "high": high},
    }


@pytest.mark.parametrize(
    ("winner", "low", "high", "told"),
    [
        ("precise", 0.2, 0.8, "differs surely from the default: +0.5 points (95 % between +0.2 and +0.8)"),
        ("precise", -0.2, 1.2, "differs not surely"),
        ("precise", None, None, ""),
        ("default", -0.2, 1.2, ""),
    ],
)
def test_settings_are_held_against_the_default_on_prompts_held_out(winner, low, high, told):
    page = Page("t")
    decoding(page, swept(winner, low, high))
    assert f"{winner} wrote best on 40 tuning prompts (90.0 of 100), and 89.0 on 39" in said(page)
    assert told in said(page) and ("differs" in said(page)) == bool(told)
    table = next(block for block in page.blocks if isinstance(block, Table))
    assert table.rows[0] == (winner, "90.0", "0.800", "25 %") and len(table.rows) == 2


def test_checkpoints_are_shown_as_they_were_judged_and_what_got_worse():
    row = {"step": 20, "val_loss_mixed": 3.0, "quality": 60.0, "quality_groups": {"c.c": 61.5}}
    row |= {"diversity": 0.9, "loop_rate": 0.0}
    found = {
        "sentences": ["For use take step 20."],
        "roles": {"scalar": 20},
        "checkpoints": [row, row | {"step": 40, "val_loss_mixed": None, "quality": None, "quality_groups": {}}],
        "regressions": [{"before": 20, "after": 40, "group": "c.c", "difference": {"estimate": -9.0, "high": -2.0}}],
        "skipped": [{"step": 60, "why": "step-60 is damaged."}],
    }
    page = Page("t")
    selection(page, found)
    table = [block for block in page.blocks if isinstance(block, Table)][1]
    assert page.blocks[2].rows == (("scalar", "lowest loss", "20"),)
    assert table.columns[:4] == ("step", "loss", "quality", "c")
    assert table.rows[0][1:4] == ("3.0000", "60.0", "61.5") and table.rows[1][1:4] == ("-", "-", "-")
    assert "From step 20 to 40 c surely got worse, by 9.0 points (at least 2.0)." in said(page)
    assert "For use take step 20." in said(page) and "Left out: step-60 is damaged." in said(page)


def test_a_run_that_nobody_judged_has_no_such_parts():
    page = Page("t")
    selection(page, None)
    decoding(page, None)
    assert page.blocks == []
