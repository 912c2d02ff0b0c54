"""Scores of one model on fixed text: loss per source, bits per byte, and the baselines they are to be compared with.

Training, studies and commands use it. It must not know runs, checkpoints or who asks.
"""
