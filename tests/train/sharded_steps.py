"""Two processes hold half of every weight (FSDP2): run by `torchrun`, started by test_optimiser.py.

Prints nothing; fails when norm, weight or average is not that of one process alone.
"""

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy

from vitlib import VisionTransformer, ViTConfig
from vitlib.train.ema import Ema
from vitlib.train.optimiser import clip, make_optimisers, set_rate

# Sizes that two processes cannot divide evenly.
CONFIG = ViTConfig(
    image_size=8,
    patch_size=4,
    in_channels=1,
    num_classes=11,
    dim=15,
    depth=2,
    heads=3,
    mlp_dim=13,
    activation="swiglu",
)
BATCH = 8


def fresh():
    torch.manual_seed(0)
    return VisionTransformer(CONFIG).double()


def shard(model):
    for block in model.blocks:
        fully_shard(block)
    return fully_shard(model)


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def train(model, optimiser, part=slice(None)):
    """Norms of the gradients, logits with the averages as weights, logits after that."""
    optimisers = make_optimisers(
        model, optimiser=optimiser, lr=0.01, weight_decay=0.1, betas=(0.9, 0.99), layer_decay=0.8
    )
    ema, generator, said = Ema(model, 0.9), torch.Generator().manual_seed(1), []
    for step in range(3):
        images = torch.randn(BATCH, 1, 8, 8, generator=generator, dtype=torch.float64)
        labels = torch.randint(11, (BATCH,), generator=generator)
        for one in optimisers:
            one.zero_grad()
        cross_entropy(model(images[part]), labels[part]).backward()
        said.append(clip(model, 0.5))
        set_rate(optimisers, 1 / (1 + step))
        for one in optimisers:
            one.step()
        ema.update(model, step)
        with torch.no_grad():
            model(images)  # leaves whole weights behind
            with ema.replacing(model):
                said.append(model(images))
            said.append(model(images))
    for one in optimisers:
        for state in one.state.values():
            for name, tensor in state.items():
                assert name == "step" or type(tensor) is type(next(iter(ema.weights.values())))
    return said


def main():
    dist.init_process_group("gloo")
    half = BATCH // 2
    part = slice(dist.get_rank() * half, (dist.get_rank() + 1) * half)
    for optimiser in ("adamw", "muon"):
        sharded, alone = shard(fresh()), fresh()
        for ours, expected in zip(
            train(sharded, optimiser, part), train(alone, optimiser), strict=True
        ):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)
        sharded.reshard()
        for parameter, other in zip(sharded.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(whole(parameter), other, rtol=0, atol=1e-9)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
