r"""The printed operators. `\mathbf 0`, `\mathbf 1` and `\mathbf I` fit the other operand."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from vitlib.proof import values
from vitlib.proof.errors import MismatchError
from vitlib.proof.values import Array, Unshaped, Value, elementwise

Operand = Value | Unshaped


def shaped(left: Operand, right: Operand) -> tuple[Value, Value]:
    """Both operands with a shape.

    Raises:
        MismatchError: Neither has one.
    """
    if isinstance(left, Unshaped):
        if isinstance(right, Unshaped):
            raise MismatchError("neither side has a shape: say the length, as in \\mathbf 1_{T}")
        return left.filled(right.shape), right
    return left, right.filled(left.shape) if isinstance(right, Unshaped) else right


def _by_entry(function: Callable[..., Array], left: Operand, right: Operand) -> Value:
    return elementwise(function, *shaped(left, right))


add = partial(_by_entry, np.add)
subtract = partial(_by_entry, np.subtract)
hadamard = partial(_by_entry, np.multiply)
remainder = partial(_by_entry, np.mod)


def product(left: Operand, right: Operand) -> Operand:
    r"""Juxtaposition: the matrix product, or scaling by a number.

    Raises:
        MismatchError: The shapes do not fit, or `\mathbf 1` has no length.
    """
    if isinstance(left, Value) and isinstance(right, Value):
        return values.product(left, right)
    for unshaped, other, last in ((left, right, True), (right, left, False)):
        if not isinstance(unshaped, Unshaped):
            continue
        if isinstance(other, Value) and not other.shape:
            return replace(unshaped, scale=values.product(unshaped.scale, other))
        if isinstance(other, Value) and unshaped.kind == "I":
            return values.product(unshaped.scale, other)
        # A row of ones fits to the left of a matrix, a column to the right.
        if isinstance(other, Value) and unshaped.kind == "1" and unshaped.transposed == last:
            size = other.shape[-2 if last else -1]
            ones = unshaped.filled((1, size) if last else (size, 1))
            return values.product(ones, other) if last else values.product(other, ones)
    raise MismatchError("this factor has no shape: say the length, as in \\mathbf 1_{T}")


def quotient(left: Operand, right: Operand) -> Operand:
    """Entry by entry; the divisor is a number, a row or a column.

    Raises:
        MismatchError: The divisor is a matrix, or the shapes do not fit.
    """
    if isinstance(right, Unshaped):
        raise MismatchError("the divisor has no shape")
    if right.shape and 1 not in right.shape:
        raise MismatchError(f"the divisor is a matrix of shape {right.shape}")
    if isinstance(left, Unshaped):
        if right.shape:
            return elementwise(np.true_divide, *shaped(left, right))
        return replace(left, scale=elementwise(np.true_divide, left.scale, right))
    return elementwise(np.true_divide, left, right)


def power(base: Value, exponent: Value, each_entry: bool) -> Value:
    r"""`x^n`, or `\mathbf X^{\odot n}` if `each_entry`.

    Raises:
        MismatchError: A matrix is raised to a power that is not marked as elementwise, or the
            exponent is not a number.
    """
    if not base.is_number and not each_entry:
        raise MismatchError("the power of a matrix: for its entries write ^{\\odot 2}")
    if not exponent.is_number:
        raise MismatchError(f"an exponent of shape {exponent.shape}")
    if base.data.dtype != object:
        base = replace(base, data=base.data.astype(float))
    return elementwise(np.power, base, exponent)
