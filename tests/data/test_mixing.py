import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vitlib.data.mixing import box_mask, kept_by_cutmix, mix, symmetric_beta
from vitlib.nn.loss import cross_entropy

seeds = st.integers(0, 2**32)
alphas = st.floats(0.01, 10)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def batch_of(count, generator, shape=(3, 6, 8), classes=4):
    images = torch.rand(count, *shape, generator=generator)
    return images, torch.eye(classes)[torch.randint(classes, (count,), generator=generator)]


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 0.8, 1.0, 3.0])
def test_parts_have_the_beta_distribution(alpha):
    generator = seeded(0)
    drawn = torch.stack([symmetric_beta(alpha, generator) for _ in range(4000)])
    places = torch.linspace(0.001, 0.999, 999)
    below = (drawn <= places[:, None]).double().mean(1).numpy()
    distance = abs(below - stats.beta(alpha, alpha).cdf(places.numpy())).max()
    assert distance < 1.63 / math.sqrt(len(drawn))  # Kolmogorov and Smirnov's bound at 1 %


def test_in_the_mean_an_image_and_the_one_before_it_count_the_same():
    generator = seeded(0)
    images, targets = batch_of(5, generator)
    runs = [mix(images, targets, generator, mixup=0.8) for _ in range(2000)]
    mean = torch.stack([mixed for mixed, _ in runs]).mean(0)
    expected = (images + images.roll(1, 0)) / 2
    # The standard deviation of λ is 1 / (2 √(2α + 1)); four of the mean's are allowed.
    bound = 4 / (2 * math.sqrt(2.6 * 2000))
    assert ((mean - expected).abs() <= bound * (images - images.roll(1, 0)).abs() + 1e-6).all()
    mean = torch.stack([mixed for _, mixed in runs]).mean(0)
    torch.testing.assert_close(mean, (targets + targets.roll(1, 0)) / 2, atol=bound, rtol=0)


@given(seeds, alphas)
def test_mixup_keeps_of_each_pixel_what_it_keeps_of_the_target(seed, alpha):
    generator = seeded(seed)
    images = torch.rand(3, 1, 4, 5, generator=generator)
    mixed, parts = mix(images, torch.eye(3), generator, mixup=alpha)
    part = parts[0, 0]
    torch.testing.assert_close(parts, part * torch.eye(3) + (1 - part) * torch.eye(3).roll(1, 0))
    torch.testing.assert_close(mixed, part * images + (1 - part) * images.roll(1, 0))


@given(seeds, alphas, st.integers(1, 12), st.integers(1, 12))
def test_cutmix_counts_the_pixels_that_stay(seed, alpha, height, width):
    """Images of one number each say whose every pixel is."""
    numbers = torch.arange(3.0)[:, None, None, None].expand(3, 2, height, width)
    mixed, parts = mix(numbers, torch.eye(3), seeded(seed), cutmix=alpha)
    for number in range(3):
        own = mixed[number] == number
        assert torch.equal(
            mixed[number][~own], torch.full_like(mixed[number][~own], (number - 1) % 3)
        )
        part = own.float().mean().item()
        assert parts[number, number].item() == pytest.approx(part, abs=1e-7)
        assert parts[number].sum().item() == pytest.approx(1)


def test_cutmix_cuts_one_box_of_the_images_shape_about_any_pixel():
    generator, cut = seeded(0), torch.zeros(20, 40)
    whole = 0
    for _ in range(1000):
        gone = kept_by_cutmix(1.0, 20, 40, generator) == 0
        rows, columns = gone.any(1).nonzero().flatten(), gone.any(0).nonzero().flatten()
        cut += gone
        if len(rows) == 0:
            continue
        box = gone[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all()
        assert gone.sum() == box.numel()
        if rows[0] > 0 and rows[-1] < 19 and columns[0] > 0 and columns[-1] < 39:
            whole += 1
            assert abs(len(columns) - 2 * len(rows)) <= 3
    assert whole > 50
    assert (cut[0, 0] > 100) & (cut[0, -1] > 100) & (cut[-1, 0] > 100) & (cut[-1, -1] > 100)


def test_cutmix_takes_less_than_its_lambda_by_what_falls_outside():
    """The box has the part 1 − λ, uniform, and loses some at borders: never is more cut."""
    for seed in range(200):
        part = symmetric_beta(1.0, seeded(seed)).item()
        assert kept_by_cutmix(1.0, 50, 50, seeded(seed)).mean().item() >= part - 1e-6


def test_with_both_one_of_them_by_lot():
    generator = seeded(0)
    images, targets = batch_of(4, generator)
    cut, runs = 0, 2000
    for _ in range(runs):
        mixed, _ = mix(images, targets, generator, mixup=0.8, cutmix=1.0)
        pure = (mixed == images) | (mixed == images.roll(1, 0))
        cut += int(pure.all())
    # Some of mixup's λ are 0 or 1 to the last bit of float32.
    assert cut / runs == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / runs) + 0.005)


@pytest.mark.parametrize("gradients", ["autograd", "derived"])
def test_the_gradient_of_a_mixed_target_is_the_mixture_of_gradients(gradients):
    generator = seeded(0)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    images, targets = batch_of(6, generator)
    targets = targets.double()
    _, mixed = mix(images, targets, generator, mixup=1.0)
    own, before, both = (
        torch.autograd.grad(cross_entropy(logits, rows, gradients=gradients), logits)[0]
        for rows in (targets, targets.roll(1, 0), mixed)
    )
    part = (mixed[targets.bool() & ~targets.roll(1, 0).bool()])[0].item()
    assert 0 < part < 1
    torch.testing.assert_close(both, part * own + (1 - part) * before, atol=1e-12, rtol=0)


@given(seeds, st.integers(0, 5), alphas, st.booleans(), st.booleans())
def test_images_stay_images_and_targets_sum_to_one(seed, count, alpha, mixup, cutmix):
    images, targets = batch_of(count, seeded(seed))
    options = {"mixup": alpha * mixup, "cutmix": alpha * cutmix}
    mixed, rows = mix(images, targets, seeded(seed), **options)
    assert mixed.shape == images.shape
    assert (mixed.dtype, rows.dtype) == (torch.float32, torch.float32)
    assert ((mixed >= 0) & (mixed <= 1)).all()
    torch.testing.assert_close(rows.sum(1), torch.ones(count))
    again, rows_again = mix(images, targets, seeded(seed), **options)
    assert torch.equal(mixed, again)
    assert torch.equal(rows, rows_again)


def test_one_image_is_mixed_with_itself():
    images, targets = batch_of(1, seeded(0))
    mixed, rows = mix(images, targets, seeded(0), mixup=0.5, cutmix=0.5)
    assert torch.equal(mixed, images)
    assert torch.equal(rows, targets)


def test_nothing_asked_is_nothing_drawn():
    generator = seeded(0)
    images, targets = batch_of(3, generator)
    before = generator.get_state()
    mixed, rows = mix(images, targets, generator)
    assert mixed is images
    assert rows is targets
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("alpha", [1e-300, 1e-3, 1e3, 1e300])
def test_extreme_alphas_give_numbers(alpha):
    generator = seeded(0)
    drawn = torch.stack([symmetric_beta(alpha, generator) for _ in range(500)])
    assert ((drawn >= 0) & (drawn <= 1)).all()
    kept = torch.stack([kept_by_cutmix(alpha, 4, 4, generator) for _ in range(100)])
    assert kept.isfinite().all()


def test_a_mask_has_its_box_and_nothing_else():
    edges = torch.tensor([[1, 3, 0, 2], [-2, 9, 3, 5], [2, 2, 0, 5]])
    masks = box_mask(*edges.unbind(1), 4, 5)
    expected = torch.zeros(3, 4, 5, dtype=torch.bool)
    expected[0, 1:3, 0:2] = True
    expected[1, :, 3:5] = True
    assert torch.equal(masks, expected)
