"""Two processes train one model: run by `torchrun`, started by test_distributed.py.

Each process computes half of every batch. Where the model is sharded by FSDP2, it also holds half
of every weight. Prints nothing; fails when a loss or a weight is not that of one process alone.
"""

import sys
from dataclasses import replace

import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from vitlib import VisionTransformer, ViTConfig
from vitlib.nn.loss import cross_entropy

CONFIG = ViTConfig(
    image_size=8,
    patch_size=4,
    in_channels=1,
    num_classes=10,
    dim=16,
    depth=2,
    heads=2,
    mlp_dim=32,
    position="rope2d",
    registers=1,
    gradients="derived",
)
STEPS, BATCH = 5, 8


def fresh(gradients, dtype):
    torch.manual_seed(0)
    return VisionTransformer(replace(CONFIG, gradients=gradients)).to(dtype)


def batches(dtype):
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        images = torch.randn(BATCH, 1, 8, 8, generator=generator).to(dtype)
        yield images, torch.randint(10, (BATCH,), generator=generator)


def shard(model, **options):
    for block in model.blocks:
        fully_shard(block, **options)
    return fully_shard(model, **options)


def train(model, dtype, part=slice(None)):
    """The losses, of a part of each batch."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for images, labels in batches(dtype):
        loss = cross_entropy(model(images[part]), labels[part], gradients="derived")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def whole(parameter):
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def main(way):
    dist.init_process_group("gloo")
    rank, half = dist.get_rank(), BATCH // dist.get_world_size()
    part = slice(rank * half, (rank + 1) * half)
    dtype, tolerance = torch.float64, 1e-12
    if way == "ddp":
        model = DistributedDataParallel(fresh("derived", dtype))
    elif way == "fsdp2":
        model = shard(fresh("derived", dtype))
    else:  # narrow products, wide sums: what large models are trained with
        dtype, tolerance = torch.float32, 0.05
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        model = shard(fresh("derived", dtype), mp_policy=policy)
    losses = train(model, dtype, part)
    dist.all_reduce(losses)  # a sum
    losses /= dist.get_world_size()
    alone = fresh("autograd", dtype)
    expected = train(alone, dtype)
    torch.testing.assert_close(losses, expected, rtol=0, atol=tolerance)
    if way != "ddp":
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    if way != "fsdp2-bfloat16":
        for parameter, other in zip(model.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(whole(parameter), other, rtol=0, atol=1e-9)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
