"""Make the part of Fashion-MNIST that is shipped.

    python -m vitlib.study.fashion_mnist_small

takes the first pictures of each class from the whole set, in its order, and writes them to
`vitlib/data/fashion_mnist_small.npz`. Takes a few seconds, and gives the same file each time.
"""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vitlib.data import load
from vitlib.data.fashion_mnist_small import FILE, TEST_PER_CLASS, TRAIN_PER_CLASS
from vitlib.data.shipped import FOLDER


def first_of_each_class(labels: Int[Tensor, " n"], count: int) -> Int[Tensor, " part"]:
    """The positions of the first `count` samples of each class, ascending."""
    of_class = [(labels == label).nonzero().flatten()[:count] for label in labels.unique()]
    return torch.cat(of_class).sort().values


def main() -> None:
    """Write the file that `vitlib.data.fashion_mnist_small` reads."""
    whole = load("fashion_mnist")
    train = first_of_each_class(whole.train_labels, TRAIN_PER_CLASS)
    test = first_of_each_class(whole.test_labels, TEST_PER_CLASS)
    path = FOLDER / FILE
    np.savez_compressed(
        path,
        train_images=whole.train_images[train, 0].mul(255).round().byte().numpy(),
        train_labels=whole.train_labels[train].byte().numpy(),
        test_images=whole.test_images[test, 0].mul(255).round().byte().numpy(),
        test_labels=whole.test_labels[test].byte().numpy(),
    )
    print(f"written: {path} ({path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
