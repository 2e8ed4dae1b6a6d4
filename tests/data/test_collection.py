import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib.data.collection import (
    Names,
    check_classes,
    choose,
    divide,
    divided,
    hold_out,
    listed,
    shuffled,
)
from vitlib.data.dataset import every_fifth
from vitlib.data.seeds import generator_at

labels_of = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor)


class Numbers:
    """Pictures that are nothing but their numbers."""

    def __init__(self, labels, blocks=None):
        self.labels, self.blocks = labels, blocks

    def __getitem__(self, index):
        return index


@given(labels_of)
def test_a_fifth_is_every_fifth(labels):
    for ours, theirs in zip(hold_out(labels, 0.2), every_fifth(labels), strict=True):
        assert torch.equal(ours, theirs)


@given(labels_of, st.sampled_from([0, 0.01, 0.1, 0.29, 1 / 3, 0.5, 0.99]))
def test_of_each_class_the_part_is_held_out_and_nothing_is_lost(labels, part):
    kept, held = hold_out(labels, part)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept.tolist())
    for label in labels.unique():
        count = int((labels == label).sum())
        assert int((labels[held] == label).sum()) == math.floor(count * part + 1e-9)


@given(labels_of)
def test_what_is_held_out_of_a_class_does_not_depend_on_the_others(labels):
    held = hold_out(labels, 0.3)[1]
    mine = (labels == labels[0]).nonzero().flatten()
    alone = hold_out(labels[mine], 0.3)[1]
    assert mine[alone].tolist() == [p for p in held.tolist() if labels[p] == labels[0]]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=200), st.integers(0, 5))
def test_shuffled_blocks_hold_each_image_once_and_sixteen_blocks_at_a_time(numbers, seed):
    blocks = torch.tensor(numbers)
    order = shuffled(Numbers(blocks, blocks), generator_at("cpu", seed))
    assert sorted(order.tolist()) == list(range(len(blocks)))
    seen, groups = blocks[order].tolist(), []
    while seen:
        group = []
        while seen and (seen[0] in group or len(group) < 16):
            block = seen.pop(0)
            group += [] if block in group else [block]
        groups.append(set(group))
    for place, group in enumerate(groups):
        assert not group & set().union(*groups[place + 1 :])


def test_the_images_of_sixteen_blocks_are_mixed():
    blocks = torch.arange(3200) // 100
    seen = blocks[shuffled(Numbers(blocks, blocks), generator_at("cpu", 0))]
    for half in seen.split(1600):
        assert len(half.unique()) == 16
        assert len(half[:200].unique()) == 16


def test_an_order_depends_on_the_seed_alone():
    for blocks in (None, torch.arange(1000) // 30):
        pictures = Numbers(torch.zeros(1000, dtype=torch.int64), blocks)
        first, again, other = (
            shuffled(pictures, generator_at("cpu", seed)).tolist() for seed in (0, 0, 1)
        )
        assert first == again != other


@given(st.lists(st.text(max_size=5)))
def test_names_are_kept_as_they_are(names):
    kept = Names(names)
    assert list(kept) == names
    with pytest.raises(IndexError):
        kept[len(names)]


def test_a_name_that_is_no_text_is_kept_too():
    assert Names(["a", "b\udcff"])[1] == "b\udcff"


def test_what_is_chosen_of_what_is_chosen():
    pictures = Numbers(torch.tensor([0, 1, 0, 1, 0, 1]), torch.tensor([0, 0, 1, 1, 2, 2]))
    odd, last = choose(pictures, torch.tensor([1, 3, 5])), torch.tensor([2])
    assert [odd[i] for i in range(3)] == [1, 3, 5]
    assert odd.labels.tolist() == [1, 1, 1]
    assert odd.blocks.tolist() == [0, 1, 2]
    assert choose(odd, last)[0] == 5
    assert choose(odd, last).blocks.tolist() == [2]


def test_kept_and_held_are_the_pictures_at_those_positions():
    pictures = Numbers(torch.zeros(4, dtype=torch.int64))
    kept, held = divide(pictures, 0.5)
    assert [kept[0], kept[1], held[0], held[1]] == [0, 2, 1, 3]


def test_dividing_says_so_and_wants_a_test_image_of_each_class():
    labels = torch.tensor([0, 1] * 5)
    collection = divided("pets", Numbers(labels), ("cat", "dog"), ("a note.",))
    assert collection.test.labels.tolist() == [0, 1]
    assert collection.notes[0] == "a note."
    assert "every fifth" in collection.notes[1]
    with pytest.raises(ValueError, match=r"pets: fewer than five images show 'dog'"):
        divided("pets", Numbers(labels[:9]), ("cat", "dog"), ())


def test_classes_without_images_are_named():
    with pytest.raises(ValueError, match=r"here: no image shows 'b', 'd'\. Each class"):
        check_classes("here", "abcd", torch.tensor([0, 2]))


def test_long_lists_are_cut():
    assert listed("ab") == "'a', 'b'"
    assert listed("abcde") == "'a', 'b', 'c' and 2 more"
