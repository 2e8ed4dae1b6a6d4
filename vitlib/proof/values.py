r"""Arrays with named axes: what makes matrix notation and index notation one mechanism.

A value is an array whose first axes carry index letters and whose last axes are those of a matrix.
`\mathbf X` has no letters and the shape (T, D); `X_{td}` has the letters t and d and the shape (),
a number for each t and d; `\mathbf x_t` has the letter t and the shape (1, D), a row for each t.
Operations line letters up by name and then act on what is behind them. They do not mind whether
the entries are floats or SymPy expressions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitlib.proof.errors import MismatchError

Array = NDArray[Any]


@dataclass(frozen=True)
class Value:
    """An array with named axes.

    Attributes:
        data: The axes of `letters` in their order, then the axes of a matrix: none for a number,
            two for a matrix or a row (1, n), more for a batch of matrices.
        letters: Names of the first axes.
    """

    data: Array
    letters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # numpy turns arrays without axes into bare numbers
        object.__setattr__(self, "data", np.asarray(self.data))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape without the named axes."""
        return self.data.shape[len(self.letters) :]

    @property
    def is_number(self) -> bool:
        """Whether there is one entry for each choice of the letters."""
        return all(size == 1 for size in self.shape)


@dataclass(frozen=True)
class Unshaped:
    r"""`\mathbf 0`, `\mathbf 1` (a column) or `\mathbf I` times a number, not yet of a shape."""

    kind: Literal["0", "1", "I"]
    scale: Value
    transposed: bool = False

    def filled(self, shape: tuple[int, ...]) -> Value:
        """The same with a shape."""
        if self.kind == "I":
            if len(shape) < 2 or shape[-1] != shape[-2]:
                raise MismatchError(f"an identity cannot have the shape {shape}")
            return product(self.scale, Value(np.eye(shape[-1], dtype=int)))
        return elementwise(np.multiply, self.scale, Value(np.full(shape, int(self.kind == "1"))))


def matrix(array: Array, letters: tuple[str, ...] = ()) -> Value:
    """A value of an array; one axis behind the letters is a row."""
    if array.ndim - len(letters) == 1:
        array = array[..., None, :]
    return Value(array, letters)


def aligned(*values: Value) -> tuple[tuple[str, ...], list[Array]]:
    """Arrays whose axes are all the letters in one order, then matrix axes of equal number.

    Raises:
        MismatchError: One letter has two lengths.
    """
    lengths: dict[str, int] = {}
    for value in values:
        for letter, length in zip(value.letters, value.data.shape, strict=False):
            if lengths.setdefault(letter, length) != length:
                raise MismatchError(
                    f"the index {letter} has {lengths[letter]} values in one place"
                    f" and {length} in another"
                )
    rank = max(len(value.shape) for value in values)
    arrays: list[Array] = []
    for value in values:
        order = [value.letters.index(letter) for letter in lengths if letter in value.letters]
        data = value.data.transpose(*order, *range(len(value.letters), value.data.ndim))
        named = [lengths[letter] if letter in value.letters else 1 for letter in lengths]
        arrays.append(data.reshape((*named, *[1] * (rank - len(value.shape)), *value.shape)))
    return tuple(lengths), arrays


def elementwise(function: Callable[..., Array], *values: Value) -> Value:
    """A function entry by entry; axes of length 1 repeat.

    Raises:
        MismatchError: The shapes differ in more than axes of length 1.
    """
    letters, arrays = aligned(*values)
    try:
        np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        shapes = " and ".join(str(value.shape) for value in values)
        raise MismatchError(f"the shapes {shapes} do not fit entry by entry") from None
    return Value(function(*arrays), letters)


def product(left: Value, right: Value) -> Value:
    """The matrix product, on the last two axes; numbers scale.

    Raises:
        MismatchError: The inner sizes differ.
    """
    if not left.shape or not right.shape:
        return elementwise(np.multiply, left, right)
    if left.shape[-1] != right.shape[-2]:
        if left.is_number or right.is_number:
            return elementwise(np.multiply, left, right)
        raise MismatchError(f"the shapes {left.shape} and {right.shape} do not fit a product")
    letters, arrays = aligned(left, right)
    try:
        return Value(np.matmul(*arrays), letters)
    except ValueError:
        raise MismatchError(f"the batches of {left.shape} and {right.shape} differ") from None


def transpose(value: Value) -> Value:
    """Last two axes exchanged.

    Raises:
        MismatchError: The value is a number.
    """
    if not value.shape:
        raise MismatchError("a number is transposed: transpose the matrix, then take the entry")
    return replace(value, data=value.data.swapaxes(-1, -2))


def entries(array: Array, axes: list[int], indices: list[Value], hidden: tuple[str, ...]) -> Value:
    """Entries of an array, one index for each of `axes`; the other axes stay.

    Args:
        array: Its first axes carry the letters `hidden`, which `axes` does not count.
        axes: Axes that have an index.
        indices: Whole numbers, counted from 0.
        hidden: Letters that the array has already.

    Raises:
        MismatchError: An index leaves its axis, or is not whole.
    """
    if not axes:
        return matrix(array, hidden)
    for axis, index in zip(axes, indices, strict=True):
        size = array.shape[len(hidden) + axis]
        if not index.data.size:  # of an empty sum
            continue
        lowest, highest = index.data.min(), index.data.max()
        numbers = index.data.astype(float)
        if np.any(numbers != np.floor(numbers)):
            raise MismatchError("a subscript is not a whole number")
        if lowest < 0 or highest >= size:
            raise MismatchError(
                f"a subscript takes the values {lowest} to {highest}, its axis has 0 to {size - 1}"
            )
    count = len(hidden) + len(axes)
    moved = np.moveaxis(array, [len(hidden) + axis for axis in axes], range(len(hidden), count))
    own = [Value(np.arange(array.shape[n]), (letter,)) for n, letter in enumerate(hidden)]
    letters, places = aligned(*own, *indices)
    # numpy turns an entry of an array of objects into the bare object
    return matrix(np.asarray(moved[tuple(place.astype(int) for place in places)]), letters)
