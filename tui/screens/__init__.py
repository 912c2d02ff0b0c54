"""Screens: one file each. They watch the app's snapshot, hand it to widgets, and turn keys into letters."""
