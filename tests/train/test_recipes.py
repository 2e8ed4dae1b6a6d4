"""Every recipe runs as it stands, by the command that it names, on stand-ins for its data."""

import numpy as np
import pytest
import torch
from PIL import Image

from vitlib import load_model
from vitlib.cli import main
from vitlib.data.photos import photographs as read_photographs
from vitlib.train.recipes import RECIPES, ImageNetS16
from vitlib.weights import read_record

CLASSES, OF_EACH = 4, 5


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """CLASS/NUMBER.jpg, pieces of two photographs, of many sizes."""
    folder, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    whole = [
        Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy())
        for image in read_photographs().values()
    ]
    for label in range(CLASSES):
        (folder / str(label)).mkdir()
        for number in range(OF_EACH):
            width, height = random.integers(40, 320, size=2).tolist()
            picture = whole[label % 2]
            left = random.integers(picture.width - width)
            top = random.integers(picture.height - height)
            piece = picture.crop((left, top, left + width, top + height))
            piece.save(folder / str(label) / f"{number}.jpg")
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digits", []),
        ("fashion_mnist", ["--data", "fashion_mnist_small"]),
        ("cifar10", ["--in-channels", "3"]),
        ("imagenet_s16", ["--validation", "0.3"]),  # a hundredth of these is no whole image
        ("imagenet_b16", []),
        ("images", []),
    ],
)
def test_a_recipe_runs_as_it_stands(photographs, tmp_path, name, words):
    if RECIPES[name].images != 1_442 and "--data" not in words:  # its data are not at hand
        words = ["--data", str(photographs), "--batch-size", "8", "--depth", "2", *words]
        words += [] if name == "images" else ["--num-classes", str(CLASSES)]
    words = [*words, "--epochs", "1", "--workers", "0"]
    assert main(["train", name, *words, "--out", str(tmp_path / "run")]) == 0
    weights = tmp_path / "run" / "weights.safetensors"
    model, recipe = load_model(weights), read_record(weights)["recipe"]
    assert all(weight.isfinite().all() for weight in model.state_dict().values())
    images = torch.rand(2, model.config.in_channels, *model.config.image_shape)
    assert model(images).isfinite().all()
    told = RECIPES[name](data="any").to_dict()
    changed = {key for key in told if recipe[key] != told[key]}
    assert changed <= {"data", "validation", "batch_size", "epochs", "engine", "model"}
    assert recipe["augment"] == told["augment"]


@pytest.mark.parametrize("words", [{}, {"epochs": 300, "warmup": 0.026925}], ids=str)
def test_big_visions_warm_up_has_ten_thousand_steps(words):
    recipe = ImageNetS16(**words)
    trained_on = recipe.images - round(recipe.validation * recipe.images)
    steps = recipe.epochs * (trained_on // recipe.batch_size)
    assert round(recipe.warmup * steps) == 10_000
