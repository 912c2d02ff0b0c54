"""Widgets: each paints one part of a `RunSnapshot`; what it says is a pure function tested as plain text."""
