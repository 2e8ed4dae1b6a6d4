"""What each process holds in a step of training, in bytes.

DDP keeps parameters, gradients and the optimiser's states whole in each of N processes. FSDP2 keeps
1/N of each, cut along the first axis (rows are rounded up), and beside them, whole, what is in use:
the layers outside the blocks and two blocks, the one at work and the next. Gradients are made by
the backward pass while it frees activations, so of these two only the larger counts, unless
gradients outlive the step: parts that are added up, and the buckets of DDP.
"""

from bisect import bisect_right
from dataclasses import dataclass, fields
from math import prod

from vitlib.train.plan.activations import NARROW, WIDE, activations
from vitlib.train.plan.setup import Setup

USABLE = 0.9
"""The part of a device's memory that is planned with: its driver, libraries and gaps need some."""

_LABEL = 8  # bytes


@dataclass(frozen=True)
class Memory:
    """Bytes in each process; their sum is the most that a step needs.

    Attributes:
        parameters: In float32.
        gradients: In float32.
        optimiser: Two moments a number for AdamW, one for Muon.
        average: The weights' moving average.
        copies: Narrow copies of weights that autocast keeps, or weights that FSDP2 has gathered and
            gradients that it has not scattered yet.
        activations: What waits for the backward pass.
        rebuilt: One block's, where they are computed again.
        loss: Logits and what the loss keeps.
        batch: Images and labels: of the whole step as they come, of a part as augmented and as
            normalised.
        work: The gradients inside the block at work.
        never_together: What gradients and activations do not need at the same time; negative.
    """

    parameters: int
    gradients: int
    optimiser: int
    average: int
    copies: int
    activations: int
    rebuilt: int
    loss: int
    batch: int
    work: int
    never_together: int

    @property
    def total(self) -> int:
        """The most that a step needs."""
        return sum(getattr(self, field.name) for field in fields(self))


def memory(setup: Setup, images: int) -> Memory:
    """What each process holds.

    Args:
        setup: The run.
        images: Of one part of a step in one process.
    """
    config = setup.config
    kept = activations(config, setup.narrowing, setup.on_cpu)
    shapes = {name: tuple(p.shape) for name, p in setup.model.named_parameters()}
    held = {name: setup.held(shape) for name, shape in shapes.items()}
    state = sum(count * (1 if name in setup.parts else 2) for name, count in held.items())
    counters = len(shapes) - len(setup.parts)  # AdamW counts the steps of each tensor
    parameters = WIDE * sum(held.values())
    gradients = parameters
    if setup.accumulate > 1 and setup.devices > 1:
        # parts are added up whole: beside DDP's buckets, or before FSDP2 makes shards of the sum
        gradients = WIDE * sum(map(prod, shapes.values())) * (1 if setup.sharded else 2)
    outlive = setup.accumulate > 1 or (setup.devices > 1 and not setup.sharded)
    waiting = images * kept.kept(setup.recompute)
    image = config.in_channels * prod(config.image_shape) * WIDE
    # autograd in float32 keeps the normalised images themselves
    own_copy = setup.narrowing != "none" or config.gradients == "derived"
    return Memory(
        parameters=parameters,
        gradients=gradients,
        optimiser=WIDE * (state + counters),
        average=parameters if setup.ema else 0,
        copies=_copies(setup, shapes),
        activations=waiting,
        rebuilt=images * kept.rebuilt(setup.recompute),
        loss=images * kept.loss,
        batch=images * (image * (setup.accumulate + 1 + own_copy) + _LABEL * setup.accumulate),
        work=images * kept.work,
        never_together=0 if outlive else -min(gradients, waiting),
    )


def _copies(setup: Setup, shapes: dict[str, tuple[int, ...]]) -> int:
    if setup.sharded:
        # gathered: what is outside the blocks, two blocks, and the buffer that one arrives in;
        # gradients, as they are made and as they are sent: of one block and the one before
        outer, inner = setup.held_by_group()
        weights = setup.width * (outer + 3 * max(inner))
        return setup.devices * (weights + 2 * (setup.width + WIDE) * max(inner))
    if setup.narrowing == "autocast" and setup.config.gradients == "autograd":
        return NARROW * sum(
            prod(shape) for name, shape in shapes.items() if _is_matrix(name, shape)
        )
    return 0


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    return name.endswith("weight") and len(shape) > 1


def largest_batch(setup: Setup) -> int:
    """The most images a step that fit into the memory, over all processes and parts; 0: none do."""
    usable = USABLE * setup.device.memory
    part = bisect_right(range(1, 2**24), usable, key=lambda images: memory(setup, images).total)
    return part * setup.devices * setup.accumulate
