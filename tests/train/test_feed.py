import io
import os
import signal
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
from PIL import Image
from torch.nn import functional

from vitlib import ViTConfig, data
from vitlib.data.augment import Augment
from vitlib.train.feed import LoadedFeed, ResidentFeed, StreamFeed, make_feed
from vitlib.train.processes import Processes

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)
SMALL = ViTConfig(
    image_size=(16, 24), patch_size=8, num_classes=3, dim=8, depth=1, heads=2, mlp_dim=8
)
DIGITS = replace(SMALL, image_size=8, in_channels=1, num_classes=10)
CROP = Augment(crop="resized", crop_scale=(0.3, 1.0))
CLASSES = ("ant", "bee", "cow")


def told(**changes):
    """What a recipe tells a feed."""
    engine = {"workers": changes.pop("workers", 0), "strict": changes.pop("strict", False)}
    usual = {"seed": 3, "batch_size": 8, "accumulate": 1, "validation": 0.0, "augment": CROP}
    return SimpleNamespace(**(usual | changes), engine=SimpleNamespace(**engine))


def each(count):
    return [Processes(rank, count, CPU) for rank in range(count)]


def check_equal(batches, others):
    batches, others = list(batches), list(others)
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert torch.equal(batch.labels, other.labels)
        assert torch.equal(batch.images, other.images)


def together(feeds, batches_of):
    """The batches of several processes, put together step by step."""
    steps = zip(*(batches_of(feed) for feed in feeds), strict=True)
    for parts in steps:
        images, labels = zip(*parts, strict=True)
        yield parts[0]._replace(images=torch.cat(images), labels=torch.cat(labels))


@pytest.fixture(scope="session")
def photographs():
    """Thirty parts of a photograph, as JPEG files of several sizes."""
    pixels = data.photographs()["flower"].permute(1, 2, 0).mul(255).byte()
    whole, contents = Image.fromarray(pixels.numpy()), []
    for number in range(30):
        buffer = io.BytesIO()
        box = (8 * number, 5 * number, 8 * number + 60 + number, 5 * number + 50)
        whole.crop(box).save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue())
    return contents


@pytest.fixture(scope="session")
def kept(photographs, tmp_path_factory):
    """The same images four times: a folder, a table, a stream, shards."""
    root = tmp_path_factory.mktemp("kept")
    for number, content in enumerate(photographs):
        split = "train" if number < 22 else "test"
        path = root / "set" / split / CLASSES[number % 3] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name, numbers in {"a": range(9), "b": range(9, 22), "test": range(22, 30)}.items():
        with tarfile.open(root / f"{name}.tar", "w") as archive:
            for number in numbers:
                label = str(number % 3).encode()
                for suffix, content in (("jpg", photographs[number]), ("cls", label)):
                    member = tarfile.TarInfo(f"{number:02}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return {
        "folder": str(root / "set"),
        "hf": f"hf:{root / 'set'}",
        "hf-stream": f"hf-stream:{root / 'set'}",
        "shards": f"shards:{root}/{{a,b}}.tar::{root}/test.tar",
    }


@pytest.fixture(scope="session")
def sources(kept, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    cache = tmp_path_factory.mktemp("cache")
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
    patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    patch.setattr("pooch.os_cache", lambda project: cache / project)
    yield {kind: data.open_source(name) for kind, name in kept.items()}
    patch.undo()


KINDS = ["folder", "hf", "hf-stream", "shards"]


# What every feed promises.


@pytest.fixture(params=["resident", *KINDS])
def kind(request):
    return request.param


@pytest.fixture
def make(kind, sources):
    """A feed of the kind that is tested, and its images' number."""
    if kind == "resident":
        digits = data.load("digits")
        some = replace(
            digits,
            train_images=digits.train_images[:22],
            train_labels=digits.train_labels[:22],
            test_images=digits.test_images[:8],
            test_labels=digits.test_labels[:8],
        )
        return lambda us=ALONE, **changes: make_feed(some, told(**changes), DIGITS, us)
    return lambda us=ALONE, **changes: make_feed(sources[kind], told(**changes), SMALL, us)


def test_two_processes_see_what_one_would(make):
    for batches_of in (lambda feed: feed.training(1, 7), lambda feed: feed.held_out("test")):
        check_equal(batches_of(make()), together(map(make, each(2)), batches_of))


def test_going_on_at_a_step_is_as_if_nothing_had_happened(make):
    feed = make()
    whole = list(feed.training(0, 7))
    for first in (1, 2, 5, 7):
        check_equal(make().training(first, 7), whole[first:])
    check_equal(feed.training(0, 7), whole)


def test_an_epoch_has_whole_batches_only_and_another_order_each_time(make):
    feed = make(augment=Augment())
    assert feed.train_count == 22
    epochs = [list(feed.training(2 * epoch, 2 * epoch + 2)) for epoch in range(2)]
    seen = [torch.cat([batch.images for batch in batches]) for batches in epochs]
    for images in seen:
        assert len(images.flatten(1).unique(dim=0)) == 16
    assert not torch.equal(*seen)
    assert not torch.equal(seen[0], torch.cat([b.images for b in make(seed=4).training(0, 2)]))


def test_each_test_image_comes_once_in_order_and_what_fills_up_has_no_label(make):
    for size, count in ((3, 1), (6, 2), (8, 1), (8, 2), (12, 4)):
        feeds = [make(us, batch_size=size) for us in each(count)]
        batches = [list(feed.held_out("test")) for feed in feeds]
        assert len({len(mine) for mine in batches}) == 1
        assert {len(labels) for mine in batches for _, labels in mine} == {size // count}
        labels = torch.cat([batch.labels for step in zip(*batches, strict=True) for batch in step])
        images = torch.cat([batch.images for step in zip(*batches, strict=True) for batch in step])
        real = labels >= 0
        assert real.sum() == 8
        assert len(images[real].flatten(1).unique(dim=0)) == 8
        assert images[~real].sum() == 0
        whole = next(make(batch_size=8).held_out("test"))
        assert torch.equal(images[real], whole.images)
        assert torch.equal(labels[real], whole.labels)


def test_batches_are_what_the_model_takes(make, kind):
    feed = make()
    for images, labels in (next(feed.training(0, 1)), next(feed.held_out("test"))):
        assert images.dtype == torch.float32
        assert images.shape == (8, 1, 8, 8) if kind == "resident" else (8, 3, 16, 24)
        assert images.min() >= 0
        assert 0.5 < images.max() <= 1
        assert labels.dtype == torch.int64
        assert feed.normalisation(images).shape == images.shape
    assert feed.crops == (kind != "resident")
    assert not make(augment=Augment(crop="pad")).crops


def test_parts_make_smaller_batches_where_there_are_no_gradients(make):
    feed = make(accumulate=2)
    assert len(next(feed.training(0, 1)).labels) == 8
    assert len(next(feed.held_out("test")).labels) == 4


def test_a_batch_that_cannot_be_shared_is_named(make):
    with pytest.raises(ValueError, match=r"batch_size is 9: expected a multiple of the 1 process"):
        make(batch_size=9, accumulate=2)


def test_nothing_is_kept_out_unless_the_recipe_says_so(make):
    with pytest.raises(ValueError, match="no images are kept out for validation"):
        next(make().held_out("validation"))


# What some do.


@pytest.mark.parametrize("kind", ["resident", "folder", "hf", "shards"])
def test_what_is_kept_out_for_validation_is_not_trained_on(make):
    feed = make(validation=0.5, augment=Augment(), batch_size=1)
    held = torch.cat([images for images, _ in feed.held_out("validation")])
    trained = torch.cat([images for images, _ in feed.training(0, feed.train_count)])
    tested = torch.cat([images for images, _ in feed.held_out("test")])
    assert len(trained) + len(held) == 22
    assert len(held) >= 8
    everything = torch.cat([held, trained, tested]).flatten(1)
    assert len(everything.unique(dim=0)) == 30
    again = make(validation=0.5, seed=9, augment=Augment(), batch_size=1)
    check_equal(feed.held_out("validation"), again.held_out("validation"))


@pytest.mark.parametrize("kind", ["resident", "folder"])
def test_a_part_too_small_for_an_image_is_named(make):
    with pytest.raises(ValueError, match=r"validation is 0\.001: of no class"):
        make(validation=0.001)


def test_nothing_can_be_kept_out_of_a_stream(sources):
    with pytest.raises(ValueError, match=r"validation is 0\.1: nothing can be kept out of hf-str"):
        make_feed(sources["hf-stream"], told(validation=0.1), SMALL, ALONE)


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_matter_who_decodes(make):
    alone = list(make(workers=0).training(1, 6))
    for workers in (1, 2, 3):
        check_equal(make(workers=workers).training(1, 6), alone)
    check_equal(make(workers=2).held_out("test"), make(workers=0).held_out("test"))


@pytest.mark.parametrize("kind", KINDS)
def test_pytorchs_generator_decides_nothing_and_stays_as_it_is(make):
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), list(make(workers=2).training(0, 2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    check_equal(make(workers=2).training(0, 2), first)


def test_the_same_image_is_cropped_anew_in_each_epoch(kept):
    feed = make_feed(data.open_source(kept["folder"]), told(batch_size=22), SMALL, ALONE)
    first, second = (torch.stack(list(images)) for images, _ in feed.training(0, 2))
    distances = torch.cdist(first.flatten(1), second.flatten(1))
    assert distances.min() > 0


def test_a_run_without_random_crops_is_tested_as_it_was_trained(sources):
    """With them, on a centre that is enlarged as they are."""
    source = sources["folder"]
    plain = next(make_feed(source, told(augment=Augment()), SMALL, ALONE).held_out("test"))
    enlarged = next(make_feed(source, told(), SMALL, ALONE).held_out("test"))
    zoomed = functional.interpolate(plain.images, scale_factor=8 / 7, mode="bicubic")
    top, left = (zoomed.shape[2] - 16) // 2, (zoomed.shape[3] - 24) // 2
    zoomed = zoomed[:, :, top : top + 16, left : left + 24]
    assert (zoomed - enlarged.images).abs().mean() < 0.05
    assert (plain.images - enlarged.images).abs().mean() > 0.05


def test_each_source_has_its_feed(sources):
    for kind, source in sources.items():
        feed = make_feed(source, told(), SMALL, ALONE)
        assert type(feed) is (StreamFeed if kind == "hf-stream" else LoadedFeed)
        assert feed.name == source.name
        assert len(feed.classes) == 3
    assert type(make_feed(data.load("digits"), told(), DIGITS, ALONE)) is ResidentFeed


def test_images_in_memory_must_be_what_the_model_takes():
    for change in ({"image_size": 16}, {"in_channels": 3}):
        with pytest.raises(ValueError, match=r"the data 'digits' have \(1, 8, 8\)"):
            make_feed(data.load("digits"), told(), replace(DIGITS, **change), ALONE)


def test_files_have_one_channel_or_three(sources):
    with pytest.raises(ValueError, match="in_channels is 4"):
        make_feed(sources["folder"], told(), replace(SMALL, in_channels=4), ALONE)
    grey = make_feed(sources["folder"], told(), replace(SMALL, in_channels=1), ALONE)
    images, _ = next(grey.training(0, 1))
    assert grey.normalisation(images).shape == (8, 1, 16, 24)


# What goes wrong.


@pytest.fixture
def damaged(photographs, tmp_path):
    """A folder in which two images are damaged, the last to train on and one to test on."""
    for number, content in enumerate(photographs):
        split = "train" if number < 22 else "test"
        path = tmp_path / split / CLASSES[number % 3] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[:300] if number in (20, 25) else content)
    return tmp_path


@pytest.fixture
def bad(damaged):
    return {
        "train": str(damaged / "train/cow/20.jpg"),
        "test": str(damaged / "test/bee/25.jpg"),
    }


def feed_of(folder, **changes):
    return make_feed(data.open_source(str(folder)), told(**changes), SMALL, ALONE)


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_is_replaced_in_training_not_counted_in_a_test_and_reported_once(
    damaged, bad, workers
):
    feed = feed_of(damaged, workers=workers, batch_size=11)
    for _, labels in feed.training(0, 4):
        assert labels.min() >= 0
    assert list(feed.faults) == [bad["train"]]
    labels = torch.cat([batch.labels for batch in feed.held_out("test")])
    assert (labels >= 0).sum() == 7
    assert list(feed.faults) == [bad["train"], bad["test"]]
    assert all("damaged or truncated" in why for why in feed.faults.values())


def test_two_processes_replace_damage_as_one_does(damaged):
    source = data.open_source(str(damaged))
    feeds = [make_feed(source, told(batch_size=22), SMALL, us) for us in each(2)]
    alone = make_feed(source, told(batch_size=22), SMALL, ALONE)
    check_equal(alone.training(0, 3), together(feeds, lambda feed: feed.training(0, 3)))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_strict_stop_at_the_first_damaged_image(damaged, bad, workers):
    feed = feed_of(damaged, workers=workers, batch_size=22, strict=True)
    for batches, path in (
        (feed.training(0, 1), bad["train"]),
        (feed.held_out("test"), bad["test"]),
    ):
        with pytest.raises(ValueError, match="damaged or truncated") as error:
            list(batches)
        assert str(error.value).startswith(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_that_goes_away_ends_the_run_in_one_line(damaged, workers):
    feed = feed_of(damaged, workers=workers)
    batches = feed.training(0, 1000)
    next(batches)
    (damaged / "train").rename(damaged / "gone")
    with pytest.raises(ValueError, match="there is no such file") as error:
        list(batches)
    assert "\n" not in str(error.value)
    assert "Nor can the images after it be read" in str(error.value)


def test_damage_in_a_stream_is_replaced_by_another_image_of_the_batch(sources, damaged):
    stream = data.open_source(f"hf-stream:{damaged}")
    feed = make_feed(stream, told(batch_size=11, augment=Augment()), SMALL, ALONE)
    batches = list(feed.training(0, 2))
    assert [len(images.flatten(1).unique(dim=0)) for images, _ in batches] in ([10, 11], [11, 10])
    assert all(labels.min() >= 0 for _, labels in batches)
    ((name, _),) = feed.faults.items()
    assert "20.jpg" in name
    for path in (damaged / "train").rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="Nor can the rest of its batch be read"):
        list(feed.training(0, 1))


def test_a_stream_that_ends_early_is_named(sources):
    feed = make_feed(replace(sources["hf-stream"], train_count=30), told(), SMALL, ALONE)
    with pytest.raises(ValueError, match=r"ended before image 24 of the 30 that were promised"):
        list(feed.training(0, 3))


def test_a_worker_that_is_killed_ends_the_run_in_one_line(kept, monkeypatch):
    feed = feed_of(kept["folder"], workers=2)
    batches = feed.training(0, 1000)
    next(batches)
    children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    workers = [
        int(pid)
        for pid in children.split()
        if Path(f"/proc/{pid}/comm").read_text().startswith("pt_data_worker")
    ]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    with pytest.raises(ChildProcessError, match="processes that read images was killed"):
        list(batches)
