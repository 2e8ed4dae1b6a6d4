import json
import re
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from PIL import Image

from vitlib import ViTConfig, create_model, data, list_models, load_model, save_weights
from vitlib.cli import main
from vitlib.config import named_config
from vitlib.study import STUDIES
from vitlib.summary import summary
from vitlib.train import RECIPES, Digits, train
from vitlib.train.feed import make_feed
from vitlib.train.processes import Processes
from vitlib.train.recipes import Images

VITLIB = [sys.executable, "-m", "vitlib"]
SMALL = (
    *("--data", "pictures", "--epochs", "4", "--batch-size", "4", "--workers", "0"),
    *("--dim", "16", "--heads", "2", "--mlp-dim", "16", "--depth", "1", "--image-size", "16"),
)
"""A short run of a small model."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A run good enough to tell some digits apart."""
    folder = tmp_path_factory.mktemp("run")
    train(Digits(epochs=14, lr=3e-3), folder, progress=False)
    return folder / "weights.safetensors"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def says(capsys):
    """Run a command that goes well and return what it prints."""

    def run(*words):
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def photographs(tmp_path):
    """Five pictures of each of two classes, in colour, with a border that is unlike the rest."""
    folder = tmp_path / "pictures"
    for label, name in enumerate(("dark", "light")):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            picture = Image.new("RGB", (40, 32), "red" if number % 2 else "blue")
            picture.paste((200 * label + 8 * number,) * 3, (4, 4, 36, 28))
            picture.save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def fails(capsys):
    """Run a command that fails and return its one line."""

    def run(*words):
        assert main([str(word) for word in words]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"vitlib: error: .+\n", err)
        return err.removeprefix("vitlib: error: ").strip()

    return run


def digit(number=0, path="digit.png", side=64):
    """A test image as a file, and its label."""
    digits = data.load("digits")
    pixels = (digits.test_images[number, 0] * 255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST).save(path)
    return path, int(digits.test_labels[number])


def test_alone_and_asked_it_helps(says):
    for words in ([], ["--help"], ["-h"]):
        out = says(*words)
        for command in ("train", "eval", "predict", "info", "study", "list"):
            assert command in out
    for command in ("train", "train digits", "eval", "predict", "info", "study", "list"):
        assert "usage: vitlib" in says(*command.split(), "--help")
    for option in ("--out", "--epochs", "--batch-size", "--lr", "--seed", "--gradients", "--dim",
                   "--label-smoothing"):  # fmt: skip
        assert option in says("train", "digits", "--help")


@pytest.mark.parametrize("name", [field.name for field in fields(ViTConfig)])
def test_every_option_of_a_model_is_one_of_train(says, name):
    option = "--no-qkv-bias" if name == "qkv_bias" else f"--{name.replace('_', '-')}"
    assert re.search(rf"{option}\b", says("train", "digits", "--help"))


@pytest.mark.parametrize(
    "options",
    [
        {"position": "sincos1d", "activation": "swiglu", "registers": 2, "dropout": 0.1},
        {"position": "rope2d", "pool": "mean", "norm_after_pool": True, "drop_path": 0.1},
        {"norm": "post", "head": "mlp", "attention_dropout": 0.1, "gradients": "derived"},
        {"patch_dropout": 0.5, "position": "rope2d", "gradients": "derived"},
        {"position": "sincos2d", "activation": "relu", "qkv_bias": False, "pool": "mean"},
        {"position": "none", "activation": "gelu_tanh", "layer_norm_eps": 1e-5},
    ],
    ids=str,
)
def test_every_option_trains_and_its_weights_come_back(says, options):
    words = ["train", "digits", "--epochs", "1", "--depth", "1", "--out", "run"]
    for name, value in options.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", value]
    said = says(*words)
    config = load_model("run/weights.safetensors").config
    assert {name: getattr(config, name) for name in options} == options
    assert said.split()[0] == says("eval", "run/weights.safetensors").split()[1]


def test_the_version_is_the_packages(says):
    assert says("--version") == f"vitlib {version('vitlib')}\n"


def test_list_names_everything(says):
    out = says("list")
    assert set(out.split()) >= {*list_models(), *data.names(), *STUDIES, "models", "recipes"}


def test_a_study_writes_what_came_of_its_runs(says, tmp_path, monkeypatch):
    monkeypatch.setattr("vitlib.study.optimisers.EPOCHS", 1)
    monkeypatch.setattr("vitlib.study.optimisers.SEEDS", (0,))
    monkeypatch.setattr("vitlib.study.optimisers.RATES", (1e-3,))
    said = says("study", "optimisers", "--out", tmp_path / "new")
    path = tmp_path / "new" / "optimisers.json"
    assert said.endswith(f"written: {path}\n")
    found = json.loads(path.read_text())
    assert found["about"]["command"] == "vitlib study optimisers"
    assert [run["optimiser"] for run in found["runs"]] == ["adamw", "muon"]


def test_a_study_says_what_it_needs(fails, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "timm", None)
    said = fails("study", "fashion_mnist_speed", "--out", tmp_path / "new")
    assert re.fullmatch(r"timm is not installed.* pip install timm", said)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", list_models())
def test_info_fits_a_terminal_and_adds_up(says, name):
    out = says("info", name)
    assert max(map(len, out.splitlines())) <= 80
    config = named_config(name)
    with torch.device("meta"):
        whole = sum(parameter.numel() for parameter in create_model(name).parameters())
    assert out.startswith(f"{name}\n")
    assert re.search(rf"^    dim +{config.dim}$", out, re.M)
    assert f"\n{whole:,} parameters in all." in out


def test_info_in_every_format(says):
    name = "vit_base_patch16_224"
    summed = summary(named_config(name))
    assert says("info", name) == f"{name}\n{summed.to_text()}\n"
    assert says("info", name, "--format", "markdown") == f"# {name}\n\n{summed.to_markdown()}\n"
    assert says("info", name, "--format", "json") == f"{summed.to_json()}\n"


def test_info_of_weights_says_how_good_they_are(says, weights):
    for format in ("text", "markdown"):
        out = says("info", weights, "--format", format)
        assert out.startswith(("# " if format == "markdown" else "") + str(weights))
        assert re.search(r"\bdim\W+64\b", out)
        assert re.search(r"^Trained on digits: \d\d\.\d\d% of its test images right\.$", out, re.M)
    assert json.loads(says("info", weights, "--format", "json"))["config"]["dim"] == 64


def test_train_then_eval_then_predict(says, capsys):
    words = ["train", "digits", "--epochs", "1", "--batch-size", "200", "--seed", "7"]
    assert main([*words, "--lr", "2e-3", "--gradients", "derived", "--dim", "32"]) == 0
    out, err = capsys.readouterr()
    assert "epoch 1/1" in err
    assert "accuracy" in err
    assert "vitlib predict photo.png --weights runs/digits/weights.safetensors" in out
    assert "vitlib.load_model('runs/digits/weights.safetensors')" in out
    model = load_model("runs/digits/weights.safetensors")
    assert (model.config.dim, model.config.gradients) == (32, "derived")
    right = re.search(r"\d+ of 355 test images right \(.*?\), loss [\d.]+", out)
    assert right
    assert right[0] in says("eval", "runs/digits/weights.safetensors")
    path, _ = digit()
    assert says("predict", path) == says("predict", path, "--weights", load_path(out))


def load_path(out):
    return re.search(r"The weights are in (\S+)\.", out)[1]


def test_predictions_are_the_models(says, weights):
    model, digits = load_model(weights), data.load("digits")
    files = [digit(number, f"{number}.png") for number in range(10)]
    lines = says("predict", *(path for path, _ in files), "--weights", weights).splitlines()
    with torch.no_grad():
        probabilities = model(digits.normalisation(digits.test_images[:10])).softmax(1)
    right = 0
    for (path, label), line, row in zip(files, lines, probabilities, strict=True):
        told, *classes = re.split(r": |, ", line)
        assert told == path
        for said, probability in zip(classes, row.topk(3).values, strict=True):
            name, percent = re.fullmatch(r"(\d) \(([\d.]+)%\)", said).groups()
            assert float(percent) == pytest.approx(100 * row[int(name)].item(), abs=1.5)
            assert float(percent) == pytest.approx(100 * probability.item(), abs=1.5)
        right += classes[0].startswith(str(label))
    assert right >= 7


def test_a_photograph_is_predicted_as_it_is_tested(says, photographs):
    """A model that was trained on random crops is tested without the border."""
    says("train", "images", *SMALL, "--lr", "0.03", "--out", "run")
    path = Path("run/weights.safetensors")
    model, recipe = load_model(path), Images(data="pictures", batch_size=4)
    alone = Processes(0, 1, torch.device("cpu"))
    feed = make_feed(data.open_source("pictures"), recipe, model.config, alone)
    files = sorted(photographs.glob("*/4.png"))  # every fifth
    lines = says("predict", *files, "--weights", path).splitlines()
    with torch.no_grad():
        rows = model(feed.normalisation(next(feed.held_out("test")).images)).softmax(1)
    for line, row in zip(lines, rows, strict=False):
        for name, percent in re.findall(r"(\w+) \(([\d.]+)%\)", line):
            probability = row[feed.classes.index(name)].item()
            assert float(percent) == pytest.approx(100 * probability, abs=0.06)


def test_what_is_tested_is_told(says, capsys, photographs):
    says("train", "images", *SMALL, "--out", "run")
    (photographs / "light" / "4.png").write_bytes(b"not an image")
    assert main(["eval", "run/weights.safetensors", "--data", "pictures"]) == 0
    out, err = capsys.readouterr()
    assert re.match(r"pictures: [01] of 1 test images right", out)
    assert "every fifth of each class" in err
    assert re.search(r"light/4\.png: not an image", err)


def test_ink_on_paper_is_read_like_light_on_dark(says, weights):
    path, _ = digit()
    Image.eval(Image.open(path), lambda value: 255 - value).save("paper.png")
    dark, paper = says("predict", path, "paper.png", "--weights", weights).splitlines()
    assert dark.removeprefix(path) == paper.removeprefix("paper.png")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trian", "digits"], "trian.*train"),
        (["train"], "digits"),
        (["train", "digit"], "digit.*Available subcommands: digits"),
        (["train", "digits", "--epoch", "3"], "--epoch.*meant --epochs"),
        (["train", "digits", "--label-smoothing", "1.5"], "label_smoothing is 1.5.*0 to 1"),
        (["train", "digits", "--lr", "fast"], "--lr.*'fast'"),
        (["train", "digits", "--epochs", "0"], "^epochs is 0: expected 1 or more"),
        (["train", "digits", "--epochs", "1.5"], "--epochs.*'1.5'"),
        (["train", "digits", "--epochs"], "--epochs"),
        (["train", "digits", "--gradients", "mine"], "'mine'.*autograd.*derived"),
        (["train", "digits", "--dim", "63"], "dim=63"),
        (["train", "digits", "--dim", "-64"], "dim=-64: expected a whole number, from 1"),
        (["train", "digits", "--dim", "10000000000"], "dim=10000000000.* to 1,000,000"),
        (["train", "digits", "--dim", "1000000", "--heads", "1"], "memory.*smaller sizes"),
        (["train", "digits", "--position", "sincos"], "'sincos'.*sincos1d.*sincos2d"),
        (["train", "digits", "--position", "sincos1d", "--dim", "9", "--heads", "1"], "by 2"),
        (["train", "digits", "--position", "sincos2d", "--dim", "66", "--heads", "1"], "by 4"),
        (["train", "digits", "--position", "rope2d", "--heads", "32"], "dim / heads=2 .*by 4"),
        (["train", "digits", "--norm-after-pool"], "norm_after_pool=True contradicts pool='cls'"),
        (
            ["train", "digits", "--norm-after-pool", "--pool", "mean", "--norm", "post"],
            "norm_after_pool=True contradicts norm='post'",
        ),
        (["train", "digits", "--dropout", "1"], "dropout=1.*0 to below 1"),
        (["train", "digits", "--attention-dropout", "-1"], "attention_dropout=-1.*0 to below 1"),
        (["train", "digits", "--drop-path", "2"], "drop_path=2.*0 to below 1"),
        (["train", "digits", "--patch-dropout", "1"], "patch_dropout=1.*0 to below 1"),
        (["train", "digits", "--registers", "-1"], "registers=-1: expected a whole number, from 0"),
        (["train", "digits", "--layer-norm-eps", "0"], "layer_norm_eps=0"),
        (["train", "digits", "--activation", "swish"], "'swish'.*gelu_tanh.*swiglu"),
        (["train", "digits", "--head", "none"], "'none'.*linear.*mlp"),
        (["train", "digits", "--patch-size", "3"], "patch_size=3"),
        (["train", "digits", "--image-size", "16"], r"\(1, 8, 8\)"),
        (["train", "digits", "--rotate", "-1"], "rotate is -1"),
        (["train", "digits", "--batch-size", "5000"], "5000.*1442"),
        (["train", "digits", "--out", "/dev/null/run"], "/dev/null/run.*Not a directory"),
        (["train", "digits", "--data", "nowhere"], "no data set and no folder is called 'nowhere'"),
        (["train", "digits", "--validation", "1"], "validation is 1: expected 0 to below 1"),
        (["train", "digits", "--ema", "1"], "ema is 1: expected 0 to below 1"),
        (["train", "digits", "--clip", "-1"], "clip is -1: expected 0 or more"),
        (["train", "digits", "--layer-decay", "0"], "layer_decay is 0"),
        (["train", "digits", "--accumulate", "5"], "batch_size is 96: expected a multiple"),
        (["train", "digits", "--optimiser", "sgd"], "'sgd'.*adamw.*muon"),
        (["train", "digits", "--keep", "0"], "keep is 0"),
        (["train", "digits", "--precision", "float16", "--parallel", "fsdp"], "scaled loss"),
        (["train", "digits", "--precision", "float16", "--optimiser", "muon"], "one optimiser"),
        (["train", "finetune", "--data", "."], "--weights"),
        (["train", "finetune", "--data", "digits", "--weights", "no.safetensors"], "no.safeten"),
        (["plan", "digits", "--device", "abacus"], "abacus.*h100"),
        (["plan", "digits", "--devices", "7"], "batch_size=96"),
        (["sheet", "digits", "--images", "0"], "images is 0: expected 1 to 96, the batch_size"),
        (["export", "nothing", "--out", "a.safetensors"], "nothing: there is no such file"),
        (["export", ".", "--out", "a.safetensors"], "neither weights nor a whole checkpoint"),
        (["eval"], "WEIGHTS"),
        (["eval", "none.safetensors"], "none.safetensors: there is no such file"),
        (["info"], "WEIGHTS"),
        (["info", "vit_huge"], "'vit_huge'.*vitlib list"),
        (["info", "a", "b"], "b"),
        (["info", "."], r"^\.: not a file"),
        (["info", "x" * 5000], "File name too long"),
        (["info", "vit_base_patch16_224", "--format", "yaml"], "'yaml'.*text.*markdown.*json"),
        (["predict"], "no image"),
        (["predict", "a.png"], "no run without --out .*--weights.*vitlib train digits"),
        (["study"], "NAME"),
        (["study", "speed"], "'speed' is no study. The studies are data_hunger, "),
        (["list", "models"], "models"),
        (["--colour"], "--colour"),
    ],
)
def test_a_mistake_is_one_line(fails, words, line):
    assert re.search(line, fails(*words))


def test_bad_images_are_told_by_their_path(fails, weights):
    good, _ = digit()
    whole = Path(good).read_bytes()
    for name, content in {
        "empty.png": b"",
        "text.png": b"not an image at all",
        "half.png": whole[: len(whole) // 2],
    }.items():
        Path(name).write_bytes(content)
        assert fails("predict", good, name, "--weights", weights).startswith(name)
    assert fails("predict", "none.png", "--weights", weights).startswith("none.png")


def test_bad_weights_are_told_by_their_path(fails, weights, tmp_path):
    path, _ = digit()
    bad = tmp_path / "bad.safetensors"
    for content in (b"", b"something else", weights.read_bytes()[:-10]):
        bad.write_bytes(content)
        for words in (["eval", bad], ["info", bad], ["predict", path, "--weights", bad]):
            assert fails(*words).startswith(str(bad))
    save_weights(load_model(weights), bad)
    for words in (["eval", bad], ["predict", path, "--weights", bad]):
        assert "does not say which data" in fails(*words)


def test_a_finished_run_is_not_overwritten_unless_told(fails, says, weights):
    before = weights.read_bytes()
    words = ["train", "digits", "--epochs", "1", "--out", weights.parent]
    assert "--overwrite" in fails(*words)
    assert weights.read_bytes() == before
    mine = ["train", "digits", "--epochs", "1", "--batch-size", "400", "--out", "mine"]
    says(*mine)
    says(*mine, "--overwrite")


def test_a_folder_of_other_things_is_left_alone(fails, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "no training run" in fails("train", "digits", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_full_disk_ends_in_one_line_and_leaves_no_weights(tmp_path):
    program = (
        "import resource, sys; from vitlib.cli import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "sys.exit(main('train digits --epochs 1 --out full'.split()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("vitlib: error: ")
    assert "File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    left = {path.name for path in (tmp_path / "full").iterdir()}
    assert left == {"recipe.json", "log.jsonl", "log.csv"}


def test_a_sheet_shows_a_batch(says):
    assert says("sheet", "digits", "--images", "7") == "sheet.png\n"
    with Image.open("sheet.png") as picture:
        assert min(picture.size) > 112


def test_a_sheet_of_too_few_images_says_what_would_help(fails, photographs):
    said = fails("sheet", "images", "--data", photographs)
    assert re.search(r"batch_size is 64.* 8 training images.*--batch-size", said)


def test_a_plan_is_for_as_many_classes_as_there_are(says, photographs):
    words = ["plan", "images", "--data", photographs, "--batch-size", "4", "--format", "json"]
    two = summary(Images(data="pictures").network(2))
    assert json.loads(says(*words))["parameters"] == two.parameters


def test_a_plan_counts_the_images_that_are_trained_on(says, photographs):
    def steps(*words):
        told = json.loads(says("plan", *words, "--epochs", "1", "--format", "json"))
        return told["setup"]["steps"]

    assert steps("fashion_mnist", "--validation", "0.5") == 30_000 // 256
    here = ["--data", photographs, "--num-classes", "2", "--batch-size", "4"]
    assert steps("imagenet_s16", *here, "--validation", "0") == 2


def test_a_plan_says_what_a_run_costs(says):
    told = json.loads(says("plan", "imagenet_s16", "--devices", "8", "--format", "json"))
    assert told["parameters"] == summary(RECIPES["imagenet_s16"]().network()).parameters
    assert "computed, not measured" in says("plan", "imagenet_s16", "--devices", "8")
    for name in RECIPES:
        if name not in ("images", "finetune"):  # which have to see what they are given
            assert "parameters" in says("plan", name)


def test_exported_weights_and_programs_are_the_model(says, weights):
    says("export", weights, "--out", "plain.safetensors")
    says("export", weights.parent, "--out", "program.pt2")
    model, images = load_model(weights), torch.rand(5, 1, 8, 8)
    program = torch.export.load("program.pt2").module()
    with torch.no_grad():
        assert torch.equal(load_model("plain.safetensors")(images), model(images))
        torch.testing.assert_close(program(images), model(images), rtol=1e-5, atol=1e-5)
        assert program(images[:1]).shape == (1, 10)


def test_the_command_itself_exits_with_the_status(tmp_path):
    done = subprocess.run([*VITLIB, "info", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch("vitlib: error: .+\n", done.stderr)


def test_a_reader_that_leaves_early_is_no_error():
    with subprocess.Popen(
        [*VITLIB, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b""
