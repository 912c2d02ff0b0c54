"""Paper: everything a run leaves on disk, and the words it is written in.

Durable writes, config, recipe, run directory, telemetry, control letters, checkpoint commit and digest live here;
every other folder and the terminal UI may use it. It must not know torch, tokens or what a weight is.
"""
