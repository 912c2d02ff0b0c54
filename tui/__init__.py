"""The terminal UI: ``ondevice-tui`` shows runs from their files alone and asks things of them through letters.

`tui.feed` (no Textual) folds files into frozen snapshots; ``views`` (no Textual either) turn them into text; widgets
and screens show that, and turn keys into letters (`tui.asking`) or programs of their own (`tui.jobs`). It imports
`ondevice.run` and `ondevice.errors`, never torch, and keeps no state that the files do not hold.
"""
