from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib.train.muon import COEFFICIENTS, STEPS, Muon, orthogonalise

SIDES = st.integers(1, 24)


def with_singular_values(rows, columns, values):
    """A matrix with these singular values, and its singular vectors."""
    u, _ = torch.linalg.qr(torch.randn(rows, len(values), dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(columns, len(values), dtype=torch.float64))
    return u @ torch.diag(values) @ v.mT, u, v


def group(*weights, **settings):
    return {"params": list(weights), **settings}


def weight_of(*shape):
    return torch.nn.Parameter(torch.randn(*shape, dtype=torch.float64))


@given(SIDES, SIDES)
def test_the_iteration_is_a_polynomial_of_the_singular_values(rows, columns):
    values = torch.rand(min(rows, columns), dtype=torch.float64) + 0.1
    matrix, u, v = with_singular_values(rows, columns, values)
    a, b, c = COEFFICIENTS
    expected = values / values.norm()
    for _ in range(STEPS):
        expected = a * expected + b * expected**3 + c * expected**5
    result = orthogonalise(matrix[None])[0]
    torch.testing.assert_close(result, u @ torch.diag(expected) @ v.mT, rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@given(SIDES, SIDES)
def test_singular_values_become_nearly_one(scale, rows, columns):
    values = torch.logspace(-2, 0, min(rows, columns), dtype=torch.float64)
    matrix, _, _ = with_singular_values(rows, columns, scale * values)
    after = torch.linalg.svdvals(orthogonalise(matrix.float()[None])[0])
    assert 0.65 < after.min() <= after.max() < 1.25


def test_matrices_of_a_batch_do_not_see_each_other():
    batch = torch.randn(3, 5, 4, dtype=torch.float64) * torch.tensor([1e-3, 1, 1e3])[:, None, None]
    alone = torch.cat([orthogonalise(matrix[None]) for matrix in batch])
    torch.testing.assert_close(orthogonalise(batch), alone, rtol=0, atol=1e-12)


def test_no_gradient_no_step():
    weight = weight_of(4, 6)
    before = weight.detach().clone()
    optimiser = Muon([group(weight, weight_decay=0.0)], lr=0.1)
    optimiser.step()
    weight.grad = torch.zeros_like(weight)
    optimiser.step()
    assert torch.equal(weight, before)


@pytest.mark.parametrize("shape", [(6, 6), (12, 4), (4, 12)])
def test_a_step_is_pytorchs(shape, monkeypatch):
    """PyTorch's Muon multiplies in bfloat16; here it is kept from that, to compare to the digit."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
    ours, theirs = weight_of(*shape), weight_of(*shape)
    with torch.no_grad():
        theirs.copy_(ours)
    settings = {"lr": 0.03, "weight_decay": 0.2}
    optimisers = [
        Muon([group(ours)], **settings),
        torch.optim.Muon([theirs], **settings, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        ours.grad = torch.randn_like(ours)
        theirs.grad = ours.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(32, 32), (96, 24), (24, 96)])
def test_the_entries_of_a_step_are_as_large_as_adamws(shape):
    weight = weight_of(*shape)
    before = weight.detach().clone()
    weight.grad = torch.randn_like(weight)
    Muon([group(weight)], lr=1.0).step()
    step = weight.detach() - before
    assert 0.68 * 0.2 < step.square().mean().sqrt() < 1.21 * 0.2


@pytest.mark.parametrize("together", [1, 60, 10_000])
def test_what_is_multiplied_together_changes_no_step(together, monkeypatch):
    shapes = [(6, 4), (4, 6), (6, 4), (3, 5), (6, 4)]
    weights = [weight_of(*shape) for shape in shapes]
    alone = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    for weight, copy in zip(weights, alone, strict=True):
        weight.grad = torch.randn_like(weight)
        copy.grad = weight.grad.clone()
    weights.insert(2, weight_of(6, 4))  # without a gradient
    before = weights[2].detach().clone()
    monkeypatch.setattr("vitlib.train.muon.TOGETHER", together)
    Muon([group(*weights)], lr=0.1, weight_decay=0.1).step()
    for copy in alone:
        Muon([group(copy)], lr=0.1, weight_decay=0.1).step()
    assert torch.equal(weights.pop(2), before)
    for weight, copy in zip(weights, alone, strict=True):
        torch.testing.assert_close(weight, copy, rtol=0, atol=1e-12)


def test_a_packed_weight_is_several_matrices():
    packed = weight_of(12, 6)
    parts = [torch.nn.Parameter(part.clone()) for part in packed.detach().chunk(3)]
    together = Muon([group(packed, parts=3)], lr=0.1, weight_decay=0.1)
    apart = Muon([group(*parts)], lr=0.1, weight_decay=0.1)
    for _ in range(2):
        packed.grad = torch.randn_like(packed)
        for part, grad in zip(parts, packed.grad.chunk(3), strict=True):
            part.grad = grad.clone()
        together.step()
        apart.step()
    torch.testing.assert_close(packed.detach(), torch.cat([*parts]).detach(), rtol=0, atol=1e-12)
    whole = torch.nn.Parameter(packed.detach().clone())
    whole.grad = packed.grad
    Muon([group(whole)], lr=0.1).step()
    together.step()
    assert (whole - packed).abs().max() > 1e-3


def test_a_state_goes_on_where_it_was():
    weights = [weight_of(4, 6), weight_of(4, 6)]
    with torch.no_grad():
        weights[1].copy_(weights[0])
    first, second = (Muon([group(weight)], lr=0.1) for weight in weights)
    weights[0].grad = torch.randn_like(weights[0])
    first.step()
    second.load_state_dict(deepcopy(first.state_dict()))
    with torch.no_grad():
        weights[1].copy_(weights[0])
    weights[0].grad = torch.randn_like(weights[0])
    weights[1].grad = weights[0].grad
    first.step()
    second.step()
    assert torch.equal(*weights)


def test_a_closure_computes_gradients_and_its_loss_is_returned():
    weight = weight_of(3, 3)
    before = weight.detach().clone()

    def closure():
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert Muon([group(weight)], lr=0.1).step(closure) == before.square().sum()
    assert not torch.equal(weight, before)


@pytest.mark.parametrize(("shape", "parts"), [((4,), 1), ((2, 3, 4), 1), ((4, 6), 3)])
def test_what_is_no_matrix_is_refused(shape, parts):
    with pytest.raises(ValueError, match=r"^Muon was given a weight of shape .* Give others to"):
        Muon([group(weight_of(*shape), parts=parts)], lr=0.1)
