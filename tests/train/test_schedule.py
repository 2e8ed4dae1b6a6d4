import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.optimization import get_inverse_sqrt_schedule

from vitlib.train.schedule import rate

NAMES = ["cosine", "linear", "constant", "rsqrt"]
FALLING = ["cosine", "linear", "rsqrt"]
RUNS = st.integers(1, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))
"""Steps, and steps of warm-up."""


def course(name, total, warmup):
    return [rate(name, step, total=total, warmup=warmup) for step in range(total)]


def of_scheduler(make, count):
    """What a PyTorch scheduler makes of a learning rate of 1."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler, rates = make(optimiser), []
    for _ in range(count):
        rates.append(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()
    return rates


def test_the_cosine_is_pytorchs():
    schedulers = torch.optim.lr_scheduler
    reference = of_scheduler(lambda o: schedulers.CosineAnnealingLR(o, T_max=40), 40)
    assert course("cosine", 40, 0) == pytest.approx(reference, abs=1e-12)


def test_the_line_is_pytorchs():
    schedulers = torch.optim.lr_scheduler
    reference = of_scheduler(
        lambda o: schedulers.LinearLR(o, start_factor=1, end_factor=0, total_iters=40), 40
    )
    assert course("linear", 40, 0) == pytest.approx(reference, abs=1e-12)


def test_the_reciprocal_square_root_is_that_of_transformers_until_it_cools_down():
    reference = of_scheduler(lambda o: get_inverse_sqrt_schedule(o, num_warmup_steps=10), 80)
    assert course("rsqrt", 100, 10)[10:80] == pytest.approx(reference[10:], abs=1e-12)
    cooldown = [(100 - step) / 20 for step in range(80, 100)]
    whole = of_scheduler(lambda o: get_inverse_sqrt_schedule(o, num_warmup_steps=10), 100)
    expected = [a * b for a, b in zip(whole[80:], cooldown, strict=True)]
    assert course("rsqrt", 100, 10)[80:] == pytest.approx(expected, abs=1e-12)


def test_before_it_cools_down_the_reciprocal_square_root_does_not_know_the_length_of_the_run():
    assert course("rsqrt", 1000, 10)[:80] == course("rsqrt", 100, 10)[:80]


@pytest.mark.parametrize("name", NAMES)
@given(run=RUNS)
def test_it_rises_in_a_line_to_one_and_then_never_rises(name, run):
    total, warmup = run
    factors = course(name, total, warmup)
    assert all(0 < factor <= 1 for factor in factors)
    rising, falling = factors[:warmup], factors[warmup:]
    assert rising == [(step + 1) / warmup for step in range(warmup)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_step_after_the_warm_up_has_the_peak_rate(name):
    assert rate(name, 10, total=100, warmup=10) == 1
    assert rate(name, 0, total=100, warmup=0) == 1


@pytest.mark.parametrize("name", FALLING)
def test_it_would_be_zero_one_step_after_the_last(name):
    assert rate(name, 100, total=100, warmup=10) == pytest.approx(0, abs=1e-12)
    assert 0 < rate(name, 99, total=100, warmup=10) < 0.03


def test_the_constant_stays():
    assert set(course("constant", 50, 5)[4:]) == {1}


def test_another_name_is_refused():
    with pytest.raises(ValueError, match=r"^schedule='step' is not available: choose cosine or"):
        rate("step", 0, total=1, warmup=0)
