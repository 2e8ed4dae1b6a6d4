"""From a derivation to training: a forward and a backward become one node of PyTorch's graph.

A file of `vitlib.nn` writes each concept as a pair

    x_forward(*inputs)        -> (y, saved)
    x_backward(grad_y, saved) -> the gradients of the inputs

in plain tensor operations. `derived(x_forward, x_backward)` is a function `x(*inputs) -> y` whose
gradient is the pair's own backward pass, wherever PyTorch asks for one (`start/gradients`). With
`gradients="autograd"` it runs the forward alone and leaves the rest to PyTorch.

Where weights are frozen, some gradients are not needed. A backward that can leave work out takes
them as a third argument, `needed`: the inputs' form, with True or False for each tensor.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import wraps
from inspect import signature
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available

from vitlib.nn.checks import check_floating

__all__ = ["TWINS", "Twin", "Unneeded", "any_needed", "derived"]

Forward = Callable[..., tuple[Tensor, Any]]
Backward = Callable[..., Any]


class Twin(NamedTuple):
    """Another pair for the same function, and where to take it.

    Attributes:
        forward: As the readable one; what it saves may be something else.
        backward: The one that belongs to it.
        fits: Whether it can take these inputs.
    """

    forward: Forward
    backward: Backward
    fits: Callable[..., bool]


TWINS: dict[Forward, Twin] = {}
"""Faster pairs by the readable forward that they stand in for (`vitlib.fast`)."""

if TYPE_CHECKING:
    Unneeded = Any
else:
    Unneeded = None
"""In annotations, the None in place of a gradient that was not needed; type checkers let it pass,
since by default everything is."""


def any_needed(needed: Any) -> bool:
    """Whether something in a nest of tuples is needed."""
    return any(leaf is True for leaf in _leaves(needed))


def derived(forward: Forward, backward: Backward) -> Callable[..., Tensor]:
    """Make one differentiable function of a forward and its derived backward.

    It composes with what composes with PyTorch's own: hooks, `retain_graph`, saved-tensor hooks,
    `torch.func`, `torch.compile`. Autocast narrows the matrix products inside, forward and
    backward alike, and nothing else. To differentiate the backward pass is refused.

    Args:
        forward: takes tensors, tuples and dictionaries of them, None and constants; returns the
            output and whatever the backward needs, in tuples and dictionaries.
        backward: takes the output's gradient and what was saved; returns the gradients in the order
            and nesting of the inputs, without the constants at their end; one alone may stand bare.
            May take `needed`, and put None in place of gradients that are not.

    Returns:
        The function of the same inputs, with a keyword `gradients`: "derived" or "autograd".

    Raises:
        TypeError: from the function, when its first input is not floating point.
        RuntimeError: from the function, when its gradient is differentiated again.
    """
    name = forward.__name__.removesuffix("_forward")

    # torch.compile breaks its graph at the function and goes on behind it. The public name of this
    # decorator, torch.compiler.disable, would import the compiler together with this module.
    @torch._disable_dynamo  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    def by_derivation(*inputs: Any) -> Tensor:
        ahead, back = forward, backward
        if (twin := TWINS.get(forward)) and twin.fits(*inputs):
            ahead, back = twin.forward, twin.backward
        tensors = [leaf for leaf in _leaves(inputs) if isinstance(leaf, Tensor)]
        if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
            return ahead(*inputs)[0]
        selective = "needed" in signature(back).parameters
        call = _Call(ahead, back, selective, _form(inputs))
        outputs: tuple[Tensor, ...] = _Derived.apply(call, *tensors)  # pyright: ignore[reportAssignmentType]
        return outputs[0]

    @wraps(forward)
    def function(*inputs: Any, gradients: str = "derived") -> Tensor:
        check_floating(name, inputs[0])
        if gradients == "autograd":
            return forward(*inputs)[0]
        return by_derivation(*inputs)

    return function


@dataclass
class _Call:
    """One call of a pair: everything about it that is not a tensor."""

    forward: Forward
    backward: Backward
    selective: bool  # whether the backward takes `needed`
    inputs: Any  # the inputs' form
    saved: Any = None  # the form of what was saved,
    places: list[int] = field(default_factory=list)  # and where its tensors are: see _Derived


class _Derived(torch.autograd.Function):
    """The node. Its inputs are a call and its tensors; its outputs y and the extras.

    Extras are saved tensors that are neither input nor y. They have to be outputs, since nothing
    else can go through `save_for_backward` and be known to `torch.func` and to saved-tensor hooks.
    They stay differentiable: a second differentiation has to meet the refusal, not a constant.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        y, saved = call.forward(*_fill(call.inputs, tensors))
        known = [*tensors, y]
        place = {id(tensor): i for i, tensor in enumerate(known)}
        call.saved, call.places = _form(saved), []
        for leaf in _leaves(saved):
            if isinstance(leaf, Tensor):
                if id(leaf) not in place:
                    place[id(leaf)] = len(known)
                    known.append(leaf)
                call.places.append(place[id(leaf)])
        return tuple(known[len(tensors) :])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        call, *tensors = inputs
        known = [*tensors, *output]
        ctx.save_for_backward(*(known[place] for place in call.places))
        ctx.set_materialize_grads(False)  # no zeros for the extras
        ctx.call = call
        ctx.autocast = _autocast(output[0].device.type)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_y, needed = grads[0], ctx.needs_input_grad[1:]
        if grad_y is None:
            return (None,) * (1 + len(needed))
        outputs = _Backward.apply(ctx.call, ctx.autocast, needed, grad_y, *ctx.saved_tensors)
        return None, *outputs  # pyright: ignore[reportReturnType, reportGeneralTypeIssues]


class _Backward(torch.autograd.Function):
    """The backward pass, as a node that refuses to be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        call: _Call,
        autocast: dict[str, Any] | None,
        needed: tuple[bool, ...],
        grad_y: Tensor,
        *saved: Tensor,
    ) -> tuple[Tensor | None, ...]:
        selection = (_fill(call.inputs, needed),) if call.selective else ()
        with torch.autocast(**autocast) if autocast else nullcontext():
            grads = call.backward(grad_y, _fill(call.saved, saved), *selection)
        grads = grads if isinstance(grads, tuple) else (grads,)
        matched = zip(_match(call.inputs, grads), needed, strict=True)
        return tuple(grad if wanted else None for grad, wanted in matched)

    @staticmethod
    def setup_context(ctx: Any, inputs: object, output: object) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> None:
        raise RuntimeError(
            "a derived backward pass cannot be differentiated again: for second derivatives create "
            'the model with gradients="autograd".'
        )


def _autocast(device: str) -> dict[str, Any] | None:
    """The arguments that bring today's autocast back, where the device has one."""
    if not is_autocast_available(device):
        return None
    return {
        "device_type": device,
        "enabled": torch.is_autocast_enabled(device),
        "dtype": torch.get_autocast_dtype(device),
    }


_TENSOR = object()
"""The mark of a tensor in a form: a nest of tuples and dictionaries without its tensors."""


def _leaves(nest: Any) -> Iterator[Any]:
    if isinstance(nest, tuple | dict):
        for branch in nest.values() if isinstance(nest, dict) else nest:
            yield from _leaves(branch)
    else:
        yield nest


def _rebuild(nest: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(nest, dict):
        return {name: _rebuild(branch, change) for name, branch in nest.items()}
    if isinstance(nest, tuple):
        branches = [_rebuild(branch, change) for branch in nest]
        return type(nest)(*branches) if hasattr(nest, "_fields") else tuple(branches)
    return change(nest)


def _form(nest: Any) -> Any:
    return _rebuild(nest, lambda leaf: _TENSOR if isinstance(leaf, Tensor) else leaf)


def _fill(form: Any, leaves: Iterable[Any]) -> Any:
    remaining = iter(leaves)
    return _rebuild(form, lambda leaf: next(remaining) if leaf is _TENSOR else leaf)


def _match(form: Any, grads: Any) -> Iterator[Tensor | None]:
    """The gradient of each of the form's tensors in its order, None where there is none."""
    if form is _TENSOR:
        yield grads
    elif isinstance(form, dict):
        for name, branch in form.items():
            yield from _match(branch, None if grads is None else grads.get(name))
    elif isinstance(form, tuple):
        for branch, grad in zip_longest(form, grads or ()):
            yield from _match(branch, grad)
