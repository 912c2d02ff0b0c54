"""Train small language models on the machine in your pocket.

Importing this package imports nothing else; commands live in ``ondevice.cli``. ARCHITECTURE.md draws the house.
"""

__version__ = "0.1.0"
