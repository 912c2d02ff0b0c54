"""Training: from a wish to a plan, from a plan to steps, from steps to checkpoints.

The loop (`loop.py`) is the only place that knows the order of events; the command line starts it. It must not know who
watches: people and programs see a run only through its files.
"""
