"""What every recipe says, whatever it trains on what: `Recipe`, and its `Engine`.

Every field is an option of `vitlib train RECIPE`, those of nested dataclasses included.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal, get_args

from vitlib.config import ViTConfig
from vitlib.data.augment import Augment
from vitlib.nn.loss import check_label_smoothing
from vitlib.nn.vit import VisionTransformer
from vitlib.train.objective import LossName
from vitlib.train.optimiser import OptimiserName
from vitlib.train.processes import Parallel
from vitlib.train.schedule import Schedule

Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How a run is computed. None of it is meant to change what is learned.

    Attributes:
        precision: Of the matrix products; what is summed stays in float32. "auto": bfloat16 on a
            GPU that has it, else float32. float16 comes with a scaled loss.
        compile: Compile the model (`torch.compile`): minutes at the start for a faster step.
        recompute: Keep only what enters each block, and compute the block again when its gradient
            is due: much less memory for a third more work (Chen et al. 2016).
        parallel: How several processes share the work: "ddp", each with the whole model, or "fsdp",
            each with a part of it.
        workers: Processes that read and decode images, for each process that trains; for data in
            memory they are not needed.
        deterministic: Refuse operations that do not give the same bits each time.
        strict: Stop at the first damaged image instead of counting them.
        checkpoint_seconds: A checkpoint is due when the last is so many seconds old; 0: each step.
        keep: How many checkpoints stay, the best apart.
        tensorboard: Also write the log for TensorBoard.
    """

    precision: Precision = "auto"
    compile: bool = False
    recompute: bool = False
    parallel: Parallel = "ddp"
    workers: int = 2
    deterministic: bool = False
    strict: bool = False
    checkpoint_seconds: float = 120.0
    keep: int = 2
    tensorboard: bool = False

    def __post_init__(self):
        if not 0 <= self.workers <= 1024:
            raise ValueError(f"workers is {self.workers}: expected 0 to 1024.")
        if not 0 <= self.checkpoint_seconds < float("inf"):
            raise ValueError(
                f"checkpoint_seconds is {self.checkpoint_seconds:g}: expected 0 or more."
            )
        if self.keep < 1:
            raise ValueError(f"keep is {self.keep}: expected 1 or more.")
        if self.parallel == "fsdp" and self.precision == "float16":
            raise ValueError(
                "precision is float16, which needs a scaled loss, and parallel is fsdp, which has "
                "none here. Choose bfloat16 or ddp."
            )


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """What every run is told, whatever it trains on.

    Attributes:
        name: By which `vitlib train` knows the recipe.
        images: How many its data have to train on; None if that depends.
        data: A data set's name (`vitlib list`), a folder of images in a subfolder for each class,
            hf:NAME or hf-stream:NAME of Hugging Face, or shards:PATTERN of WebDataset tar files.
        validation: Part of the training images that is kept out of training, for decisions; from 0
            to below 1.
        epochs: Passes over the training images.
        batch_size: Images in each step, over all processes and parts together. What is left of an
            epoch after its last whole batch waits for the next epoch's shuffle.
        accumulate: Parts of its share of the batch that a process goes through one after the other,
            to save memory.
        optimiser: "adamw", or "muon" for the matrices of the blocks and AdamW for the rest.
        lr: Peak learning rate.
        weight_decay: Decay of matrices; biases, norms, class token and positions have none.
        betas: β₁ and β₂ of AdamW.
        schedule: How the learning rate falls after the warm-up.
        warmup: Part of all steps in which the learning rate rises, from 0 to 1.
        clip: Largest norm of the whole gradient; 0: as it comes.
        ema: What the moving average of the weights keeps of itself in a step, such as 0.999; the
            average is then what is tested and saved. 0: none.
        layer_decay: Factor on the learning rate from each block to the one below; 1: none.
        loss: "softmax", the cross-entropy of all classes together, or "sigmoid", the binary
            cross-entropy of each on its own, in which every class of a mixture counts whole
            (`vitlib.train.objective`). Tests take the softmax in either case.
        label_smoothing: Part of each target that is given to all classes alike, from 0 to 1; with
            a sigmoid, 0.
        seed: Decides initial weights, order of images, augmentation and dropout.
        log_every: Steps from one line of the log to the next; 0: one line an epoch.
        augment: How each batch is changed before the model sees it.
        engine: How it is computed.
    """

    name: ClassVar[str]
    images: ClassVar[int | None] = None
    data: str
    validation: float = 0.0
    epochs: int
    batch_size: int
    accumulate: int = 1
    optimiser: OptimiserName = "adamw"
    lr: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Schedule = "cosine"
    warmup: float
    clip: float = 0.0
    ema: float = 0.0
    layer_decay: float = 1.0
    loss: LossName = "softmax"
    label_smoothing: float = 0.0
    seed: int = 0
    log_every: int = 0
    augment: Augment = field(default=Augment())
    engine: Engine = field(default=Engine())

    def __post_init__(self):
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more.")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr is {self.lr:g}: expected a number above 0, such as 1e-3.")
        for name in ("weight_decay", "clip"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name):g}: expected 0 or more.")
        for name, value in {
            "validation": self.validation,
            "ema": self.ema,
            "betas[0]": self.betas[0],
            "betas[1]": self.betas[1],
        }.items():
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value:g}: expected 0 to below 1.")
        if self.optimiser == "muon" and self.engine.precision == "float16":
            raise ValueError(
                "precision is float16, whose scaled loss knows one optimiser; optimiser is muon, "
                "which comes with AdamW. Choose bfloat16 or adamw."
            )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is {self.layer_decay:g}: expected above 0, to 1.")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is {self.warmup:g}: expected a part of the run, 0 to 1.")
        check_label_smoothing(self.label_smoothing)
        if self.loss not in get_args(LossName):
            raise ValueError(f"loss is {self.loss!r}: choose {' or '.join(get_args(LossName))}.")
        if self.loss == "sigmoid" and self.label_smoothing:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing:g}, which shares a target out among "
                "classes; loss is sigmoid, which asks each class alone. Choose 0 or softmax."
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}: expected 0 or more, below 2^63.")
        if self.log_every < 0:
            raise ValueError(f"log_every is {self.log_every}: expected 0 or more.")

    @abstractmethod
    def network(self, classes: int | None = None) -> ViTConfig:
        """The model for data of so many classes, or for data that nobody has opened yet.

        Raises:
            ValueError: The recipe's model is for another number of classes.
        """

    @abstractmethod
    def begin(self, model: VisionTransformer) -> None:
        """Give a new model the weights that the run starts from."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, nested dataclasses as dictionaries, in a form that JSON can hold."""
        return {"name": self.name, **json.loads(json.dumps(asdict(self), default=str))}


def said(settings: Any, but: Any = None) -> str:
    """The fields of a recipe, or of a part of it, for people.

    Args:
        settings: What to tell, a dataclass.
        but: What need not be told: fields that are as they are here.
    """
    known = dict(_told(but)) if but else {}
    return ", ".join(f"{name} {text}" for name, text in _told(settings) if known.get(name) != text)


def _told(settings: Any) -> Iterator[tuple[str, str]]:
    for each in fields(settings):
        value = getattr(settings, each.name)
        if isinstance(value, tuple):
            value = " ".join(map(str, value))
        if not is_dataclass(value):
            yield each.name, f"{value:g}" if isinstance(value, float) else str(value)
