"""What moves the weights: which of them decay, how fast each moves, and by which rule.

    W ← W − η r (m̂ / (√v̂ + ε) + λ W)

is AdamW's step (Loshchilov and Hutter 2019, algorithm 2): η is the peak learning rate, r the
schedule's factor (`vitlib.train.schedule`), λ the decay. Since η r multiplies the decay too, a
weight that gets no gradient shrinks by η r λ in a step. Other codes leave η out: big_vision's `wd`
is multiplied by the schedule alone (`big_vision/optax.py` adds it after the learning rate, before
the schedule), so its wd is our η λ. Its ViT-S/16 has lr 1e-3 and wd 1e-4: here λ = 1e-4 / 1e-3 =
0.1. Which weights decay is the same here and there, the kernels.
"""

from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vitlib.nn.initialise import packed_matrices
from vitlib.nn.vit import VisionTransformer
from vitlib.train.muon import Muon

OptimiserName = Literal["adamw", "muon"]

_EMBEDDING = ("patch_embed", "cls_token", "pos_embed", "reg_token")


def parameter_groups(
    model: VisionTransformer,
    weight_decay: float,
    layer_decay: float = 1.0,
    *,
    hidden_apart: bool = False,
) -> list[dict[str, Any]]:
    """Each trained parameter in exactly one group; those that are treated alike share one.

    Matrices decay, the rest does not. A matrix is what is multiplied with tokens: a `weight` of two
    or more axes. Biases, gains, the factors of LayerScale, class token, registers and positions are
    added or scale one entry at a time; pulling them towards zero would bias what the model says
    rather than keep it simple. DeiT and big_vision do the same.

    With a layer decay ρ, the parameters of layer l learn ρ^(L + 1 − l) times as fast: the embedding
    is layer 0, the blocks are 1 to L, last norm and head are L + 1 (Clark et al. 2020, ELECTRA;
    Bao et al. 2022, BEiT, whose numbering this is). What lies low in a trained model is general and
    should stay. The decay slows down with the learning rate.

    Args:
        model: Sharded already, if it is to be.
        weight_decay: Of matrices.
        layer_decay: ρ; 1 for none.
        hidden_apart: Whether the matrices of the blocks have groups of their own. Those say in
            "parts" how many matrices each of their weights packs, one below the other: 3 in
            queries, keys and values, 2 in a SwiGLU's gate and value, 1 elsewhere.

    Returns:
        Groups as `torch.optim` takes them: "params", "weight_decay", "lr_scale", perhaps "parts".

    Raises:
        ValueError: No parameter is trained.
    """
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = name.endswith("weight") and parameter.ndim >= 2
        distance = model.config.depth + 1 - _layer_of(name, model.config.depth)
        settings: dict[str, Any] = {
            "weight_decay": weight_decay if is_matrix else 0.0,
            "lr_scale": layer_decay**distance,
        }
        if hidden_apart and is_matrix and name.startswith("blocks."):
            settings["parts"] = packed_matrices(name, model.config.activation)
        group = groups.setdefault(tuple(settings.values()), {"params": [], **settings})
        group["params"].append(parameter)
    if not groups:
        raise ValueError(
            "no parameter is trained: all are frozen. Set requires_grad of at least one."
        )
    return list(groups.values())


def make_optimisers(
    model: VisionTransformer,
    *,
    optimiser: OptimiserName,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    layer_decay: float = 1.0,
) -> tuple[torch.optim.Optimizer, ...]:
    """The optimisers that together hold each trained parameter once.

    One fused AdamW kernel updates all parameters of a group where PyTorch has one for the device,
    sharded parameters (FSDP2) included; elsewhere PyTorch picks the fastest way that it has.

    Args:
        model: On its device, and sharded already, if it is to be.
        optimiser: "adamw", or "muon" for the matrices of the blocks with AdamW for the rest.
        lr: Peak learning rate, of both.
        weight_decay: Of matrices.
        betas: AdamW's.
        layer_decay: Factor on the learning rate from each layer to the one below (1: none).

    Raises:
        ValueError: No optimiser has that name, or no parameter is trained.
    """
    if optimiser not in get_args(OptimiserName):
        raise ValueError(
            f"optimiser={optimiser!r} is not available: choose "
            f"{' or '.join(get_args(OptimiserName))}."
        )
    groups = parameter_groups(model, weight_decay, layer_decay, hidden_apart=optimiser == "muon")
    hidden = [group for group in groups if "parts" in group]
    others = [group for group in groups if "parts" not in group]
    devices = {parameter.device.type for parameter in model.parameters()}
    fused = True if devices <= {"cpu", "cuda", "mps", "xpu"} else None
    made: list[torch.optim.Optimizer] = []
    if hidden:
        made.append(Muon(hidden, lr=lr))
    if others:
        made.append(torch.optim.AdamW(others, lr=lr, betas=betas, fused=fused))
    return tuple(made)


def set_rate(optimisers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set the learning rate of every group to the peak × the group's "lr_scale" × `factor`.

    The peak is what the optimiser was made with; what a loaded state says of it does not count.

    Args:
        optimisers: From `make_optimisers`.
        factor: The schedule's, from 0 to 1.
    """
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = optimiser.defaults["lr"] * group["lr_scale"] * factor


def clip(model: nn.Module, largest: float) -> Float[Tensor, ""]:
    """Scale all gradients by one factor, so that the norm of the whole is at most `largest`.

    Nothing waits for the device, and with sharded gradients (FSDP2) the norm is that of all shards.

    Args:
        model: Whose gradients.
        largest: Norm above which they are scaled down; 0 for no limit.

    Returns:
        The norm before, as a tensor on the device.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(
        [parameter.grad for parameter in parameters if parameter.grad is not None]
    )
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if largest:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm


def _layer_of(name: str, depth: int) -> int:
    first, *rest = name.split(".")
    if first in _EMBEDDING:
        return 0
    return int(rest[0]) + 1 if first == "blocks" else depth + 1
