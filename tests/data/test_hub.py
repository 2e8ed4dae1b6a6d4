import io
import subprocess
import sys

import datasets
import pytest
import torch
from PIL import Image

from vitlib import data

CLASSES = ("ant", "bee", "cow")


@pytest.fixture(autouse=True)
def _no_network(tmp_path, monkeypatch):
    """What is downloaded or converted goes to a folder of the test's; the network is off."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def picture(number):
    return Image.new("RGB", (6, 4), (number, 0, 0))


def table(numbers, labels=None, **more):
    """Images that show their number."""
    labels = [number % 3 for number in numbers] if labels is None else labels
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    columns = {"image": [picture(number) for number in numbers], "label": labels}
    for name, (feature, values) in more.items():
        features[name], columns[name] = feature, values
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def save(folder, parts=1, **splits):
    """Parquet files as the hub has them."""
    (folder / "data").mkdir(parents=True)
    for split, rows in splits.items():
        for number in range(parts):
            path = folder / "data" / f"{split}-{number:05}-of-{parts:05}.parquet"
            rows.shard(parts, number, contiguous=True).to_parquet(str(path))
    return str(folder)


def shows(picture):
    """The number that an image shows, from its content or its file."""
    source = picture.source
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return Image.open(file).getpixel((0, 0))[0]


def shown(pictures):
    found = [pictures[i] for i in range(len(pictures.labels))]
    assert [each.label for each in found] == pictures.labels.tolist()
    return [shows(each) for each in found]


def complaint(name, kind=ValueError):
    with pytest.raises(kind) as error:
        data.open_source(name)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def whole(tmp_path):
    return save(tmp_path / "set", parts=3, train=table(range(30)), test=table(range(100, 109)))


def test_images_and_labels_are_those_of_the_table(whole):
    collection = data.open_source(f"hf:{whole}")
    assert shown(collection.train) == list(range(30))
    assert collection.train.labels.tolist() == [number % 3 for number in range(30)]
    assert shown(collection.test) == list(range(100, 109))
    assert collection.classes == CLASSES
    assert collection.name == f"hf:{whole}"
    assert collection.train[7].name.startswith(f"hf:{whole} train[7]")
    assert collection.notes == ()


def test_folders_of_images_that_the_library_reads_are_read_from_where_they_are(tmp_path):
    for split in ("train", "test"):
        for number, name in enumerate(CLASSES):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            picture(number).save(tmp_path / "set" / split / name / "x.png")
    collection = data.open_source(f"hf:{tmp_path / 'set'}")
    assert shown(collection.train) == [0, 1, 2]
    assert collection.classes == CLASSES
    assert "ant/x.png" in collection.train[0].name


@pytest.mark.parametrize("secret", [False, True])
def test_validation_stands_in_where_the_test_has_no_labels(tmp_path, secret):
    splits = {"validation": table(range(50, 53))}
    if secret:
        splits["test"] = table(range(60, 63), labels=[-1, -1, None])
    folder = save(tmp_path / "set", train=table(range(9)), **splits)
    assert shown(data.open_source(f"hf:{folder}").test) == [50, 51, 52]
    stream = data.open_source(f"hf-stream:{folder}")
    assert [shows(each) for each in stream.testing()] == [50, 51, 52]


def test_without_either_every_fifth_image_of_a_class_is_for_testing(tmp_path):
    folder = save(tmp_path / "set", train=table(range(30)))
    collection = data.open_source(f"hf:{folder}")
    assert collection.test.labels.tolist() == [0, 1, 2] * 2
    assert sorted(shown(collection.train) + shown(collection.test)) == list(range(30))


def test_a_stream_gives_each_image_once_in_an_order_that_the_seed_decides(whole):
    stream = data.open_source(f"hf-stream:{whole}")
    assert stream.train_count == 30
    assert stream.classes == CLASSES
    first, again, other = (
        [(shows(each), each.label) for each in stream.training(seed)]
        for seed in (2**63 - 1, 2**63 - 1, 5)
    )
    assert first == again != other
    assert sorted(first) == [(number, number % 3) for number in range(30)]
    assert [shows(each) for each in stream.testing()] == list(range(100, 109))


def test_a_stream_is_shuffled_within_the_files_that_it_comes_in_and_across(whole):
    seen = [shows(each) for each in data.open_source(f"hf-stream:{whole}").training(1)]
    for ten in range(3):
        of_file = [number for number in seen if number // 10 == ten]
        assert of_file != sorted(of_file)
    tens = [number // 10 for number in seen]
    assert tens != sorted(tens, key=tens.index)


def test_images_that_nobody_counted_are_counted(whole, monkeypatch):
    monkeypatch.setattr(datasets.DatasetInfo, "splits", None)
    assert data.open_source(f"hf-stream:{whole}").train_count == 30


def test_a_stream_cannot_be_divided(tmp_path):
    folder = save(tmp_path / "set", train=table(range(30)))
    said = complaint(f"hf-stream:{folder}")
    assert "has no labelled split called test or validation, only 'train'" in said
    assert f"Use hf:{folder}" in said


def test_the_usual_columns_go_first_and_others_are_mentioned(tmp_path):
    rows = table(range(3))
    coarse = datasets.Features({"coarse": datasets.ClassLabel(names=["animal"]), **rows.features})
    rows = datasets.Dataset.from_dict({"coarse": [0] * 3, **rows[:]}, features=coarse)
    collection = data.open_source(f"hf:{save(tmp_path / 'set', train=rows, test=rows)}")
    assert collection.classes == CLASSES
    assert "the columns 'label', 'coarse' for the label; the first is used" in collection.notes[0]


def test_columns_of_other_names_are_found_by_their_type(tmp_path):
    rows = table(range(3)).rename_columns({"image": "img", "label": "fine_label"})
    folder = save(tmp_path / "set", train=rows, test=rows)
    assert shown(data.open_source(f"hf:{folder}").train) == [0, 1, 2]
    assert [shows(each) for each in data.open_source(f"hf-stream:{folder}").testing()] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["hf", "hf-stream"])
def test_what_does_not_classify_images_is_named(tmp_path, kind):
    rows = datasets.Dataset.from_dict({"text": ["a"], "number": [1]})
    said = complaint(f"{kind}:{save(tmp_path / 'text', train=rows)}")
    assert "no column is of type Image; there are 'number', 'text'" in said
    rows = table(range(3)).remove_columns("label")
    assert "of type ClassLabel" in complaint(f"{kind}:{save(tmp_path / 'bare', train=rows)}")
    said = complaint(f"{kind}:{save(tmp_path / 'untrained', test=table(range(3)))}")
    assert "has no split train, only 'test'" in said


def test_training_images_without_a_class_are_counted(tmp_path):
    rows = table(range(4), labels=[0, -1, None, 2])
    folder = save(tmp_path / "set", train=rows, test=table(range(3)))
    assert "2 training images have no class" in complaint(f"hf:{folder}")
    stream = data.open_source(f"hf-stream:{folder}")
    with pytest.raises(ValueError, match=r"its label is -1, expected 0 to 2"):
        list(stream.training(0))


@pytest.mark.parametrize("kind", ["hf", "hf-stream"])
def test_data_that_cannot_be_had_are_named(tmp_path, kind):
    (tmp_path / "empty").mkdir()
    for name in ("nobody/nothing", str(tmp_path / "none"), str(tmp_path / "empty")):
        said = complaint(f"{kind}:{name}", FileNotFoundError)
        assert f"hf:{name}: cannot be had" in said


def test_damaged_data_are_named(whole, tmp_path):
    path = tmp_path / "set/data/train-00001-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:100])
    assert f"hf:{whole}: cannot be had" in complaint(f"hf:{whole}")


def test_without_the_library_it_is_said_how_to_get_it():
    code = (
        "import sys; sys.modules['datasets'] = None\n"
        "from vitlib import data\n"
        "data.open_source('hf:anything')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: data of Hugging Face need the library datasets.")
    assert "pip install 'vitlib[train]'" in last


def test_labels_are_numbers(whole):
    assert data.open_source(f"hf:{whole}").train.labels.dtype == torch.int64
