"""What the symbols of a formula stand for, in one case."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vitlib.proof.values import Array


def _no_gradient(name: str) -> Array:
    raise KeyError(name)


def _no_jacobian(of: str, by: str) -> Array:
    raise KeyError((of, by))


@dataclass(frozen=True)
class Environment:
    """Values of the symbols, all from oracles, none from the formula.

    Attributes:
        arrays: Arrays by name: bold in print, or italic with indices.
        scalars: Numbers by name: italic without indices. Sizes are among them.
        sizes: Names of the scalars that are sizes; below a symbol they are index letters.
        functions: Functions by name, from arrays to an array.
        hidden: Letters that the first axes of an array carry without being printed.
        gradient: Gradient of the loss by the name of a quantity; KeyError if there is none.
        jacobian: Derivative of a quantity by another, with the axes of both.
        gradient_scale: Largest entry of all gradients, against which theirs are measured.
    """

    arrays: Mapping[str, Array]
    scalars: Mapping[str, object] = field(default_factory=dict[str, object])
    sizes: frozenset[str] = frozenset()
    functions: Mapping[str, Callable[..., Array]] = field(
        default_factory=dict[str, Callable[..., Array]]
    )
    hidden: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    gradient: Callable[[str], Array] = _no_gradient
    jacobian: Callable[[str, str], Array] = _no_jacobian
    gradient_scale: Callable[[], float] = lambda: 0.0
