"""The fast block is the readable one: outputs, gradients, and what PyTorch does around them."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from vitlib import VisionTransformer, ViTConfig, fast
from vitlib.bench.meter import allocations
from vitlib.fast import attention
from vitlib.nn.block import Block, block, block_forward, draw_drops
from vitlib.nn.derived import TWINS
from vitlib.nn.loss import cross_entropy

CONFIG = ViTConfig(
    image_size=8,
    patch_size=2,
    in_channels=2,
    num_classes=3,
    dim=12,
    depth=3,
    heads=3,
    mlp_dim=20,
    gradients="derived",
)
PRODUCT = list(
    itertools.product(
        ["gelu", "gelu_tanh"],
        [True, False],  # a bias of queries, keys and values
        [0.0, 0.5],  # drop path
        [1, 3],  # heads
        # images, tokens, how many of them ask
        [(1, 1, None), (1, 7, None), (4, 1, None), (4, 7, None), (1, 7, 1), (4, 1, 1), (4, 7, 1)],
    )
)
PRECISIONS = [(torch.float64, 1e-10), (torch.float32, 1e-5)]


@pytest.fixture
def runs(monkeypatch):
    """Which forms of the block have run."""
    seen = []
    twin = TWINS[block_forward]

    def noted(function):
        def run(*inputs):
            seen.append("fast")
            return function(*inputs)

        return run

    noted_twin = twin._replace(forward=noted(twin.forward), output=noted(twin.output))
    monkeypatch.setitem(TWINS, block_forward, noted_twin)
    return seen


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


def a_model(dtype=torch.float64, **options):
    model = VisionTransformer(replace(CONFIG, **options))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.to(dtype)


def images(model, count=4):
    return random(count, 2, *model.config.image_shape, dtype=model.head.weight.dtype)


def gradients(inputs, drops, place, activation, heads, queries, cotangent):
    """Output and gradients of a block."""
    leaves = [leaf.clone().requires_grad_() for leaf in inputs]
    x, g1, c1, qkv, b_qkv, proj, b_proj, g2, c2, fc1, b1, fc2, b2 = (
        leaf if leaf.numel() else None for leaf in leaves
    )
    parameters = (g1, c1), ((qkv, b_qkv), (proj, b_proj)), (g2, c2), ((fc1, b1), (fc2, b2))
    y = block(x, parameters, heads, 1e-6, place, activation, None, drops, queries)
    y.backward(cotangent)
    return [y.detach(), *(leaf.grad for leaf in leaves if leaf.numel())]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS, ids=str)
@pytest.mark.parametrize(("activation", "bias", "path", "heads", "sizes"), PRODUCT, ids=str)
def test_outputs_and_gradients_are_the_readable_ones(
    runs, activation, bias, path, heads, sizes, dtype, tolerance
):
    (count, tokens, queries), dim, hidden = sizes, 6, 10
    shapes = [(count, tokens, dim), (dim,), (dim,), (3 * dim, dim), (3 * dim * bias,)]
    shapes += [(dim, dim), (dim,), (dim,), (dim,), (hidden, dim), (hidden,), (dim, hidden), (dim,)]
    inputs = [0.5 * random(*shape, dtype=dtype) for shape in shapes]
    drops = draw_drops(shapes[0], heads, hidden, (0.0, 0.0, path), torch.device("cpu"))
    cotangent = random(count, queries or tokens, dim, dtype=dtype)
    arguments = inputs, drops, "pre", activation, heads, queries, cotangent
    found = gradients(*arguments)
    assert runs == ["fast"]
    with fast.readable():
        expected = gradients(*arguments)
    assert runs == ["fast"]
    largest = max(each.abs().max() for each in expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("options", [{}, {"pool": "mean"}, {"registers": 2}], ids=str)
def test_it_trains_a_model_as_autograd_does(runs, options):
    derived = a_model(**options)
    autograd = VisionTransformer(replace(derived.config, gradients="autograd")).double()
    autograd.load_state_dict(derived.state_dict())
    x, labels = images(derived, 16), torch.arange(16) % 3
    losses = []
    for model in (derived, autograd):
        optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        losses.append([])
        for _ in range(200):
            loss = cross_entropy(model(x), labels)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            losses[-1].append(loss.item())
    assert len(runs) == 200 * CONFIG.depth
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)
    assert losses[0][-1] < 0.7 * losses[0][0]


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "post"},
        {"layer_scale": 0.1},
        {"activation": "relu"},
        {"activation": "swiglu"},
        {"position": "rope2d"},
        {"dropout": 0.3},
        {"attention_dropout": 0.3},
    ],
    ids=str,
)
def test_other_options_are_read_as_they_are_derived(runs, options):
    model = a_model(**options)
    assert not fast.fits(model.config)
    model(images(model)).sum().backward()
    assert not runs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "gelu_tanh"},
        {"pool": "mean"},
        {"drop_path": 0.5},
        {"patch_dropout": 0.5},
        {"position": "sincos2d"},
        {"qkv_bias": False},
        {"registers": 2},
    ],
    ids=str,
)
def test_which_models_fit_is_known_beforehand(runs, options):
    model = a_model(**options)
    assert fast.fits(model.config)
    model(images(model)).sum().backward()
    assert runs == ["fast"] * CONFIG.depth


@pytest.mark.parametrize("options", [{"pool": "mean"}, {"drop_path": 0.5}, {"heads": 1}], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS, ids=str)
def test_long_sequences_attend_tile_by_tile(runs, monkeypatch, options, dtype, tolerance):
    model = a_model(dtype, **options)
    x, results = images(model), []
    for most in (1024, 2):  # one row of weights at most
        monkeypatch.setattr(attention, "AT_ONCE", most)
        torch.manual_seed(0)
        logits = model(x)
        grads = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
        results.append([logits, *grads])
    assert runs == 2 * ["fast"] * CONFIG.depth
    largest = max(each.abs().max() for each in results[0])
    for explicit, tiled in zip(*results, strict=True):
        torch.testing.assert_close(tiled, explicit, rtol=0, atol=tolerance * largest)


def test_tiles_keep_no_square_of_the_tokens(monkeypatch):
    monkeypatch.setattr(attention, "AT_ONCE", 2)
    block = Block(12, 3, 20, gradients="derived")
    x = torch.randn(1, 300, 12, requires_grad=True)
    assert max(allocations(lambda: block(x).sum().backward())) < 4 * 3 * 300**2 / 4


def forward(model):
    return model(images(model)).sum()


@pytest.mark.parametrize("options", [{}, {"qkv_bias": False, "activation": "gelu_tanh"}], ids=str)
def test_without_gradients_the_output_is_the_same(runs, options):
    model = a_model(**options)
    x = images(model)
    expected, before = model(x), x.clone()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    assert torch.equal(x, before)
    assert len(runs) == 3 * CONFIG.depth


def test_it_leaves_alone_what_it_could_not_do(runs):
    model = a_model()
    with fast.readable():
        forward(model)
    with torch.autocast("cpu", torch.bfloat16):
        forward(model.float())
    forward(model.bfloat16())
    model.double()
    model(images(model, 0))
    parameters = dict(model.named_parameters())
    x = images(model)

    def function(parameters, x):
        return torch.func.functional_call(model, parameters, (x,)).sum()

    torch.func.grad(function)(parameters, x)
    torch.func.vmap(torch.func.grad(function), (None, 0))(parameters, x[:, None])
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.ndim > 1)
    forward(model)
    assert not runs


def test_nothing_that_was_given_is_written_over():
    model = a_model()
    module, x = model.blocks[0], random(4, 5, 12)
    weights = [weight.detach().clone() for weight in module.parameters()]
    leaf, cotangent = x.clone().requires_grad_(), random(4, 5, 12)
    before = cotangent.clone()
    y = module(leaf)
    value = y.detach().clone()
    first = torch.autograd.grad(y, [leaf, *module.parameters()], cotangent, retain_graph=True)
    again = torch.autograd.grad(y, [leaf, *module.parameters()], cotangent)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for now, then in [(leaf, x), (cotangent, before), (y, value)]:
        assert torch.equal(now, then)
    for now, then in zip(module.parameters(), weights, strict=True):
        assert torch.equal(now, then)


def test_any_layout_of_input_and_gradient_will_do():
    module = Block(12, 3, 20, gradients="derived").double()
    turned = [random(5, 4, 12).transpose(0, 1), random(4, 12, 5).mT]
    results = []
    for x, cotangent in (turned, [tensor.contiguous() for tensor in turned]):
        leaf = x.detach().requires_grad_()
        results.append(torch.autograd.grad(module(leaf), leaf, cotangent)[0])
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


def test_its_gradient_is_that_of_differences(runs):
    module = Block(6, 2, 5, gradients="derived").double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    leaves = [random(2, 3, 6).requires_grad_(), *module.parameters()]
    names = [name for name, _ in module.named_parameters()]

    def function(x, *weights):
        return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, leaves)
    assert runs


def test_it_composes_with_what_surrounds_a_model(runs):
    model = a_model()
    x = images(model)
    model(x).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]

    def same(run):
        model.zero_grad()
        run().square().sum().backward()
        found = [parameter.grad for parameter in model.parameters()]
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, expected, strict=True))

    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        same(lambda: model(x))
    assert kept
    same(lambda: checkpoint(model, x, use_reentrant=False))
    assert set(runs) == {"fast"}


def test_to_differentiate_twice_is_refused():
    module = Block(12, 3, 20, gradients="derived")
    x = torch.randn(2, 5, 12, requires_grad=True)
    (grad,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        grad.sum().backward()


def test_it_keeps_little_more_than_half_of_what_autograd_keeps():
    def held(gradients):
        config = replace(CONFIG, dim=24, mlp_dim=96, gradients=gradients)
        model, storages = VisionTransformer(config).blocks[1], {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        x = torch.randn(8, 17, 24, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(x)
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        return sum(size for place, size in storages.items() if place not in own)

    assert held("derived") < 0.6 * held("autograd")
