"""Make the photographs that are shipped.

    python -m vitlib.study.photographs

reduces the two sample images of scikit-learn, which must be installed, and writes them to
`vitlib/data/china.jpg` and `flower.jpg`. The same version of Pillow gives the same files.
"""

from importlib.resources import as_file, files

from PIL import Image

from vitlib.data.photos import NAMES, SIZE
from vitlib.data.shipped import FOLDER


def main() -> None:
    """Write the files that `vitlib.data.photographs` reads."""
    height, width = SIZE
    for name in NAMES:
        path = FOLDER / f"{name}.jpg"
        with as_file(files("sklearn.datasets.images") / path.name) as original:
            reduced = Image.open(original).resize((width, height), Image.Resampling.LANCZOS)
        reduced.save(path, quality=90, optimize=True)
        print(f"written: {path} ({path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
