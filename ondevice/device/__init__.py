"""What this machine is (facts), what its storage can do (storage) and how it feels right now (readings).

The trainer, the planner and the commands may use it; it reads files below /proc and /sys, and psutil where it is there.
It must not know torch, runs or telemetry, and a value it cannot read is None with a reason, never an exception.
"""
