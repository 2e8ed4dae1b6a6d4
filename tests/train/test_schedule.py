import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib.train.schedule import warmup_cosine


def test_the_cosine_is_pytorchs():
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=40)
    for step in range(40):
        assert warmup_cosine(step, total=40, warmup=0) == pytest.approx(
            reference.get_last_lr()[0], abs=1e-12
        )
        optimiser.step()
        reference.step()


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_it_rises_to_one_and_then_falls_to_nearly_zero(sizes):
    total, warmup = sizes
    factors = [warmup_cosine(step, total=total, warmup=warmup) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    rising, falling = factors[:warmup], factors[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert max(factors) == 1
    if warmup:
        assert factors[0] == 1 / warmup
