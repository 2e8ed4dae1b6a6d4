"""What a step of training takes each of N processes: arithmetic, bytes on the wire, time.

**Arithmetic.** The matrix products of `vitlib.summary`, two operations a multiply–add. Backward
takes each product twice, for its two factors, but the images need no gradient; attention that
kept no T × T matrix computes its scores again, half its forward pass. Recomputing adds the blocks'
forward passes, in autograd without the last product, whose result nobody needs.

**Wire.** In a ring, N processes sum G bytes by sending 2 (N − 1)/N · G each, and gather or scatter
them by sending half of that. DDP sums the gradients once a step. In each part FSDP2 gathers the
blocks' weights forward and backward, those of other layers forward only; the gradients' sums are
scattered once a step.

**Time.** Products at the attainable share of the peak rate, then traffic between memory and
processor, one after the other as kernels run; beside them the decoding of images, which only counts
where it takes longer. What is sent hides at best behind the work that it does not wait for: DDP's
gradients behind the backward pass of the last part, FSDP2's weights behind everything. Traffic is
taken to be divided among the passes as products are. Latencies are not in it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vitlib.summary import Layer, asks_alone, summary
from vitlib.train import muon
from vitlib.train.plan.activations import (
    NARROW,
    WIDE,
    activations,
    fuses_attention,
    is_fast,
    leaving,
    tiles_attention,
    tiles_fast,
    trained_tokens,
)
from vitlib.train.plan.setup import Setup


@dataclass(frozen=True)
class Work:
    """Floating-point operations of matrix products in one step of one process.

    Attributes:
        forward: Of all its images.
        backward: The same.
        recomputed: Of the blocks' forward passes once more.
        optimiser: Muon's.
    """

    forward: int
    backward: int
    recomputed: int
    optimiser: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.forward + self.backward + self.recomputed + self.optimiser


@dataclass(frozen=True)
class Wire:
    """Bytes that each process sends in one step.

    Attributes:
        reduced: Of DDP's gradients.
        gathered: Of FSDP2's weights, and of what Muon makes orthogonal.
        scattered: Of FSDP2's gradients.
    """

    reduced: int
    gathered: int
    scattered: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.reduced + self.gathered + self.scattered


@dataclass(frozen=True)
class Times:
    """Seconds of one step.

    Attributes:
        products: Of the matrix products.
        traffic: Between memory and processor, of everything else.
        wire: Between processes.
        hidden: The most of it that hides behind products and traffic.
        decoding: Of the images.
    """

    products: float
    traffic: float
    wire: float
    hidden: float
    decoding: float

    @property
    def expected(self) -> float:
        """Products, traffic and what shows of the wire; or decoding, if that takes longer."""
        return max(self.products + self.traffic + self.wire - self.hidden, self.decoding)

    @property
    def limit(self) -> str:
        """What decides: "products", "traffic", "wire" or "decoding"."""
        if self.expected == self.decoding:
            return "decoding"
        if self.wire > self.hidden:
            return "wire"
        return "products" if self.products >= self.traffic else "traffic"


def work(setup: Setup) -> Work:
    """What each process computes in a step."""
    config = setup.config
    # The embedding sees all patches, the rest those that stay (`patch_dropout`).
    (p, q), kept = config.patch_shape, config.num_kept_patches
    short = replace(config, image_size=(p, q * kept), patch_dropout=0.0)
    embedding, *_ = summary(config).layers
    _, *layers = summary(short, whole=False).layers
    forward = embedding.multiply_adds + _products(layers)
    fast = is_fast(config, setup.narrowing, setup.on_cpu)
    again = 0
    for outputs, layer in zip(leaving(config), _attention(layers), strict=True):
        if outputs < short.num_tokens and asks_alone(config):
            continue  # the weights of a single query are kept
        if fast and tiles_fast(config):
            again += layer.multiply_adds // 2 + outputs * config.dim**2  # scores, and X' from O
        elif fast:
            again += layer.multiply_adds
        elif fuses_attention(config) or tiles_attention(config, outputs):
            again += layer.multiply_adds // 2
    recomputed = 0
    if setup.recompute:
        blocks = (layer for layer in layers if layer.name.startswith("blocks."))
        recomputed = _products(blocks)
        ends_in_fc2 = config.norm == "pre" and not config.dropout and config.layer_scale is None
        if config.gradients == "autograd" and ends_in_fc2:
            # PyTorch stops where the last saved tensor is rebuilt: a mask behind fc2, or its input
            unmasked = [i for i, rate in enumerate(config.drop_path_rates) if not rate]
            last = {f"blocks.{i}.mlp.fc2" for i in unmasked}
            recomputed -= _products(layer for layer in layers if layer.name in last)
    each = setup.images * setup.accumulate
    return Work(
        forward=2 * each * forward,
        backward=2 * each * (2 * forward - embedding.multiply_adds + again),
        recomputed=2 * each * recomputed,
        optimiser=sum(_newton_schulz(setup, name) for name in setup.parts),
    )


def _products(layers: Iterable[Layer]) -> int:
    return sum(layer.multiply_adds for layer in layers)


def _attention(layers: Iterable[Layer]) -> Iterable[Layer]:
    return (layer for layer in layers if layer.name.endswith(".attn"))


def _newton_schulz(setup: Setup, name: str) -> int:
    """Operations of Muon's iteration: X X⊤, its square, and its product with X."""
    parts = setup.parts[name]
    rows, columns = setup.model.get_parameter(name).shape
    small, large = sorted((rows // parts, columns))
    return 2 * parts * muon.STEPS * (2 * small**2 * large + small**3)


def wire(setup: Setup) -> Wire:
    """What each process sends in a step."""
    if setup.devices == 1:
        return Wire(0, 0, 0)
    others = setup.devices - 1
    outer, inner = setup.held_by_group()
    if not setup.sharded:
        return Wire(round(2 * others / setup.devices * WIDE * (outer + sum(inner))), 0, 0)
    gathered = setup.accumulate * setup.width * (outer + 2 * sum(inner))
    shapes = (tuple(setup.model.get_parameter(name).shape) for name in setup.parts)
    gathered += (WIDE if setup.on_cpu else NARROW) * sum(map(setup.held, shapes))
    return Wire(0, others * gathered, others * WIDE * (outer + sum(inner)))


# Bytes that operations other than matrix products read and write, forward and backward, for each
# byte that waits for the backward pass: counted, operation by operation, for GELU and no rotation.
_TRAFFIC = {
    ("autograd", False): 4,
    ("autograd", True): 6,
    ("derived", False): 17,
    ("derived", True): 19,
}
_FAST_TRAFFIC = 9  # the same for fast twins, which keep less and compute it again
_FORWARD = 0.35  # the forward pass's part of it
_TILES = 24  # numbers that attention by tiles reads and writes for each of its T² weights


def traffic(setup: Setup) -> int:
    """Bytes between memory and processor in a step, but for those of matrix products."""
    config = setup.config
    kept = activations(config, setup.narrowing, setup.on_cpu).kept(recompute=False)
    fast = is_fast(config, setup.narrowing, setup.on_cpu)
    times_kept = _TRAFFIC[config.gradients, setup.narrowing == "autocast"]
    moved = (_FAST_TRAFFIC if fast else times_kept) * kept
    tokens = trained_tokens(config)
    tiled = sum(outputs for outputs in leaving(config) if tiles_attention(config, outputs))
    moved += _TILES * WIDE * config.heads * tokens * tiled * (not fast)
    if setup.recompute:
        moved = (1 + _FORWARD) * moved
    shapes = {name: tuple(p.shape) for name, p in setup.model.named_parameters()}
    # read: weight, gradient and states; written: weight and states
    step = sum(setup.held(s) * (5 if name in setup.parts else 7) for name, s in shapes.items())
    step += sum(map(setup.held, shapes.values())) * (3 if setup.ema else 0)
    return round(setup.images * setup.accumulate * moved) + WIDE * step


def times(setup: Setup) -> Times:
    """How long each limit alone would let a step take."""
    device, done = setup.device, work(setup)
    products = done.total / (setup.share * device.flops[setup.precision])
    moved = traffic(setup) / device.bandwidth
    beside = 1.0
    if not setup.sharded:
        beside = (done.backward + done.recomputed) / (setup.accumulate * done.total)
    sent = wire(setup).total / setup.link
    decoded = setup.decoding * setup.decoders
    return Times(
        products=products,
        traffic=moved,
        wire=sent,
        hidden=min(sent, beside * (products + moved)),
        decoding=setup.images * setup.accumulate / decoded if decoded else 0.0,
    )
