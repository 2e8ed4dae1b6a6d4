"""From a derivation to training: a forward and a backward become one node of PyTorch's graph.

A file of `vitlib.nn` writes each concept as a pair

    x_forward(*inputs)        -> (y, saved)
    x_backward(grad_y, saved) -> gradients, one for each input in the same order

in plain tensor operations. `derived(x_forward, x_backward)` is a function `x(*inputs) -> y` whose
gradient is the pair's own backward pass, wherever PyTorch asks for one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

Forward = Callable[..., tuple[Tensor, Any]]
Backward = Callable[[Tensor, Any], Any]


def derived(forward: Forward, backward: Backward) -> Callable[..., Tensor]:
    """Make one differentiable function of a forward and its derived backward.

    Works under autocast, with hooks, `retain_graph` and `torch.func`. To differentiate the backward
    pass itself is refused with a `RuntimeError`.

    Args:
        forward: takes tensors, tuples of them, None and constants; returns the output and whatever
            the backward needs.
        backward: takes the output's gradient and what was saved; returns the inputs' gradients in
            the order and nesting of the inputs, or the one gradient of the first. It may leave out
            constants that come last.
    """

    @wraps(forward)
    def function(*inputs: Any) -> Tensor:
        tensors = [leaf for leaf in _leaves(inputs) if isinstance(leaf, Tensor)]
        if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
            return forward(*inputs)[0]
        return _Derived.apply(_Call(forward, backward, _template(inputs)), *tensors)[0]  # type: ignore[index]

    return function


@dataclass
class _Call:
    """One call of a pair: everything about it that is not a tensor."""

    forward: Forward
    backward: Backward
    inputs: Any
    saved: Any = None
    places: list[int] = field(default_factory=list)  # of the saved among inputs, output, extras


class _Derived(torch.autograd.Function):
    # what was saved but is neither input nor output leaves the forward as a further output, since
    # save_for_backward, and with it torch.func and saved-tensor hooks, knows no other tensors
    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        y, saved = call.forward(*_fill(call.inputs, iter(tensors)))
        pool = [*tensors, y]
        call.saved, call.places = _template(saved), []
        for leaf in _leaves(saved):
            if isinstance(leaf, Tensor):
                known = [place for place, tensor in enumerate(pool) if tensor is leaf]
                call.places.append(known[0] if known else len(pool))
                if not known:
                    pool.append(leaf)
        return tuple(pool[len(tensors) :])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        call, *tensors = inputs
        y, *extras = output
        pool = [*tensors, *output]
        ctx.save_for_backward(*(pool[place] for place in call.places))
        ctx.mark_non_differentiable(*extras)
        ctx.set_materialize_grads(False)
        ctx.call = call
        device = y.device.type
        ctx.autocast = {
            "device_type": device,
            "enabled": torch.is_autocast_enabled(device),
            "dtype": torch.get_autocast_dtype(device),
        }

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        grad_y = grad_outputs[0]
        if grad_y is None:
            return (None,) * len(ctx.needs_input_grad)
        saved = ctx.saved_tensors
        with torch.no_grad(), torch.autocast(**ctx.autocast):
            grads = call.backward(grad_y, _fill(call.saved, iter(saved)))
            grads = grads if isinstance(grads, tuple) else (grads,)
        needed = ctx.needs_input_grad[1:]
        matched = zip(_match(call.inputs, grads), needed, strict=True)
        result = [grad if wanted else None for grad, wanted in matched]
        if torch.is_grad_enabled():  # somebody may differentiate once more
            found = [grad for grad in result if grad is not None]
            once = iter(_Once.apply(len(found), *found, grad_y, *saved))  # type: ignore[arg-type]
            result = [None if grad is None else next(once) for grad in result]
        return (None, *result)


class _Once(torch.autograd.Function):
    """Passes gradients on and refuses to be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: object) -> None:
        pass

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> None:
        raise RuntimeError(
            "a derived backward pass cannot be differentiated again: for second derivatives create "
            'the model with gradients="autograd".'
        )


_TENSOR = object()


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, tuple):
        for branch in tree:
            yield from _leaves(branch)
    else:
        yield tree


def _rebuild(tree: Any, change: Callable[[Any], Any]) -> Any:
    if not isinstance(tree, tuple):
        return change(tree)
    branches = [_rebuild(branch, change) for branch in tree]
    return type(tree)(*branches) if hasattr(tree, "_fields") else tuple(branches)


def _template(tree: Any) -> Any:
    """The tree with a mark in the place of every tensor."""
    return _rebuild(tree, lambda leaf: _TENSOR if isinstance(leaf, Tensor) else leaf)


def _fill(template: Any, tensors: Iterator[Tensor]) -> Any:
    return _rebuild(template, lambda leaf: next(tensors) if leaf is _TENSOR else leaf)


def _match(template: Any, grads: Any) -> Iterator[Tensor | None]:
    """The gradients that belong to the template's tensors, in its order."""
    if isinstance(template, tuple):
        for branch, grad in zip(template, grads, strict=False):
            yield from _match(branch, grad)
    elif template is _TENSOR:
        yield grads
