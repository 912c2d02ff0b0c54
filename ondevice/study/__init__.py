"""What a run's checkpoints are worth: trajectories, evaluation of a target, selection, decoding sweeps, statistics.

Commands and reports use it; it knows runs, and nothing of how a person asks.
"""
