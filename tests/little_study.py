"""What the tiny studies of tests have in common: everything but seeds, sources, steps and arms."""

from __future__ import annotations

__all__ = ["LITTLE"]

LITTLE = """
[config.tokenizer]
kind = "byte"
[config.model]
layers = 1
width = 16
heads = 1
context = 32
[config.eval]
max_tokens = 128
[config.sample]
count = 0
[config.fit]
micro_batch = 2
threads = 1
[config.limits]
min_free_disk_mb = 0
"""
