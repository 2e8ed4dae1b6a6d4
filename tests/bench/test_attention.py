"""All forms of attention that are timed beside each other compute the same."""

import json

import pytest
import torch

from vitlib.bench import attention
from vitlib.bench.attention import KERNEL
from vitlib.cli import main


def test_all_forms_have_the_same_gradients():
    found = {}
    for form, run in attention.forms(17, 2):
        result = run()
        if len(result) == 2:  # of the fast ones: gradients in one tensor, and O
            result = result[0]
        found[form] = result
    assert len(found) == 5
    for form in found:
        for own, other in zip(found[form], found[KERNEL], strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_forms_with_a_square_of_weights_stop_before_it_is_too_large(monkeypatch):
    monkeypatch.setattr(attention, "LARGEST_SQUARE", 16)
    assert len(list(attention.forms(16, 1))) == 5
    assert all("at once" not in form for form, _ in attention.forms(17, 1))


def test_tiles_take_memory_by_the_token_and_weights_by_the_pair():
    few, many = (
        {each.form: each.extra for each in attention.measure(tokens, 2)} for tokens in (512, 2048)
    )
    for form in (KERNEL, "fast, in tiles", "readable, in tiles"):
        assert many[form] < 2 * few[form]  # as many tokens in all
    for form in ("fast, all at once", "readable, all at once"):
        assert many[form] > 3 * few[form]  # sixteen times the weights, of a quarter of the images


def test_it_is_printed_and_stored(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(attention, "TOKENS", (20,))
    assert main(["bench", "attention", "--out", str(tmp_path), "--rounds", "2"]) == 0
    outcomes = attention.read(tmp_path / "attention.json")
    assert attention.table(outcomes) in capsys.readouterr().out
    assert {each.tokens for each in outcomes} == {20}
    assert [each.ratio for each in outcomes if each.form == KERNEL] == [(1, 1, 1)]
    about = json.loads((tmp_path / "attention.json").read_text())["about"]
    assert about["command"] == "vitlib bench attention"
    with pytest.raises(ValueError, match="expected 2 or more"):
        attention.main(tmp_path, 1, False)
