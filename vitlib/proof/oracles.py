"""Truth that does not share the derivation of a printed formula.

A `Computation` is run forward by PyTorch in float64. Its gradients are taken twice, by autograd
and by central finite differences, and must agree.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitlib.proof.environment import Environment
from vitlib.proof.functions import OUTCOMES
from vitlib.proof.run import Run, Step, array_derivative, array_function
from vitlib.proof.samplers import Outcomes, Sampler, normal
from vitlib.proof.values import Array

_TRIES = 200


class Computation:
    r"""Inputs, and the steps by which PyTorch computes everything else from them.

    The loss is the inner product of the last step with a random cotangent, so that
    `\frac{\partial \ell}{\partial \mathbf O}` of the last step O is that cotangent; if the last
    step is a number, it is the loss itself.

    Args:
        inputs: By name a shape such as `"T d"` (standard normal entries), or a sampler.
        steps: By name, in order, a function of earlier arrays, scalars and sizes, which it asks
            for by the names of its parameters, in torch and float64.
        sizes: Sizes that are fixed (`{"T": 5}`) or follow from others
            (`{"D": lambda H, d: H * d}`). Those of the inputs that are not here are drawn, all
            different.
        scalars: Further numbers, fixed or from sizes: `{"eps": 1e-5}`.
        functions: Functions that formulas name, from tensors to a tensor: `{"f": torch.relu}`.
            `f'` is then its derivative.
        names: Second names for quantities: `{"delta": "grad_zeros"}`.
        largest: Largest size that is drawn, unless there are more sizes than that. Finite
            differences take time in proportion to the entries of the inputs.
    """

    def __init__(
        self,
        inputs: Mapping[str, str | Sampler],
        steps: Mapping[str, Callable[..., Tensor]],
        *,
        sizes: Mapping[str, int | Callable[..., int]] | None = None,
        scalars: Mapping[str, float | Callable[..., float]] | None = None,
        functions: Mapping[str, Callable[..., Tensor]] | None = None,
        names: Mapping[str, str] | None = None,
        largest: int = 7,
    ):
        self.inputs = {
            name: normal(shape) if isinstance(shape, str) else shape
            for name, shape in inputs.items()
        }
        self.steps = dict(steps)
        self.sizes = dict(sizes or {})
        self.scalars = dict(scalars or {})
        self.functions = dict(functions or {})
        self.names = dict(names or {})
        self.largest = largest
        for name in self.inputs.keys() & self.steps.keys():
            raise ValueError(f"{name} is an input and a step: give one of them another name")

    def __call__(self, rng: np.random.Generator, largest: int | None = None) -> Environment:
        """Draw one case.

        Args:
            rng: Where sizes, inputs and cotangent come from.
            largest: Largest size that is drawn, if not that of the computation.

        Returns:
            Values of all symbols; gradients are computed when a formula asks for them.
        """
        sizes = self._draw_sizes(rng, largest or self.largest)
        scalars: dict[str, Any] = {**sizes}
        for name, value in self.scalars.items():
            scalars[name] = value(**_arguments(value, scalars, name)) if callable(value) else value
        tensors = {
            name: torch.from_numpy(sampler(rng, sizes)) for name, sampler in self.inputs.items()
        }
        steps = {name: _step(function, name, scalars) for name, function in self.steps.items()}
        run = Run(tensors, steps, rng)
        arrays = {name: value.numpy() for name, value in run.values.items()}
        for name, meaning in self.names.items():
            gradient = meaning.startswith("grad_")
            arrays[name] = run.gradient(meaning[5:]) if gradient else arrays[meaning]
        scalars["ell"] = run.loss
        scalars |= {name: array[()] for name, array in arrays.items() if array.ndim == 0}
        return Environment(
            arrays={name: array for name, array in arrays.items() if array.ndim},
            scalars=scalars,
            sizes=frozenset(sizes),
            functions=array_functions(self.functions),
            gradient=run.gradient,
            jacobian=run.jacobian,
            gradient_scale=run.gradient_scale,
        )

    def _draw_sizes(self, rng: np.random.Generator, largest: int) -> dict[str, int]:
        derived = {name: rule for name, rule in self.sizes.items() if callable(rule)}
        fixed = {name: size for name, size in self.sizes.items() if not callable(size)}
        wanted = [size for sampler in self.inputs.values() for size in sampler.sizes]
        for rule in [*derived.values(), *(s for s in self.scalars.values() if callable(s))]:
            wanted.extend(_parameters(rule))
        drawn = [n for n in dict.fromkeys(wanted) if n not in self.sizes and n not in self.scalars]
        pool = np.arange(2, max(largest, len(drawn) + 1) + 1)
        sizes: dict[str, int] = {}
        for _ in range(_TRIES):  # until derived sizes differ from the others too
            chosen = rng.permutation(pool)[: len(drawn)]
            sizes = {**fixed, **{n: int(s) for n, s in zip(drawn, chosen, strict=True)}}
            for name, rule in derived.items():
                sizes[name] = int(rule(**_arguments(rule, sizes, name)))
            if len(set(sizes.values())) == len(sizes):
                break
        return sizes


def array_functions(
    functions: Mapping[str, Callable[..., Tensor]],
) -> dict[str, Callable[..., Array]]:
    """Functions of tensors as functions of arrays, and the derivative of each with a prime."""
    given = {name: array_function(function) for name, function in functions.items()}
    derived = {f"{name}'": array_derivative(f, name) for name, f in functions.items()}
    return derived | given


def given(values: Mapping[str, object]) -> Environment:
    """The environment of a case that a check's own function returns.

    Args:
        values: Arrays (numpy or torch), numbers, `outcomes`; `grad_X` is the gradient of X. A
            Python `int` is a size, an integer of numpy's a number such as a class label: below a
            symbol the first is an index letter, the second a place.
    """
    arrays: dict[str, Array] = {}
    hidden: dict[str, tuple[str, ...]] = {}
    for name, value in values.items():
        if isinstance(value, Outcomes):
            hidden[name] = (OUTCOMES,)
            value = value.values
        arrays[name] = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    numbers = {name: array[()] for name, array in arrays.items() if array.ndim == 0}
    gradients = [array for name, array in arrays.items() if name.startswith("grad_")]
    return Environment(
        arrays={name: array for name, array in arrays.items() if array.ndim},
        scalars=numbers,
        sizes=frozenset(name for name, value in values.items() if isinstance(value, int)),
        hidden=hidden,
        gradient=lambda name: arrays[f"grad_{name}"],
        gradient_scale=lambda: max(float(np.abs(g).max()) for g in gradients),
    )


def _step(function: Callable[..., Tensor], name: str, scalars: Mapping[str, Any]) -> Step:
    return Step(
        lambda tensors: function(**_arguments(function, {**scalars, **tensors}, name)),
        frozenset(_parameters(function)),
    )


def _parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def _arguments(function: Callable[..., Any], known: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a function asks for by the names of its parameters."""
    wanted = _parameters(function)
    for parameter in wanted:
        if parameter not in known:
            raise ValueError(
                f"{name} asks for {parameter}, which is not known there: name an input, an earlier"
                " step, a size or a scalar"
            )
    return {parameter: known[parameter] for parameter in wanted}
