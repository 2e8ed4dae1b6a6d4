"""Random inputs of a computation: shapes in words, and how their entries are drawn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vitlib.proof.values import Array

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Sampler:
    """How an input is drawn.

    Attributes:
        shape: Names of sizes, or numbers, separated by blanks: `"B 1 height"`; empty for a number.
        draw: The entries, from a generator, the shape in numbers and all sizes.
    """

    shape: str
    draw: Callable[[np.random.Generator, tuple[int, ...], Sizes], Array]

    def __call__(self, rng: np.random.Generator, sizes: Sizes) -> Array:
        """Draw the input."""
        shape = tuple(int(s) if s.isdigit() else sizes[s] for s in self.shape.split())
        return np.asarray(self.draw(rng, shape, sizes))

    @property
    def sizes(self) -> tuple[str, ...]:
        """Names of the sizes in the shape."""
        return tuple(size for size in self.shape.split() if not size.isdigit())


def normal(shape: str) -> Sampler:
    """Standard normal entries; what a bare shape means."""
    return Sampler(shape, lambda rng, shape, _: rng.standard_normal(shape))


def positive(shape: str) -> Sampler:
    """Entries between 1/2 and 2."""
    return Sampler(shape, lambda rng, shape, _: rng.uniform(0.5, 2, shape))


def probabilities(shape: str) -> Sampler:
    """Positive entries, of which each row sums to 1."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...], _: Sizes) -> Array:
        entries = rng.uniform(0.1, 1, shape)
        return entries / entries.sum(axis=-1, keepdims=True)

    return Sampler(shape, draw)


def one_hot(shape: str) -> Sampler:
    """One entry of each row is 1, the others 0."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...], _: Sizes) -> Array:
        return np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]

    return Sampler(shape, draw)


def integers(shape: str, below: str | int) -> Sampler:
    """Whole numbers from 0, less than a number or than the size of that name."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> Array:
        return rng.integers(below if isinstance(below, int) else sizes[below], size=shape)

    return Sampler(shape, draw)


def constant(value: float, shape: str) -> Sampler:
    """The same number everywhere."""
    return Sampler(shape, lambda rng, shape, _: np.full(shape, float(value)))


@dataclass(frozen=True)
class Outcomes:
    r"""A random variable given by all its outcomes, equally likely, along the first axis.

    Printed formulas take its mean and variance with `\operatorname{E}` and `\operatorname{Var}`.
    Random variables of one formula list their outcomes in the same order.
    """

    values: Array


def outcomes(values: Array) -> Outcomes:
    """A random variable by its equally likely outcomes, which the first axis counts.

    A check's function returns it in place of an array: `{"q": proof.outcomes(every_q)}`.
    """
    return Outcomes(np.asarray(values))
