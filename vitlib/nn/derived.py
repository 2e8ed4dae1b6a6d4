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

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, wraps
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
        output: What forward returns first, where nobody will go backward.
        fits: Whether it can take these inputs.
    """

    forward: Forward
    backward: Backward
    output: Callable[..., Tensor]
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
    return any(map(any_needed, needed)) if isinstance(needed, tuple) else needed is True


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
        twin = TWINS.get(forward)
        if twin and not twin.fits(*inputs):
            twin = None
        tensors: list[Tensor] = []
        form = _take_apart(inputs, tensors)
        if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
            return twin.output(*inputs) if twin else forward(*inputs)[0]
        ahead, back = (twin.forward, twin.backward) if twin else (forward, backward)
        call = _Call(ahead, back, _is_selective(back), form)
        outputs: tuple[Tensor, ...] = _Derived.apply(call, *tensors)  # pyright: ignore[reportAssignmentType]
        return outputs[0]

    @wraps(forward)
    def function(*inputs: Any, gradients: str = "derived") -> Tensor:
        check_floating(name, inputs[0])
        if gradients == "autograd":
            return forward(*inputs)[0]
        return by_derivation(*inputs)

    return function


@cache
def _is_selective(backward: Backward) -> bool:
    """Whether a backward can leave out what is not needed."""
    return "needed" in signature(backward).parameters


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
        y, saved = call.forward(*_fill(call.inputs, iter(tensors)))
        known = [*tensors, y]
        place = {id(tensor): i for i, tensor in enumerate(known)}
        leaves: list[Tensor] = []
        call.saved, call.places = _take_apart(saved, leaves), []
        for leaf in leaves:
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
        # where the backward pass is recorded, it is a node, so as to refuse to be differentiated
        go_back = _Backward.apply if torch.is_grad_enabled() else _Backward.forward
        outputs = go_back(ctx.call, ctx.autocast, needed, grad_y, *ctx.saved_tensors)
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
        selection = (_fill(call.inputs, iter(needed)),) if call.selective else ()
        same = autocast == _autocast(grad_y.device.type)
        with nullcontext() if autocast is None or same else torch.autocast(**autocast):
            grads = call.backward(grad_y, _fill(call.saved, iter(saved)), *selection)
        matched: list[Tensor | None] = []
        _match(call.inputs, grads if isinstance(grads, tuple) else (grads,), matched)
        return tuple(grad if wanted else None for grad, wanted in zip(matched, needed, strict=True))

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


def _take_apart(nest: Any, tensors: list[Tensor]) -> Any:
    """The form of a nest; its tensors are added to a list in order."""
    if isinstance(nest, Tensor):
        tensors.append(nest)
        return _TENSOR
    if isinstance(nest, tuple):
        return _as(nest, [_take_apart(branch, tensors) for branch in nest])
    if isinstance(nest, dict):
        return {name: _take_apart(branch, tensors) for name, branch in nest.items()}
    return nest


def _fill(form: Any, leaves: Iterator[Any]) -> Any:
    """The nest of this form with these leaves."""
    if form is _TENSOR:
        return next(leaves)
    if isinstance(form, tuple):
        return _as(form, [_fill(branch, leaves) for branch in form])
    if isinstance(form, dict):
        return {name: _fill(branch, leaves) for name, branch in form.items()}
    return form


def _as(model: tuple[Any, ...], branches: list[Any]) -> Any:
    """A tuple, or the same named tuple as another."""
    return type(model)(*branches) if hasattr(model, "_fields") else tuple(branches)


def _match(form: Any, grads: Any, matched: list[Tensor | None]) -> None:
    """Add the gradient of each of the form's tensors in its order, None where there is none."""
    if form is _TENSOR:
        matched.append(grads)
    elif isinstance(form, dict):
        for name, branch in form.items():
            _match(branch, None if grads is None else grads.get(name), matched)
    elif isinstance(form, tuple):
        for branch, grad in zip_longest(form, grads or ()):
            _match(branch, grad, matched)
