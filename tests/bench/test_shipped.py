"""The stored measurements that the book shows: whole, and what the prose says of them."""

import json

import pytest

from vitlib.bench import attention, ideas
from vitlib.bench.models import PEERS, SIZES
from vitlib.bench.outcome import OURS, read
from vitlib.bench.report import leanest_peer
from vitlib.data.shipped import shipped

STEP, ATTENTION, IDEAS = (shipped(f"bench_{name}.json") for name in ("step", "attention", "ideas"))


@pytest.mark.parametrize("path", [STEP, ATTENTION, IDEAS], ids=lambda path: path.stem)
def test_it_says_how_it_was_made(path):
    about = json.loads(path.read_text())["about"]
    assert about["command"] == f"vitlib {path.stem.replace('_', ' ')}"
    assert about.keys() >= {"date", "hardware", "python", "torch", "rounds"}


def test_every_contender_was_measured_in_every_size():
    outcomes = read(STEP)
    found = [(each.size, each.library, each.compiled) for each in outcomes]
    expected = [
        (size, library, compiled)
        for size in SIZES
        for library in (*OURS, *PEERS)
        for compiled in (False, True)
    ]
    assert found == expected
    about = json.loads(STEP.read_text())["about"]
    assert all(about[peer] for peer in PEERS)


def test_peers_computed_the_same():
    for each in read(STEP):
        if each.library != "vit-pytorch":
            assert each.difference < 1e-4, each


def test_the_fastest_peer_is_the_measure():
    for size in SIZES:
        some = [each for each in read(STEP) if each.size == size]
        for kind in ("training", "inference"):
            ratios = [getattr(each, kind).ratio for each in some if not each.is_ours]
            assert (1, 1, 1) in ratios


def test_derived_gradients_hold_little_more_than_half_of_the_leanest_peer():
    for size in SIZES:
        some = [each for each in read(STEP) if each.size == size]
        derived = next(each for each in some if each.name == "vitlib, derived")
        assert derived.held <= 0.55 * leanest_peer(some)


def test_tiles_are_as_fast_as_the_kernel_and_need_memory_by_the_token():
    outcomes = attention.read(ATTENTION)
    assert {each.tokens for each in outcomes} == set(attention.TOKENS)
    tiles = [each for each in outcomes if each.form == "fast, in tiles"]
    for each in tiles:
        if each.tokens >= 1024:
            assert each.ratio[1] <= 1.2
    longest, shorter = tiles[-1], tiles[-2]
    assert longest.extra <= 2.1 * shorter.extra


def test_every_idea_was_measured_in_every_size():
    runs = json.loads(IDEAS.read_text())["runs"]
    forms = list(ideas.forms(next(iter(SIZES.values()))))
    assert [(run["size"], run["memory_kept"], run["form"]) for run in runs] == [
        (size, kept, form) for size in SIZES for kept in (False, True) for form in forms
    ]
