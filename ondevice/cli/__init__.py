"""The command line: one small file a command, each with EXAMPLES, ``add_arguments`` and ``run``.

People and scripts use it; nothing imports it. It must not decide anything a module below could decide, and it imports
heavy packages only inside the functions that need them.
"""
