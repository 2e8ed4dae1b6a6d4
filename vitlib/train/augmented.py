"""What the model is shown of a batch: images changed, and targets with them."""

from dataclasses import fields, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from vitlib.config import ViTConfig
from vitlib.data import open_source
from vitlib.data.augment import Augment
from vitlib.data.seeds import generator_at
from vitlib.data.sheet import captions, contact_sheet
from vitlib.train.feed import Feed, make_feed, steps_of_epoch
from vitlib.train.processes import Processes
from vitlib.train.recipe import Recipe

AUGMENTATION = 2
"""The place of augmentation among what a run draws, beside step and process."""


def remaining(augment: Augment, feed: Feed) -> Augment:
    """What is left to do when the feed has cropped the images already."""
    return replace(augment, crop="none") if feed.crops else augment


def augmented(
    images: Float[Tensor, "b C height width"],
    labels: Int[Tensor, " b"],
    augment: Augment,
    classes: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b C height width"], Int[Tensor, " b"] | Float[Tensor, "b K"]]:
    """Images in [0, 1], changed, and their targets: labels, or rows where images were mixed.

    To mix before normalising is the same as after it: both are affine, and parts sum to one.
    """
    images = augment(images, generator)
    if not augment.mixes:
        return images, labels
    return augment.mix(images, functional.one_hot(labels, classes).to(images), generator)


def known_images(recipe: Recipe) -> int | None:
    """How many images a recipe trains on, if they are its own; about so many, if some are held out.

    Of other data, None: they have to be looked at.
    """
    (own,) = (field.default for field in fields(recipe) if field.name == "data")
    if recipe.images is None or recipe.data != own:
        return None
    return recipe.images - round(recipe.images * recipe.validation)


def look_at_data(recipe: Recipe) -> tuple[ViTConfig, Feed]:
    """The model for a recipe's data, and what will feed it in a single process.

    Raises:
        ValueError: The recipe does not fit its data.
        FileNotFoundError: There are no such data.
    """
    source, alone = open_source(recipe.data), Processes(0, 1, torch.device("cpu"))
    config = recipe.network(len(source.classes))
    return config, make_feed(source, recipe, config, alone)


def draw_sheet(recipe: Recipe, path: Path, count: int) -> None:
    """Draw the first images of a run as the model sees them, each with its target.

    Args:
        recipe: Of the run.
        path: The PNG file; replaced if it exists.
        count: How many images, at most those of a step, or of one of its parts (accumulate).

    Raises:
        ValueError: There are not so many, or the recipe does not fit its data.
        OSError: The file cannot be written.
    """
    most = recipe.batch_size // recipe.accumulate
    if not 1 <= count <= most:
        raise ValueError(
            f"images is {count}: expected 1 to {most}, the batch_size divided by accumulate."
        )
    config, feed = look_at_data(recipe)
    steps_of_epoch(feed, recipe.batch_size)
    images, labels = next(feed.training(0, 1)).split(recipe.accumulate)[0]
    generator = generator_at("cpu", recipe.seed, AUGMENTATION, 0, 0)
    images, targets = augmented(
        images, labels, remaining(recipe.augment, feed), config.num_classes, generator
    )
    contact_sheet(images[:count], captions(targets[:count], feed.classes), path)
