"""Muon, an optimiser for matrices: momentum, made orthogonal (Jordan et al. 2024).

    W G M (m, n)      M ← μ M + (1 − μ) G      N = μ M + (1 − μ) G      W ← (1 − η λ) W − η s U V⊤

with N = U Σ V⊤, the singular value decomposition of the momentum, looked at one step ahead
(Nesterov). Why U V⊤: a step ΔW changes the loss by ⟨G, ΔW⟩ to first order, and what a layer says
by at most the largest singular value of ΔW for an input of length 1. Among all steps whose largest
singular value is 1, −U V⊤ has the least ⟨G, ΔW⟩, that is −Σ σ_i: each direction counts alike, where
a gradient is mostly its few largest. A decomposition is slow on a GPU; a polynomial is not. With
all singular values in [0, 1], five times

    X ← a X + (b A + c A²) X      A = X X⊤      (a, b, c) = (3.4445, −4.7750, 2.0315)

replaces each singular value σ by a σ + b σ³ + c σ⁵ and leaves U and V as they are. The coefficients
are made to lift small values fast, not to end at 1: whatever was above 0.002 ends between 0.68 and
1.21, which serves as well.

The entries of U V⊤ have the mean square 1 / max(m, n). The scale s = 0.2 √max(m, n) makes that
0.2², about what the entries of AdamW's steps have, so that learning rate and decay carry over from
AdamW (Liu et al. 2025, "Muon is scalable for LLM training", §2.2).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from math import sqrt
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
RMS = 0.2
"""Root mean square of the entries of a step, before the learning rate."""
TOGETHER = 2**22
"""About how many entries are multiplied at once: a small matrix alone keeps no processor busy."""


def orthogonalise(matrices: Float[Tensor, "batch m n"]) -> Float[Tensor, "batch m n"]:
    """U V⊤ of each matrix U Σ V⊤, nearly: its singular values are about 1, but for tiny ones.

    In the precision of `matrices`.
    """
    a, b, c = COEFFICIENTS
    rows, columns = matrices.shape[-2:]
    x = matrices.mT if rows > columns else matrices  # the smaller Gram matrix
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # no singular value above 1
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if rows > columns else x


class Muon(torch.optim.Optimizer):
    """Muon for matrices, some of which may be several, one below the other.

    Queries, keys and values are three matrices, however they are stored. Taken for one they would
    share the length of one step, and early in training the values, whose gradient is many times
    longer, would get nearly all of it. PyTorch's own (`torch.optim.Muon`, the same formulas) takes
    a packed weight for one, and on sharded weights (FSDP2) communicates in every product. Here each
    weight is gathered once, in the precision of the products, and each process keeps its shard of
    the result.

    Args:
        params: Groups of weights of two axes. A group's "parts" says how many matrices of equal
            height each of its weights holds: 3 for queries, keys and values.
        lr: Peak learning rate, on AdamW's scale.
        weight_decay: As AdamW's; for groups that do not say.
        momentum: μ.

    Raises:
        ValueError: A weight is not a matrix, or cannot be divided into its parts.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "parts": 1}
        super().__init__(params, defaults)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim != 2 or weight.shape[0] % group["parts"]:
                    raise ValueError(
                        f"Muon was given a weight of shape {tuple(weight.shape)}: expected a "
                        f"matrix with rows for {group['parts']} parts. Give others to AdamW."
                    )

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Change the weights that have a gradient.

        Args:
            closure: Computes the gradients and returns the loss; may be left out.

        Returns:
            What `closure` returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for weights in _together(group["params"]):
                aheads: list[Tensor] = []
                for weight, grad in weights:
                    state = self.state[weight]
                    if not state:
                        state["momentum_buffer"] = torch.zeros_like(weight)
                    average = state["momentum_buffer"].lerp_(grad, 1 - momentum)
                    aheads.append(grad.lerp(average, momentum))
                    weight.mul_(1 - rate * group["weight_decay"])
                steps = _directions(aheads, group["parts"])
                for (weight, _), step in zip(weights, steps, strict=True):
                    weight.add_(step, alpha=-rate)
        return loss


def _together(weights: Iterable[Tensor]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Those that have a gradient, with it, some of equal shape at a time."""
    alike: defaultdict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for weight in weights:
        if weight.grad is not None:
            alike[weight.shape].append((weight, weight.grad))
    for shape, of_shape in alike.items():
        count = max(1, TOGETHER // max(1, shape.numel()))
        for start in range(0, len(of_shape), count):
            yield of_shape[start : start + count]


def _directions(aheads: list[Float[Tensor, "m n"]], parts: int) -> list[Float[Tensor, "m n"]]:
    """The scaled U V⊤ of each part of each; whole in each process, if they are sharded."""
    matrices = torch.stack([_whole(ahead) for ahead in aheads])
    scale = RMS * sqrt(max(matrices.shape[-2] // parts, matrices.shape[-1]))
    of_parts = orthogonalise(matrices.flatten(0, 1).unflatten(0, (len(aheads) * parts, -1)))
    steps = of_parts.reshape(matrices.shape).to(aheads[0].dtype).mul_(scale)
    return [_sharded_as(ahead, step) for ahead, step in zip(aheads, steps, strict=True)]


def _whole(ahead: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """All of it, in the precision of the products."""
    # bfloat16 is enough for what ends near 1, and fast where there are units for it
    narrow = ahead.to(torch.bfloat16) if ahead.device.type == "cuda" else ahead
    return narrow.full_tensor() if isinstance(narrow, DTensor) else narrow


def _sharded_as(ahead: Float[Tensor, "m n"], step: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """The step, in shards where `ahead` is: of what is whole everywhere, adding takes the shard."""
    if not isinstance(ahead, DTensor):
        return step
    mesh = ahead.device_mesh
    return DTensor.from_local(step, mesh, [Replicate()] * mesh.ndim, run_check=False)
