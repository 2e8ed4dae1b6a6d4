"""What a data set is to the rest of the library: two splits of images, and how to read them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """Images in [0, 1] to mean 0 and standard deviation 1 for each channel.

    Attributes:
        mean: Mean of each channel over the training images.
        std: Standard deviation of each channel over the training images.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: Float[Tensor, "n C height width"]) -> Self:
        """The normalisation that brings these images to mean 0 and standard deviation 1."""

        def average(of: Callable[[Tensor], Tensor]) -> Tensor:
            total = images.new_zeros(images.shape[1], dtype=torch.float64)
            for part in images.split(256):  # the whole in float64 would be twice the data
                total += of(part.double()).sum((0, 2, 3))
            return total / images[:, 0].numel()

        mean = average(lambda part: part)
        var = average(lambda part: (part - mean[:, None, None]) ** 2)
        return cls(mean=tuple(mean.tolist()), std=tuple(var.sqrt().tolist()))

    def __call__(
        self, images: Float[Tensor, "*batch C height width"]
    ) -> Float[Tensor, "*batch C height width"]:
        """(image − mean) / std, channel by channel."""
        mean = images.new_tensor(self.mean)[:, None, None]
        std = images.new_tensor(self.std)[:, None, None]
        return (images - mean) / std


@dataclass(frozen=True)
class Dataset:
    """Images in [0, 1] and their labels, divided once and for all into training and test.

    Attributes:
        name: What `vitlib.data.load` calls it.
        train_images: (n, C, height, width), float32 in [0, 1], not yet normalised.
        train_labels: (n,), from 0 to K − 1.
        test_images: As `train_images`; no test image is a training image.
        test_labels: As `train_labels`.
        classes: The K names of the classes, in the order of the labels.
        normalisation: Measured on the training images; the model sees what it returns.
        bright_on_dark: The things shown are bright and the ground is dark, in every image. A
            photograph of ink on paper must then be inverted first (`vitlib.data.images`).
    """

    name: str
    train_images: Float[Tensor, "n_train C height width"]
    train_labels: Int[Tensor, " n_train"]
    test_images: Float[Tensor, "n_test C height width"]
    test_labels: Int[Tensor, " n_test"]
    classes: tuple[str, ...]
    normalisation: Normalisation
    bright_on_dark: bool

    def to(self, device: torch.device) -> Self:
        """The same data set with its images and labels on `device`."""
        return replace(
            self,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
        )


def every_fifth(labels: Int[Tensor, " n"]) -> tuple[Int[Tensor, " train"], Int[Tensor, " test"]]:
    """A stratified 80/20 split by a rule that needs no random numbers.

    Number the samples of each class 0, 1, 2, … in the order of the file: those numbered 4, 9,
    14, … are for testing, the others for training.

    Returns:
        The positions of the training samples and of the test samples, both ascending.
    """
    number_in_class = torch.empty_like(labels)
    for label in labels.unique():
        of_class = labels == label
        number_in_class[of_class] = torch.arange(int(of_class.sum()), dtype=labels.dtype)
    is_test = number_in_class % 5 == 4
    return (~is_test).nonzero().flatten(), is_test.nonzero().flatten()
