"""Two photographs, 320 × 480 pixels, shipped with the package.

They are scikit-learn's sample images, reduced from 427 × 640 pixels and otherwise unchanged. Both
are released under a Creative Commons licence, CC BY 2.0
(https://creativecommons.org/licenses/by/2.0/). What scikit-learn's README says of them:

- *china*: "Some rights reserved by danielbuechele" (https://www.flickr.com/photos/danielbuechele/),
  retrieved on 21 August 2011 from
  https://www.flickr.com/photos/danielbuechele/6061409035/sizes/z/in/photostream/
- *flower*: "Some rights reserved by danielbuechele" (https://www.flickr.com/photos/vultilion/),
  retrieved on 21 August 2011 from
  https://www.flickr.com/photos/vultilion/6056698931/sizes/z/in/photostream/

The name and the addresses given for *flower* do not agree; both are repeated here.
`python -m vitlib.study.photographs` made the files.
"""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from vitlib.data.images import load_image
from vitlib.data.shipped import shipped

NAMES = ("china", "flower")
SIZE = (320, 480)


def photographs() -> dict[str, Float[Tensor, "3 320 480"]]:
    """The photographs by name, ``"china"`` and ``"flower"``, with values in [0, 1].

    Raises:
        FileNotFoundError: A file is missing from the installation.
        ValueError: A file is damaged.
    """
    return {name: _read(shipped(f"{name}.jpg")) for name in NAMES}


def _read(path: Path) -> Float[Tensor, "3 320 480"]:
    try:
        return load_image(path, channels=3, size=SIZE)
    except ValueError as error:
        raise ValueError(f"{path}: damaged, or no image. Install vitlib again.") from error
