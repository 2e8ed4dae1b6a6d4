import json
from dataclasses import asdict

import pytest
import torch

from vitlib.data import load
from vitlib.data.shipped import shipped
from vitlib.nn.patches import patchify
from vitlib.study import data_hunger


@pytest.fixture(scope="module")
def small():
    return load("fashion_mnist_small")


def stored():
    return json.loads(shipped(data_hunger.FILE).read_text())


def setting(**changes):
    plain = {"network": "vit", "images": "plain", "size": 100, "seed": 0, "lr": 3e-3}
    return data_hunger.Setting(**{**plain, "steps": 60, "judges": "test", **changes})


def test_the_shipped_file_holds_every_run_of_the_study():
    found = [{key: run[key] for key in asdict(setting())} for run in stored()["runs"]]
    rates = stored()["about"]["rates"]
    planned = [*data_hunger.tuning(), *data_hunger.settings(rates)]
    assert found == [asdict(each) for each in planned]


def test_the_shipped_file_says_how_it_was_made():
    about = stored()["about"]
    assert about["seeds"] == list(data_hunger.SEEDS)
    assert about["sizes"] == list(data_hunger.SIZES)
    assert (about["steps"], about["batch"]) == (data_hunger.STEPS, data_hunger.BATCH)
    assert about.keys() >= {"command", "date", "hardware", "python", "torch", "data"}


def test_rates_are_those_that_read_best_what_was_kept_out():
    tried = [data_hunger.Outcome(**run) for run in stored()["runs"] if run["judges"] == "kept out"]
    assert data_hunger.best_rates(tried) == stored()["about"]["rates"]


def test_networks_have_as_many_parameters_to_one_per_cent():
    vit, cnn = (
        sum(p.numel() for p in make().parameters()) for make in data_hunger.NETWORKS.values()
    )
    assert abs(vit - cnn) < 0.01 * vit
    assert stored()["about"]["parameters"] == {"vit": vit, "cnn": cnn}


def test_a_subset_is_balanced_and_lies_in_the_next_larger_one(small):
    labels = small.train_labels
    few, more = (set(data_hunger.subset(labels, size, 3).tolist()) for size in (50, 200))
    assert few < more
    assert labels[sorted(more)].bincount().tolist() == [20] * 10
    assert few != set(data_hunger.subset(labels, 50, 4).tolist())


def test_shuffling_moves_whole_patches_in_the_same_way_everywhere():
    images = torch.rand(3, 1, 28, 28)
    before, after = patchify(images, 7), patchify(data_hunger.shuffle(images), 7)
    order = [(before[0] == patch).all(1).nonzero().item() for patch in after[0]]
    assert sorted(order) == list(range(16))
    assert order != sorted(order)
    assert torch.equal(after, before[:, order])


def test_a_vit_with_positions_in_another_order_reads_shuffled_images_alike():
    model = data_hunger.NETWORKS["vit"]().double()
    images = torch.rand(2, 1, 28, 28).double()
    with torch.no_grad():
        before = model(images)
        places = torch.arange(16.0).view(1, 1, 4, 4)
        pixels = places.repeat_interleave(7, 2).repeat_interleave(7, 3)
        order = data_hunger.shuffle(pixels)[0, 0, ::7, ::7].flatten().long()
        model.pos_embed.copy_(model.pos_embed[:, order].clone())
        torch.testing.assert_close(model(data_hunger.shuffle(images)), before)


def test_batches_go_through_the_set_once_an_epoch():
    steps = list(data_hunger.batches(200, 7, 0))
    assert [len(step) for step in steps] == [64] * 7
    assert len(torch.cat(steps[:3]).unique()) == 192
    assert not torch.equal(steps[0], steps[3])
    assert len(next(data_hunger.batches(20, 1, 0))) == 20


def test_images_that_choose_the_rate_are_not_trained_on(small, monkeypatch):
    """The last images have other labels here: a model that had seen them would know."""
    monkeypatch.setattr(data_hunger, "KEPT_OUT", 500)
    seen = []
    monkeypatch.setattr(data_hunger, "fit", lambda model, images, labels, *_: seen.append(images))
    data_hunger.measure(setting(size=1000), small)
    data_hunger.measure(setting(size=1000, judges="kept out"), small)
    kept = small.train_images[-500:].flatten(1)
    for images in seen:
        assert torch.cdist(images.flatten(1), kept).min() > 0.1


def test_in_a_small_replica_the_cnn_leads(small, monkeypatch):
    """The direction of the study: both learn 250 images, and the CNN reads others better."""
    monkeypatch.setattr(data_hunger, "KEPT_OUT", 500)
    rates = stored()["about"]["rates"]
    found = {
        network: data_hunger.measure(setting(network=network, size=250, lr=lr, steps=200), small)
        for network, lr in rates.items()
    }
    assert min(run.train_accuracy for run in found.values()) > 0.8
    assert found["cnn"].accuracy > found["vit"].accuracy + 0.03


def test_the_script_tunes_trains_and_writes_the_file(small, tmp_path, monkeypatch):
    monkeypatch.setattr(data_hunger, "load", lambda _: small)
    monkeypatch.setattr(data_hunger, "KEPT_OUT", 500)
    monkeypatch.setattr(data_hunger, "STEPS", 3)
    monkeypatch.setattr(data_hunger, "LONGER", 4)
    monkeypatch.setattr(data_hunger, "RATES", (1e-3,))
    monkeypatch.setattr(data_hunger, "SEEDS", (0,))
    monkeypatch.setattr(data_hunger, "SIZES", (100,))
    monkeypatch.setattr(data_hunger, "SHUFFLED", (100,))
    monkeypatch.setattr(data_hunger, "TUNING", ((100,), 7))
    data_hunger.main(tmp_path)
    written = json.loads((tmp_path / data_hunger.FILE).read_text())
    assert written["about"]["rates"] == {"vit": 1e-3, "cnn": 1e-3}
    kinds = [(run["network"], run["images"], run["steps"]) for run in written["runs"]]
    nets = ("vit", "cnn")
    assert kinds == [
        *((net, "plain", 3) for net in nets),
        *((net, images, 3) for images in ("plain", "augmented", "shuffled") for net in nets),
        *((net, "plain", 4) for net in nets),
    ]
    assert all(0 < run["accuracy"] < 0.7 for run in written["runs"])
