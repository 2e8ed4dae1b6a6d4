"""Every form that is timed computes the same, and is the form that its name says."""

import json

import pytest
import torch

from vitlib import ViTConfig
from vitlib.bench import ideas
from vitlib.bench.models import Size
from vitlib.cli import main

SMALL = Size(
    ViTConfig(image_size=8, patch_size=2, num_classes=3, dim=12, depth=3, heads=3, mlp_dim=20), 4
)


def test_all_forms_have_the_same_gradients():
    found = {}
    for form, step in ideas.forms(SMALL).items():
        torch.nn.init.constant_(step.model.head.weight, 0.1)
        with step._within():
            step.loss().backward()
        found[form] = [parameter.grad for parameter in step.model.parameters()]
    assert len(found) == 6
    for grads in found.values():
        for own, plain in zip(grads, found[ideas.PLAIN], strict=True):
            torch.testing.assert_close(own, plain, rtol=1e-3, atol=1e-5)


def test_a_form_is_what_it_is_called():
    held = {form: step.memory()[0] for form, step in ideas.forms(SMALL).items()}
    assert held["autograd"] < held[ideas.PLAIN]
    assert held["derived, as in the chapters"] < held["derived, all tokens"]
    assert held["derived"] < 0.7 * held["derived, as in the chapters"]


def test_it_is_stored_with_the_plain_form_as_one(monkeypatch, tmp_path):
    monkeypatch.setattr(ideas, "SIZES", {"small": SMALL})
    assert main(["bench", "ideas", "--out", str(tmp_path), "--rounds", "2"]) == 0
    stored = json.loads((tmp_path / "ideas.json").read_text())
    assert stored["about"]["command"] == "vitlib bench ideas"
    assert len(stored["runs"]) == 12
    for run in stored["runs"]:
        if run["form"] == ideas.PLAIN:
            assert run["training_ratio"] == run["inference_ratio"] == [1, 1, 1]
    with pytest.raises(ValueError, match="expected 2 or more"):
        ideas.main(tmp_path, 1, False)
