"""1,797 real handwritten digits, 8 × 8 pixels, shipped with the package.

Each was written on a form, scanned to 32 × 32 black and white pixels, and reduced by counting the
inked pixels in blocks of 4 × 4; a pixel is therefore a whole number from 0 (paper) to 16 (ink), and
the strokes are bright on a dark ground. They are the test part of E. Alpaydin and C. Kaynak (1998),
*Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository,
https://doi.org/10.24432/C50P49, licence CC BY 4.0, in the order of scikit-learn's `load_digits`,
values unchanged.

The split is `vitlib.data.dataset.every_fifth`: 1,442 digits to train on, 355 to test on. The 13
people who wrote them are not told apart in the file, so each may have written in both parts:
accuracies here are for new digits by known hands.
"""

import torch

from vitlib.data.dataset import Dataset, Normalisation, every_fifth
from vitlib.data.shipped import shipped_arrays


def load() -> Dataset:
    """The digits, as (n, 1, 8, 8) images in [0, 1] with labels 0 to 9.

    Raises:
        FileNotFoundError: The file is missing from the installation.
        ValueError: The file is damaged.
    """
    arrays = shipped_arrays("digits.npz", images=(1797, 8, 8), labels=(1797,))
    images = torch.from_numpy(arrays["images"]).float()[:, None] / 16
    labels = torch.from_numpy(arrays["labels"]).long()
    train, test = every_fifth(labels)
    return Dataset(
        name="digits",
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        classes=tuple(str(digit) for digit in range(10)),
        normalisation=Normalisation.of(images[train]),
        bright_on_dark=True,
    )
