"""One run of a computation, with gradients by autograd and by finite differences."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from vitlib.proof.values import Array


@dataclass(frozen=True)
class Step:
    """What computes a quantity from others.

    Attributes:
        compute: The quantity from all that were computed before.
        needs: Names of those it depends on.
    """

    compute: Callable[[Mapping[str, Tensor]], Tensor]
    needs: frozenset[str]


# A central difference of fourth order errs by h^4 from truncation and by 1e-16 / h from rounding.
STEP = 1e-4
AGREEMENT = 1e-8


class Run:
    """Values of all quantities and, on demand, gradients that two methods agree on.

    Args:
        inputs: By name.
        steps: By name, in order, what computes a quantity from all before it.
        rng: Draws the cotangent of the last step.
    """

    def __init__(
        self, inputs: Mapping[str, Tensor], steps: Mapping[str, Step], rng: np.random.Generator
    ):
        self.steps = steps
        self.values = dict(inputs)
        with torch.no_grad():
            for name, step in steps.items():
                self.values[name] = step.compute(self.values)
        self.last = next(reversed(self.values))
        shape = self.values[self.last].shape
        cotangent = rng.standard_normal(tuple(shape)) if shape else np.ones(())
        self.cotangent = torch.from_numpy(cotangent)
        self.loss = float(self._loss(self.values))
        self._gradients: dict[str, Array] = {}
        self._jacobians: dict[tuple[str, str], Array] = {}

    def gradient(self, name: str) -> Array:
        """Gradient of the loss.

        Raises:
            KeyError: There is no such quantity, or the loss does not depend on it.
            AssertionError: Autograd and finite differences disagree.
        """
        if name not in self._gradients:
            found = self._all_gradients[name]
            differences = self._differences(name, self.last) @ self.cotangent.numpy().ravel()
            _agree(
                f"the gradient of {name}",
                found,
                differences.reshape(found.shape),
                self.gradient_scale(),
            )
            self._gradients[name] = found
        return self._gradients[name]

    def jacobian(self, of: str, by: str) -> Array:
        """Derivative of one quantity by another; the axes of `of` come first.

        Raises:
            KeyError: There is no such quantity, or `of` does not depend on `by`.
            AssertionError: Autograd and finite differences disagree.
        """
        if (of, by) not in self._jacobians:
            leaf = self._leaf(by)
            output = self._after(by, leaf).get(of)
            if output is None or not output.requires_grad:
                raise KeyError(of)
            rows = [
                torch.autograd.grad(entry, leaf, retain_graph=True)[0]
                for entry in output.reshape(-1)
            ]
            found = torch.stack(rows).reshape(*output.shape, *leaf.shape).numpy()
            differences = self._differences(by, of).T.reshape(found.shape)
            _agree(f"the derivative of {of} by {by}", found, differences, np.abs(found).max())
            self._jacobians[of, by] = found
        return self._jacobians[of, by]

    def gradient_scale(self) -> float:
        """Largest entry of the gradients of all quantities."""
        return max(float(np.abs(gradient).max()) for gradient in self._all_gradients.values())

    @cached_property
    def _all_gradients(self) -> dict[str, Array]:
        """By autograd, of every quantity that the loss depends on."""
        found: dict[str, Array] = {}
        for name in self.values:
            with suppress(KeyError):
                found[name] = self._autograd(name)
        return found

    def _leaf(self, name: str) -> Tensor:
        if not self.values[name].is_floating_point():
            raise KeyError(name)
        return self.values[name].detach().clone().requires_grad_()

    def _loss(self, values: Mapping[str, Tensor]) -> Tensor:
        return (values[self.last] * self.cotangent).sum()

    def _after(self, name: str, value: Tensor) -> dict[str, Tensor]:
        """All quantities when one has another value."""
        values = {**self.values, name: value}
        changed = {name}
        for later, step in self.steps.items():
            if later != name and step.needs & changed:
                values[later] = step.compute(values)
                changed.add(later)
        return values

    def _autograd(self, name: str) -> Array:
        leaf = self._leaf(name)
        loss = self._loss(self._after(name, leaf))
        gradient = (
            torch.autograd.grad(loss, leaf, allow_unused=True)[0] if loss.requires_grad else None
        )
        if gradient is None:
            raise KeyError(name)
        return gradient.numpy()

    def _differences(self, name: str, of: str) -> Array:
        """Derivatives of all entries of `of`, a row for each entry of the quantity `name`."""
        base = self._leaf(name).detach().contiguous()
        rows: list[Array] = []
        with torch.no_grad():
            for entry in range(base.numel()):
                slopes = torch.zeros(self.values[of].numel(), dtype=torch.float64)
                for steps, weight in ((1, 8), (2, -1), (-1, -8), (-2, 1)):
                    moved = base.clone()
                    moved.view(-1)[entry] += steps * STEP
                    slopes += weight * self._after(name, moved)[of].reshape(-1)
                rows.append((slopes / (12 * STEP)).numpy())
        return np.stack(rows)


def array_function(function: Callable[..., Tensor]) -> Callable[..., Array]:
    """The same function on numpy arrays."""
    return lambda *arrays: function(*(torch.tensor(array) for array in arrays)).detach().numpy()


def array_derivative(function: Callable[[Tensor], Tensor], name: str) -> Callable[[Array], Array]:
    """Derivative of an elementwise function, by autograd and by finite differences."""

    def derivative(array: Array) -> Array:
        leaf = torch.tensor(array, dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(function(leaf).sum(), leaf)
        with torch.no_grad():
            moved = [function(leaf + n * STEP) for n in (1, 2, -1, -2)]
        differences = (8 * moved[0] - moved[1] - 8 * moved[2] + moved[3]) / (12 * STEP)
        scale = float(found.abs().max())
        _agree(f"the derivative of {name}", found.numpy(), differences.numpy(), scale)
        return found.numpy()

    return derivative


def _agree(what: str, autograd: Array, differences: Array, scale: float) -> None:
    error = float(np.abs(autograd - differences).max())
    if not error <= AGREEMENT * max(scale, 1e-300):
        raise AssertionError(
            f"the oracles disagree about {what}: autograd and finite differences differ by"
            f" {error:.1e} where the largest entry is {scale:.1e}"
        )
