"""The terminal UI: ``ondevice-tui`` shows runs from their files alone and asks things of them through letters.

`tui.feed` (no Textual) folds files into frozen snapshots; `tui.app`, screens and widgets only paint them. It imports
`ondevice.run` and `ondevice.errors`, never torch, and keeps no state that the files do not hold.
"""
