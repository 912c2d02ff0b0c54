"""Bytes of a frozen decoder in each format, before any of it exists; pure arithmetic, no torch."""

from __future__ import annotations

from ondevice.model.counts import count_parameters
from ondevice.model.targets import targets_of
from ondevice.run.recipe import ModelShape

__all__ = ["TABLE_FORMAT", "frozen_bytes", "matrix_bytes"]

# The embedding and the head take 8 bits a number at least.
TABLE_FORMAT = {"fp32": "fp32", "bf16": "bf16", "int8": "int8", "int4": "int8", "nf4": "int8"}


def matrix_bytes(form: str, rows: int, columns: int) -> int:
    """Of one matrix with its scales."""
    if form == "int8":
        return rows * (columns + 4)
    if form == "int4":
        return rows * -(-columns // 32) * (16 + 2)
    if form == "nf4":
        blocks = rows * -(-columns // 64)
        return blocks * (32 + 1) + 4 * -(-blocks // 256) + 4
    return rows * columns * {"fp32": 4, "bf16": 2}[form]


def frozen_bytes(shape: ModelShape, form: str) -> int:
    """Of a whole decoder: matrices, tables, and what stays in fp32 (norms, biases, positions)."""
    tables = 1 if shape.tied else 2
    matrices = [(target.rows, target.columns) for target in targets_of(shape)]
    numbers = shape.layers * sum(rows * columns for rows, columns in matrices)
    rest = count_parameters(shape) - numbers - tables * shape.vocab_size * shape.width
    # Joint matrices may share a group of scales: some bytes a matrix.
    blocks = shape.layers * sum(matrix_bytes(form, rows, columns) for rows, columns in matrices)
    return blocks + tables * matrix_bytes(TABLE_FORMAT[form], shape.vocab_size, shape.width) + 4 * rest
