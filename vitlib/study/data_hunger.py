"""Compare a ViT and a small CNN over sizes of the training set.

    vitlib study data_hunger

trains both on parts of Fashion-MNIST, with and without augmentation, and with the patches of all
images shuffled in one and the same way. The chapter on data reads what came of it.

What is alike: parameters (to 1 %), optimiser, decay, schedule, the number of steps and of images in
each, so that the images seen are as many whatever the size of the set; the subsets, which are drawn
by the seed, balanced, each within the next larger one; the order and the augmentation. The learning
rate is each network's own: the one of three that is best, on images kept out of all training, with
a subset that is not used again. The test images judge the last step of each run, and decide
nothing. At the end one seed trains on the largest set for four times as many steps.

Needs the whole of Fashion-MNIST (`vitlib.data.fashion_mnist`), and half an hour of one CPU core.
The file is written after every run.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vitlib.config import ViTConfig
from vitlib.data import load
from vitlib.data.augment import Augment
from vitlib.data.dataset import Dataset
from vitlib.data.seeds import generator_at, seed_of
from vitlib.nn.vit import VisionTransformer
from vitlib.study.stored import about, store
from vitlib.train.schedule import rate

FILE = "data_hunger.json"
Network = Literal["vit", "cnn"]
Images = Literal["plain", "augmented", "shuffled"]
Judges = Literal["kept out", "test"]

SEEDS = (0, 1, 2)
SIZES = (250, 1000, 4000, 16000)
SHUFFLED = (1000,)  # sizes at which patches are shuffled, too
STEPS, BATCH = 1200, 64
LONGER = 4800  # steps, for one seed on the largest set
RATES = (1e-3, 3e-3, 9e-3)
TUNING = ((1000, 16000), 1000)  # sizes, and a seed that is not used again
KEPT_OUT = 10_000  # the last training images, which choose the rates and are never trained on
DECAY, WARMUP = 0.05, 0.1
AUGMENT = Augment(crop="pad", pad=2, flip=True)
PATCH = 7

CONFIG = ViTConfig(
    image_size=28,
    patch_size=PATCH,
    in_channels=1,
    num_classes=10,
    dim=48,
    depth=4,
    heads=4,
    mlp_dim=96,
    pool="mean",
)
WIDTHS = (32, 64, 103)  # of the CNN, for as many parameters

_SUBSET, _WEIGHTS, _ORDER, _AUGMENT, _SHUFFLE = range(5)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run.

    Attributes:
        network: Which.
        images: As they are, augmented, or with shuffled patches.
        size: Of the training set.
        seed: Of subset, weights, order and augmentation.
        lr: Peak learning rate.
        steps: How many.
        judges: The images that say how well it reads.
    """

    network: Network
    images: Images
    size: int
    seed: int
    lr: float
    steps: int
    judges: Judges


@dataclass(frozen=True, kw_only=True)
class Outcome(Setting):
    """What came of it.

    Attributes:
        train_accuracy: Part of the training images that is read right, not augmented.
        accuracy: Part of the images that judge.
        loss: Mean cross-entropy on these, in nats.
        seconds: Of processor time that the training took.
    """

    train_accuracy: float
    accuracy: float
    loss: float
    seconds: float


class Cnn(nn.Sequential):
    """Three convolutions of 3 × 3 that halve the image, then the mean of all places.

    Each is followed by batch normalisation and ReLU.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS, classes: int = CONFIG.num_classes):
        layers: list[nn.Module] = []
        channels = CONFIG.in_channels
        for width in widths:
            layers.append(nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
        super().__init__(*layers)


NETWORKS: Mapping[Network, Callable[[], nn.Module]] = MappingProxyType(
    {"vit": lambda: VisionTransformer(CONFIG), "cnn": Cnn}
)


def tuning() -> Iterator[Setting]:
    """The runs that choose a rate for each network."""
    sizes, seed = TUNING
    for network in get_args(Network):
        for lr in RATES:
            for size in sizes:
                yield Setting(
                    network=network,
                    images="plain",
                    size=size,
                    seed=seed,
                    lr=lr,
                    steps=STEPS,
                    judges="kept out",
                )


def settings(rates: Mapping[Network, float]) -> Iterator[Setting]:
    """All runs that are compared, given each network's learning rate."""
    planned: list[tuple[int, int, Images, int]] = [
        (seed, size, images, STEPS)
        for seed in SEEDS
        for size in SIZES
        for images in get_args(Images)
        if images != "shuffled" or size in SHUFFLED
    ]
    planned.append((SEEDS[0], SIZES[-1], "plain", LONGER))
    for seed, size, images, steps in planned:
        for network, lr in rates.items():
            yield Setting(
                network=network,
                images=images,
                size=size,
                seed=seed,
                lr=lr,
                steps=steps,
                judges="test",
            )


def subset(labels: Int[Tensor, " n"], size: int, seed: int) -> Int[Tensor, " size"]:
    """Positions of as many images of each class, by lot; those of a larger size hold them all."""
    generator = generator_at("cpu", seed, _SUBSET)
    classes = labels.unique()
    chosen: list[Tensor] = []
    for label in classes:
        of_class = (labels == label).nonzero().flatten()
        order = torch.randperm(len(of_class), generator=generator)
        chosen.append(of_class[order[: size // len(classes)]])
    return torch.cat(chosen)


def shuffle(images: Float[Tensor, "n 1 28 28"]) -> Float[Tensor, "n 1 28 28"]:
    """The patches of every image in another order, the same for all images and runs."""
    side = CONFIG.grid[0]
    order = torch.randperm(side * side, generator=generator_at("cpu", _SHUFFLE))
    cut = images.unflatten(3, (side, PATCH)).unflatten(2, (side, PATCH)).transpose(3, 4)
    patches = cut.flatten(2, 3)[:, :, order]  # (n, 1, N, P, P)
    return patches.unflatten(2, (side, side)).transpose(3, 4).flatten(4, 5).flatten(2, 3)


def batches(count: int, steps: int, seed: int) -> Iterator[Int[Tensor, " batch"]]:
    """The positions of each step, epoch after epoch; a small set is one batch."""
    size = min(BATCH, count)
    per_epoch = count // size
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        epoch, number = divmod(step, per_epoch)
        if number == 0:
            order = torch.randperm(count, generator=generator_at("cpu", seed, _ORDER, epoch))
        yield order[number * size : (number + 1) * size]


def fit(
    model: nn.Module,
    images: Float[Tensor, "n 1 28 28"],
    labels: Int[Tensor, " n"],
    setting: Setting,
    read: Callable[[Tensor], Tensor],
) -> None:
    """Train in place: AdamW whose rate warms up and falls by a cosine.

    Args:
        model: What is trained.
        images: To train on, in [0, 1].
        labels: Theirs.
        setting: Of the run.
        read: The normalisation.
    """
    parts = [
        {"params": [p for p in model.parameters() if (p.ndim > 1) == decays], "weight_decay": decay}
        for decays, decay in ((True, DECAY), (False, 0.0))
    ]
    optimiser = torch.optim.AdamW(parts, lr=setting.lr, fused=True)
    warmup = round(WARMUP * setting.steps)
    model.train()
    for step, chosen in enumerate(batches(len(images), setting.steps, setting.seed)):
        shown = images[chosen]
        if setting.images == "augmented":
            shown = AUGMENT(shown, generator_at("cpu", setting.seed, _AUGMENT, step))
        for group in optimiser.param_groups:
            group["lr"] = setting.lr * rate("cosine", step, total=setting.steps, warmup=warmup)
        cross_entropy(model(read(shown)), labels[chosen]).backward()
        optimiser.step()
        optimiser.zero_grad()


@torch.inference_mode()
def judge(
    model: nn.Module, images: Float[Tensor, "n 1 28 28"], labels: Int[Tensor, " n"]
) -> tuple[float, float]:
    """Accuracy and mean cross-entropy on normalised images."""
    model.eval()
    logits = torch.cat([model(part) for part in images.split(500)])
    return (
        (logits.argmax(-1) == labels).double().mean().item(),
        cross_entropy(logits.double(), labels).item(),
    )


def measure(setting: Setting, data: Dataset) -> Outcome:
    """Train once on some of the data, and judge."""
    last = len(data.train_labels) - KEPT_OUT
    positions = subset(data.train_labels[:last], setting.size, setting.seed)
    images, labels = data.train_images[positions], data.train_labels[positions]
    if setting.judges == "test":
        unseen, truth = data.test_images, data.test_labels
    else:
        unseen, truth = data.train_images[last:], data.train_labels[last:]
    if setting.images == "shuffled":
        images, unseen = shuffle(images), shuffle(unseen)
    torch.manual_seed(seed_of(setting.seed, _WEIGHTS))
    model = NETWORKS[setting.network]()
    began = time.process_time()
    fit(model, images, labels, setting, data.normalisation)
    seconds = time.process_time() - began
    train_accuracy, _ = judge(model, data.normalisation(images), labels)
    accuracy, loss = judge(model, data.normalisation(unseen), truth)
    return Outcome(
        **asdict(setting),
        train_accuracy=round(train_accuracy, 6),
        accuracy=round(accuracy, 6),
        loss=round(loss, 6),
        seconds=round(seconds, 1),
    )


def best_rates(tried: list[Outcome]) -> dict[Network, float]:
    """For each network the rate whose accuracy, summed over the sizes, is highest."""

    def total(network: Network, lr: float) -> float:
        return sum(run.accuracy for run in tried if (run.network, run.lr) == (network, lr))

    return {
        network: max(RATES, key=lambda lr, network=network: total(network, lr))
        for network in get_args(Network)
    }


def main(folder: Path) -> None:
    """Make all runs and write the file that the chapter reads."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    facts = about(
        "study data_hunger",
        data="fashion_mnist",
        seeds=SEEDS,
        sizes=SIZES,
        steps=STEPS,
        batch=BATCH,
        parameters={
            name: sum(p.numel() for p in make().parameters()) for name, make in NETWORKS.items()
        },
    )
    data = load("fashion_mnist")

    def runs() -> Iterator[Outcome]:
        tried = []
        for setting in tuning():
            tried.append(measure(setting, data))
            yield tried[-1]
        facts["rates"] = best_rates(tried)
        for setting in settings(facts["rates"]):
            yield measure(setting, data)

    store(folder / FILE, facts, runs())
