import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib.train.batches import Batch, Share


def order(epoch):
    return torch.randperm(50, generator=torch.Generator().manual_seed(epoch))


def shares(batch_size, count, parts=1):
    return [Share(batch_size, parts, rank, count) for rank in range(count)]


sizes = st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 3, 4])).map(
    lambda sizes: (sizes[0] * sizes[1], sizes[1])
)


@given(sizes, st.integers(0, 30), st.integers(0, 30))
def test_processes_together_see_the_batches_of_one(size, first, more):
    batch_size, count = size
    last = first + more
    (alone,) = shares(batch_size, 1)
    together = [list(share.training(first, last, 50, order)) for share in shares(batch_size, count)]
    whole = list(alone.training(first, last, 50, order))
    assert len(whole) == more
    for step, (epoch, positions) in enumerate(whole):
        assert all(mine[step][0] == epoch for mine in together)
        assert torch.equal(torch.cat([mine[step][1] for mine in together]), positions)


@given(sizes, st.integers(1, 40))
def test_going_on_is_as_if_nothing_had_happened(size, first):
    (share, *_) = shares(*size)
    whole = list(share.training(0, 45, 50, order))
    rest = list(share.training(first, 45, 50, order))
    assert [(epoch, p.tolist()) for epoch, p in whole[first:]] == [(e, p.tolist()) for e, p in rest]


@given(sizes)
def test_an_epoch_sees_no_image_twice_and_leaves_less_than_a_batch_out(size):
    batch_size, count = size
    steps = 50 // batch_size
    for epoch in range(3):
        seen = [
            position
            for share in shares(batch_size, count)
            for which, positions in share.training(epoch * steps, (epoch + 1) * steps, 50, order)
            for position in positions.tolist()
            if which == epoch
        ]
        assert len(set(seen)) == len(seen) == steps * batch_size > 50 - batch_size


@given(sizes, st.sampled_from([1, 2, 3]), st.integers(1, 40))
def test_what_is_held_out_is_seen_once_in_as_many_batches_by_each_process(size, parts, images):
    batch_size, count = size[0] * parts, size[1]
    parts_seen = [list(share.held_out(images)) for share in shares(batch_size, count, parts)]
    assert len({len(parts) for parts in parts_seen}) == 1
    in_turn = [range(images)[part] for step in zip(*parts_seen, strict=True) for part in step]
    assert [position for part in in_turn for position in part] == list(range(images))
    limit = batch_size // count // parts
    assert all(len(part) <= limit for part in in_turn)
    assert all(share.held_out_size == limit for share in shares(batch_size, count, parts))


@given(sizes, st.integers(0, 40))
def test_of_a_stream_each_item_goes_to_one_process(size, items):
    batch_size, count = size
    streams = [iter(range(items)) for _ in range(count)]
    everyone = shares(batch_size, count)
    seen = []
    while len(seen) < items:
        turns = [
            share.next_of(stream, batch_size // count)
            for share, stream in zip(everyone, streams, strict=True)
        ]
        assert {number for number, _ in turns} == {min(batch_size, items - len(seen))}
        assert all(len(mine) <= batch_size // count for _, mine in turns)
        seen += [item for _, mine in turns for item in mine]
    assert seen == list(range(items))
    assert everyone[0].next_of(streams[0], 1) == (0, [])


def test_a_batch_that_cannot_be_divided_is_named():
    with pytest.raises(ValueError, match=r"batch_size is 12: expected a multiple of the 4 proc"):
        Share(12, 2, 0, 4)


def test_a_batch_is_split_into_equal_parts():
    batch = Batch(torch.arange(6.0).view(6, 1, 1, 1), torch.arange(6))
    parts = batch.split(3)
    assert [labels.tolist() for _, labels in parts] == [[0, 1], [2, 3], [4, 5]]
    assert [images.flatten().tolist() for images, _ in parts] == [[0, 1], [2, 3], [4, 5]]
