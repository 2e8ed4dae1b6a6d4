"""The fast products are those of the readable linear layer, whoever multiplies."""

import itertools

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from vitlib import VisionTransformer, ViTConfig
from vitlib.bench.ideas import without_onednn
from vitlib.fast.linear import add_linear, by_onednn, linear, linear_backward, weight_gradients
from vitlib.nn import linear as readable

PRODUCT = list(
    itertools.product(
        [(torch.float64, 1e-12), (torch.float32, 1e-5)],
        [True, False],  # a bias
        [True, False],  # oneDNN
        [(1, 1, 1), (1, 6, 10), (7, 6, 10), (130, 48, 33)],  # rows, widths
        [True, False],  # rows one after the other in memory
    )
)


class Names(TorchDispatchMode):
    """The names of the operations that run."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A processor for which oneDNN is taken; its products run on any."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert torch.backends.mkldnn.enabled
    yield
    assert torch.backends.mkldnn.enabled


@pytest.mark.parametrize(("precision", "bias", "onednn", "sizes", "in_order"), PRODUCT, ids=str)
def test_products_are_the_readable_ones(precision, bias, onednn, sizes, in_order):
    (dtype, tolerance), (rows, d_in, d_out) = precision, sizes

    def random(*shape):
        x = torch.randn(*shape, dtype=dtype)
        return x if in_order else x.mT.contiguous().mT

    x, s, grad_y = random(rows, d_in), random(rows, d_out), random(rows, d_out)
    weight = torch.randn(d_out, d_in, dtype=dtype)
    layer = weight, torch.randn(d_out, dtype=dtype) if bias else None
    given = [x.clone(), s.clone(), grad_y.clone()]
    y, saved = readable.linear_forward(x, *layer)
    grads = readable.linear_backward(grad_y, saved)

    def found():
        yield linear(x, layer), y
        for kind in ("none", "tanh"):
            yield linear(x, layer, kind), functional.gelu(y, approximate=kind)
        yield add_linear(s, x, layer), s + y
        yield linear_backward(grad_y, weight), grads[0]
        yield from zip(weight_gradients(grad_y, x, layer), grads[1:], strict=True)

    with torch.inference_mode(), Names() as names:
        if onednn:
            pairs = list(found())
        else:
            with without_onednn():
                pairs = list(found())
    for own, expected in pairs:
        if expected is None:
            assert own is None
        else:
            largest = max(expected.abs().max().item(), 1)
            torch.testing.assert_close(own, expected, rtol=0, atol=tolerance * largest)
    assert all(torch.equal(*pair) for pair in zip((x, s, grad_y), given, strict=True))
    uses = any("mkldnn" in name for name in names.seen)
    assert uses == (onednn and dtype == torch.float32)


def test_onednn_multiplies_where_it_is_faster(monkeypatch):
    assert by_onednn(torch.zeros(1))
    assert not by_onednn(torch.zeros(1).double())
    with without_onednn():
        assert not by_onednn(torch.zeros(1))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not by_onednn(torch.zeros(1))


def test_an_exported_program_runs_where_there_is_no_onednn():
    model = VisionTransformer(
        ViTConfig(
            image_size=8, patch_size=4, in_channels=1, num_classes=3, dim=8, depth=2, heads=2,
            mlp_dim=12, gradients="derived",
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        program = torch.export.export(model, (torch.rand(2, 1, 8, 8),))
    targets = {str(node.target) for node in program.graph.nodes}
    assert any("linear" in target for target in targets)
    assert not any("mkldnn" in target for target in targets)
