"""A derived function is a citizen of PyTorch: whatever trains a module trains it too."""

import copy
import pickle
from typing import NamedTuple

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from vitlib import VisionTransformer, ViTConfig
from vitlib.nn.derived import derived
from vitlib.nn.layer_norm import layer_norm
from vitlib.nn.linear import linear
from vitlib.nn.loss import cross_entropy
from vitlib.nn.softmax import softmax
from vitlib.nn.vit import vit_backward, vit_forward

pytestmark = pytest.mark.usefixtures("float64")

SIZES = {
    "image_size": (8, 12),
    "patch_size": (4, 6),
    "in_channels": 2,
    "num_classes": 5,
    "dim": 12,
    "depth": 2,
    "heads": 3,
    "mlp_dim": 20,
}
BATCH = 3
RATES = {"dropout": 0.2, "attention_dropout": 0.2, "drop_path": 0.2}


@pytest.fixture
def twins():
    """The same model twice: trained by autograd and by the derivation."""
    autograd = VisionTransformer(ViTConfig(**SIZES)).double()
    for parameter in autograd.parameters():  # no bias stays zero, no gain one
        torch.nn.init.normal_(parameter, std=0.3)
    ours = VisionTransformer(ViTConfig(**SIZES, gradients="derived")).double()
    ours.load_state_dict(autograd.state_dict())
    return autograd, ours


@pytest.fixture
def images():
    return torch.randn(BATCH, 2, 8, 12)


@pytest.fixture
def labels():
    return torch.tensor([4, 0, 2])


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same(found, expected, tolerance=1e-10):
    """Errors are measured against the largest gradient, since some are exactly zero."""
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        error = (found[name] - gradient).abs().max()
        assert error <= tolerance * largest, (name, error)


def train_once(model, images, labels):
    loss = cross_entropy(model(images), labels, gradients=model.config.gradients)
    loss.backward()
    return loss.detach()


# The whole model


def test_model_gradients_are_autograds(twins, images, labels):
    autograd, ours = twins
    losses = [train_once(model, images, labels) for model in twins]
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=1e-12)
    assert_same(gradients(ours), gradients(autograd))


def test_the_pixels_have_gradients_too(twins, images):
    cotangent = torch.randn(BATCH, 5)
    images.requires_grad_()
    theirs, ours = (torch.autograd.grad(model(images), images, cotangent)[0] for model in twins)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * theirs.abs().max().item())


def test_one_node_a_block(twins, images, node_names):
    """The graph has a node for each block and for each of the layers around them."""
    names = node_names(twins[1](images))
    assert sum("Derived" in name for name in names) == 2 + 6  # blocks; 3 layers before, 3 after


@pytest.mark.parametrize("mode", ["autograd", "derived"])
@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize(("norm", "position"), [("pre", "learned"), ("post", "rope2d")])
def test_the_whole_graph_is_of_one_mode(images, assert_mode, mode, pool, norm, position):
    options = {"pool": pool, "norm": norm, "position": position, "registers": 1, "head": "mlp"}
    options |= {"patch_dropout": 0.5, **RATES}
    model = VisionTransformer(ViTConfig(**SIZES, **options, gradients=mode))
    assert_mode(model(images), mode)


def test_the_whole_network_as_one_function(twins, images, labels):
    """The pair of the whole network takes its parameters as a dictionary."""
    autograd, _ = twins
    network = derived(vit_forward, vit_backward)
    parameters = {name: p.detach().clone() for name, p in autograd.named_parameters()}
    for parameter in parameters.values():
        parameter.requires_grad_()
    functional.cross_entropy(network(images, parameters, autograd.config), labels).backward()
    train_once(autograd, images, labels)
    found = {name: parameter.grad for name, parameter in parameters.items()}
    assert_same(found, gradients(autograd))


def test_gradients_accumulate(twins, images, labels):
    autograd, ours = twins
    for batch in (images, 2 * images):
        train_once(autograd, batch, labels)
        train_once(ours, batch, labels)
    assert_same(gradients(ours), gradients(autograd))


def test_non_contiguous_images(twins, images, labels):
    autograd, ours = twins
    for model in twins:
        train_once(model, images.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1), labels)
    assert_same(gradients(ours), gradients(autograd))


def test_an_empty_batch_gives_zeros(twins, images):
    _, ours = twins
    logits = ours(images[:0])
    assert logits.shape == (0, 5)
    logits.sum().backward()
    assert all((gradient == 0).all() for gradient in gradients(ours).values())


# What surrounds a model in training


def test_functional_call_and_grad(twins, images, labels):
    def loss(parameters, model):
        logits = torch.func.functional_call(model, parameters, (images,))
        return cross_entropy(logits, labels, gradients=model.config.gradients)

    theirs, ours = (
        torch.func.grad(loss)({name: p.detach() for name, p in model.named_parameters()}, model)
        for model in twins
    )
    assert_same(ours, theirs)


def test_gradients_of_each_image_by_vmap(twins, images, labels):
    autograd, ours = twins

    def loss(parameters, image, label):
        logits = torch.func.functional_call(ours, parameters, (image[None],))
        return functional.cross_entropy(logits, label[None])

    parameters = {name: p.detach() for name, p in ours.named_parameters()}
    of_each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    found = of_each(parameters, images, labels)
    for i in range(BATCH):
        autograd.zero_grad()
        train_once(autograd, images[i : i + 1], labels[i : i + 1])
        assert_same({name: grads[i] for name, grads in found.items()}, gradients(autograd))


def test_module_hooks_see_every_block(twins, images, labels):
    seen = {}
    for which, model in zip(("autograd", "derived"), twins, strict=True):
        for i, block in enumerate(model.blocks):
            block.register_full_backward_hook(
                lambda _, grad_in, grad_out, key=(which, i): seen.update({key: (grad_in, grad_out)})
            )
        train_once(model, images, labels)
    for i in range(2):
        for ours, theirs in zip(seen["derived", i], seen["autograd", i], strict=True):
            torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-12)


def test_a_hook_on_a_tensor_changes_what_flows_on(twins, images, labels):
    autograd, ours = twins
    for model in twins:
        tokens = model.tokens(images)
        tokens.register_hook(lambda grad: 2 * grad)
        functional.cross_entropy(model.head(tokens[:, 0]), labels).backward()
    assert_same(gradients(ours), gradients(autograd))


def test_retain_graph_allows_a_second_pass(twins, images, labels):
    _, ours = twins
    loss = cross_entropy(ours(images), labels, gradients="derived")
    once = torch.autograd.grad(loss, list(ours.parameters()), retain_graph=True)
    again = torch.autograd.grad(loss, list(ours.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, list(ours.parameters()))


def test_everything_saved_passes_the_saved_tensor_hooks(twins, images, labels):
    autograd, ours = twins
    packed, unpacked = [], []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: packed.append(tensor) or tensor.clone(),
        lambda tensor: unpacked.append(tensor) or tensor,
    ):
        train_once(ours, images, labels)
    train_once(autograd, images, labels)
    assert len(packed) == len(unpacked) > 40
    assert_same(gradients(ours), gradients(autograd))


def test_activation_checkpointing(twins, images, labels):
    autograd, ours = twins
    x = ours.patch_embed(images)
    x = torch.cat([ours.cls_token.expand(BATCH, -1, -1), x], dim=1) + ours.pos_embed
    for block in ours.blocks:
        x = checkpoint(block, x, use_reentrant=False)
    functional.cross_entropy(ours.head(ours.norm(x)[:, 0]), labels).backward()
    train_once(autograd, images, labels)
    assert_same(gradients(ours), gradients(autograd))


def test_bfloat16_autocast_is_as_exact_as_autograds(twins, images, labels):
    autograd = twins[0]
    train_once(autograd, images, labels)
    truth = {name: p.grad.clone() for name, p in autograd.named_parameters()}
    errors = []
    for model in twins:
        model.float().zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = cross_entropy(model(images.float()), labels, gradients=model.config.gradients)
        loss.backward()
        found = gradients(model)
        errors.append(sum((found[name] - truth[name]).square().sum() for name in truth))
        assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    size = sum(gradient.square().sum() for gradient in truth.values())
    assert errors[1] <= 1.1 * errors[0]
    assert 1e-8 < errors[1] / size < 1e-3  # bfloat16 was used, and is not bad


def test_backward_narrows_what_forward_narrowed():
    """Backward runs outside the autocast region; its products are bfloat16 all the same."""
    products = []

    def forward(x, weight):
        return x @ weight, (x, weight)

    def backward(grad_y, saved):
        x, weight = saved
        products.append(grad_y @ weight.mT)
        return products[-1], x.mT @ grad_y

    x, weight = torch.randn(2, 4, 4, dtype=torch.float32).unbind()
    x, weight = x.requires_grad_(), weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = derived(forward, backward)(x, weight)
    y.sum().backward()
    assert y.dtype == products[0].dtype == torch.bfloat16
    assert x.grad.dtype == weight.grad.dtype == torch.float32


def test_a_disabled_grad_scaler_is_harmless(twins, images, labels):
    _, ours = twins
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    optimiser = torch.optim.SGD(ours.parameters(), lr=0.1)
    before = ours.head.weight.detach().clone()
    scaler.scale(cross_entropy(ours(images), labels, gradients="derived")).backward()
    scaler.step(optimiser)
    scaler.update()
    assert not torch.equal(before, ours.head.weight)


def test_a_grad_scaler_scales_the_gradients(twins, images, labels):
    autograd, ours = twins
    for model in twins:
        model.float()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(cross_entropy(ours(images.float()), labels, gradients="derived")).backward()
    scaler.unscale_(torch.optim.SGD(ours.parameters(), lr=0.1))
    train_once(autograd, images.float(), labels)
    assert_same(gradients(ours), gradients(autograd), tolerance=1e-5)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compilation_around_it(twins, images, labels, backend):
    autograd, ours = twins
    torch.compiler.reset()
    compiled = torch.compile(ours, backend=backend)
    cross_entropy(compiled(images), labels, gradients="derived").backward()
    train_once(autograd, images, labels)
    assert_same(gradients(ours), gradients(autograd))


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_compiler_leaves_derivations_alone(twins, images):
    """It breaks its graph at each and compiles nothing inside, in version after version."""
    compiled = []
    torch.compiler.reset()
    torch.compile(twins[1], backend=lambda graph, _: compiled.append(graph) or graph)(images)
    targets = [str(node.target) for graph in compiled for node in graph.graph.nodes]
    assert not any("matmul" in target or "exp" in target for target in targets)


def test_models_can_be_copied_and_pickled(twins, images):
    _, ours = twins
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other(images), ours(images))


@pytest.mark.parametrize("mode", ["autograd", "derived"])
def test_shapes_pass_through_the_meta_device(images, mode):
    model = VisionTransformer(ViTConfig(**SIZES, **RATES, gradients=mode)).to("meta")
    logits = model(images.to("meta"))
    logits.sum().backward()
    assert logits.shape == (BATCH, 5)
    assert all(p.grad.shape == p.shape for p in model.parameters())


# The adapter itself


class Pair(NamedTuple):
    a: torch.Tensor
    b: torch.Tensor | None


def test_inputs_and_saved_may_nest_tuples_and_dictionaries():
    def forward(x, nest, power):
        y = x * nest["pair"].a ** power + nest["shift"]
        return y, {"x": x, "gain": Pair(nest["pair"].a, None), "power": power}

    def backward(grad_y, saved):
        x, gain, power = saved["x"], saved["gain"].a, saved["power"]
        grad_gain = grad_y * x * power * gain ** (power - 1)
        grads = {"shift": grad_y, "pair": (grad_gain, None)}  # in another order than the input
        return grad_y * gain**power, grads

    x, gain, shift = torch.randn(3, 5).unbind()
    inputs = [tensor.clone().requires_grad_() for tensor in (x, gain, shift)]

    def function(x, gain, shift):
        return derived(forward, backward)(x, {"pair": Pair(gain, None), "shift": shift}, 3)

    assert torch.autograd.gradcheck(function, inputs)


def test_a_branch_of_the_inputs_may_have_no_gradients_at_all():
    """Or only some, be they trained or not."""
    nest = {"deep": {"weight": torch.randn(3), "bias": (torch.randn(3), torch.randn(3))}}
    add = derived(
        lambda x, nest: (x + nest["deep"]["weight"], None),
        lambda grad_y, saved: (grad_y, {"deep": None}),
    )
    x = torch.randn(3, requires_grad=True)
    add(x, nest).sum().backward()
    assert torch.equal(x.grad, torch.ones(3))


def test_a_function_is_called_what_its_forward_is_called_without_the_ending():
    def double_forward(x):
        return 2 * x, None

    double = derived(double_forward, lambda grad_y, saved: 2 * grad_y)
    with pytest.raises(TypeError, match=r"^double was given"):
        double(torch.ones(3, dtype=torch.int64))


def test_a_backward_that_asks_is_told_what_is_needed():
    asked = []

    def backward(grad_y, saved, needed):
        asked.append(needed)
        return grad_y, None

    x, frozen = torch.randn(3, requires_grad=True), torch.randn(3)
    derived(lambda x, shift: (x + shift, None), backward)(x, frozen).sum().backward()
    assert asked == [(True, False)]


def test_inputs_are_saved_as_themselves():
    kept = []

    def backward(grad_y, saved):
        kept.extend(saved)
        return grad_y

    x = torch.randn(3, requires_grad=True)
    derived(lambda x: (2 * x, (x, x)), backward)(x).sum().backward()
    assert kept[0].data_ptr() == kept[1].data_ptr() == x.data_ptr()


def test_changing_what_was_saved_is_noticed():
    x = torch.randn(3, 4, requires_grad=True)
    weight = torch.randn(5, 4, requires_grad=True)
    y = linear(x, weight, None)
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_frozen_inputs_get_nothing():
    x = torch.randn(2, 3, 4)
    weight, bias = torch.randn(4, requires_grad=True), torch.randn(4)
    layer_norm(x, weight, bias).square().sum().backward()
    assert weight.grad is not None
    assert x.grad is None
    assert bias.grad is None
    y = linear(x, weight[None], None)
    assert [grad is not None for grad in y.grad_fn.apply(torch.ones_like(y))] == [
        False,
        False,
        True,
    ]
    add = derived(lambda x, shift: (x + shift, None), lambda grad_y, saved: (grad_y, grad_y))
    y = add(weight, bias)
    call, *grads = y.grad_fn.apply(torch.ones_like(y))
    assert call is None
    assert [grad is not None for grad in grads] == [True, False]


def test_no_zeros_are_made_for_what_has_no_gradient():
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.add(func.overloadpacket)
            return func(*args, **(kwargs or {}))

    called = set()
    x = torch.randn(3, 4, requires_grad=True)
    loss = layer_norm(x, torch.ones(4), torch.zeros(4)).square().sum()
    with Watch():
        loss.backward()
    assert torch.ops.aten.mul in called
    assert called.isdisjoint({torch.ops.aten.zeros, torch.ops.aten.zeros_like})


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_nothing_is_kept_when_nobody_differentiates(mode):
    x = torch.randn(3, 4, requires_grad=True)
    with mode(), torch.autograd.graph.saved_tensors_hooks(pytest.fail, pytest.fail):
        y = softmax(x)
    assert y.grad_fn is None
    assert not y.requires_grad


def test_a_branch_that_nobody_uses_is_no_error():
    x = torch.randn(3, 4, requires_grad=True)
    softmax(x)
    (gradient,) = torch.autograd.grad(x.sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


REFUSAL = 'cannot be differentiated again: .*gradients="autograd"'


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(softmax, id="output-saved"),
        pytest.param(lambda x: layer_norm(x, torch.ones(4), torch.zeros(4)), id="extras-saved"),
        pytest.param(lambda x: linear(x, torch.ones(4, 4), None).square(), id="linear"),
    ],
)
def test_second_derivatives_are_refused_and_never_wrong(function):
    x = torch.randn(3, 4, requires_grad=True)
    loss = (function(x) * torch.arange(4.0)).sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match=REFUSAL) as refusal:
        gradient.square().sum().backward()
    assert "\n" not in str(refusal.value)


def test_second_derivatives_are_refused_under_torch_func():
    def loss(x):
        return (softmax(x) * torch.arange(4.0)).sum()

    with pytest.raises(RuntimeError, match=REFUSAL):
        torch.func.grad(lambda x: torch.func.grad(loss)(x).square().sum())(torch.randn(3, 4))


def test_second_derivatives_of_a_model_are_refused(twins, images, labels):
    _, ours = twins
    loss = cross_entropy(ours(images), labels, gradients="derived")
    (gradient,) = torch.autograd.grad(loss, ours.head.weight, create_graph=True)
    with pytest.raises(RuntimeError, match=REFUSAL):
        gradient.square().sum().backward()
