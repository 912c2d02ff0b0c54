"""What the model wrote and what happened: texts longer than their pane, newest first."""

from __future__ import annotations

from rich.text import Text

from tui.draw import begun
from tui.look import Look
from tui.snapshot import Event, RunSnapshot, Sample
from tui.words import clock, count

__all__ = ["event_text", "events_text", "sample_text", "samples_text", "written_text"]

_SAMPLES, _LONGEST = 8, 4000
_STEP_KINDS = frozenset({"eval", "checkpoint", "note", "fit"})


def samples_text(run: RunSnapshot, look: Look) -> Text:
    """The last samples, each after its prompt, which stands out."""
    if not run.samples:
        return Text("no sample yet; w asks for one", look.palette.dim)
    return Text("\n\n").join(sample_text(sample, look) for sample in reversed(run.samples[-_SAMPLES:]))


def sample_text(sample: Sample, look: Look) -> Text:
    asked = ", asked for" if sample.letter else ""
    text = begun(f"step {count(sample.step)}  {clock(sample.t)}{asked}\n", look.palette.dim)
    return text.append_text(written_text(sample, look))


def written_text(sample: Sample, look: Look) -> Text:
    """The prompt, which stands out, and what the model went on with."""
    prompt = sample.prompt if len(sample.prompt) <= _LONGEST // 2 else sample.prompt[-_LONGEST // 2 :]
    return begun(prompt, f"bold {look.palette.accent}").append(sample.text[:_LONGEST], "")


def events_text(run: RunSnapshot, look: Look, group: str = "") -> Text:
    """The log, newest first; of one group only where it is named."""
    events = [event for event in reversed(run.events) if not group or event.group == group]
    if not events:
        return Text(f"no {group} so far" if group else "nothing happened yet", look.palette.dim)
    return Text("\n").join(event_text(event, look) for event in events)


def event_text(event: Event, look: Look) -> Text:
    palette = look.palette
    styles = {"kills": f"bold {palette.bad}", "notes": palette.warn, "evals": palette.val, "saves": palette.good}
    styles |= {"letters": palette.accent, "orders": palette.cold}
    text = begun(f"{clock(event.t)} ", palette.dim)
    if event.step is not None and event.kind in _STEP_KINDS:
        text.append(f"step {count(event.step)}: ")
    return text.append(event.text, styles.get(event.group, ""))
