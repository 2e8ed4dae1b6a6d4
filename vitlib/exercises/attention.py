"""Exercises of part II, Attention."""

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, softmax

from vitlib.exercises import Answer, exercise, expect


def _draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@exercise("attention-temperature")
def _(attention_at: Answer) -> None:
    q, k, v = _draw((5, 3), (5, 3), (5, 3))
    expect(
        attention_at(1.0, q, k, v),
        scaled_dot_product_attention(q, k, v),
        "temperature 1 is ordinary attention",
    )
    expect(
        attention_at(0.5, q, k, v),
        scaled_dot_product_attention(2 * q, k, v),
        "half the temperature is twice the scores",
    )
    expect(
        attention_at(1e9, q, k, v),
        v.mean(0).expand(5, -1),
        "great heat averages all values",
        atol=1e-6,
    )
    expect(
        attention_at(1e-4, q, k, v),
        v[(q @ k.mT).argmax(-1)],
        "near zero the best key takes all, without overflow",
    )


@exercise("attention-one-query")
def _(class_token_attention: Answer) -> None:
    q, k, v = _draw((7, 4), (7, 4), (7, 4))
    expect(
        class_token_attention(q, k, v),
        scaled_dot_product_attention(q, k, v)[:1],
        "the output of token 0",
    )
    rest = torch.full_like(q, torch.nan)
    rest[0] = q[0]
    expect(
        class_token_attention(rest, k, v),
        scaled_dot_product_attention(q, k, v)[:1],
        "the other queries are not read",
    )
    long = torch.ones(200_000, 1, dtype=torch.float64)
    expect(
        class_token_attention(long, long, long),
        torch.ones(1, 1, dtype=torch.float64),
        "200,000 tokens are no trouble: no T by T matrix is built",
    )


@exercise("softmax-backward")
def _(softmax_backward: Answer) -> None:
    scores, grad = _draw((2, 4, 6), (2, 4, 6))
    scores.requires_grad_()
    weights = softmax(scores, dim=-1)
    (truth,) = torch.autograd.grad(weights, scores, grad)
    expect(softmax_backward(grad, weights.detach()), truth, "equal to autograd for shape (2, 4, 6)")
    expect(
        softmax_backward(torch.ones(2, 4, 6, dtype=torch.float64), weights.detach()),
        torch.zeros(2, 4, 6, dtype=torch.float64),
        "zero under a cotangent of ones",
    )
    row = torch.full((1, 1_000_000), 1e-6, dtype=torch.float64)
    slope = torch.linspace(-1, 1, 1_000_000, dtype=torch.float64)[None]
    expect(
        softmax_backward(slope, row),
        row * slope,
        "a row of a million: no Jacobian is built",
    )


@exercise("temperature-gradient")
def _(temperature_gradient: Answer) -> None:
    q, k, v, grad = _draw((5, 3), (5, 3), (5, 3), (5, 3))
    tau = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    scores = q @ k.mT / tau
    scores.retain_grad()
    (softmax(scores, dim=-1) @ v * grad).sum().backward()
    assert scores.grad is not None
    assert tau.grad is not None
    expect(
        temperature_gradient(scores.grad, scores.detach(), 1.7),
        tau.grad,
        "the slope of the loss over the temperature, as autograd has it",
    )


@exercise("heads-contributions")
def _(contributions: Answer) -> None:
    o, weight = _draw((2, 3, 5, 4), (12, 12))
    alone = torch.zeros(2, 3, 3, 5, 4, dtype=torch.float64)  # (B, who speaks, H, T, d)
    alone[:, range(3), range(3)] = o
    joined = alone.transpose(2, 3).flatten(3)
    expect(
        contributions(o, weight),
        linear(joined, weight),
        "what each head writes is the output, bias apart, when the others are silent",
    )
    expect(
        contributions(o, weight).sum(1),
        linear(joined.sum(1), weight),
        "and together they are the output",
    )


@exercise("heads-repack")
def _(repack: Answer) -> None:
    heads, width = 2, 6  # not three heads: the way back would then be the way
    x, weight, bias = _draw((5, 12), (12, 36), (36,))
    foreign = (x @ weight + bias).view(5, heads, 3, width).transpose(1, 2).flatten(1)
    new_weight, new_bias = repack(weight, bias, heads) or (None, None)
    packed = None if new_weight is None or new_bias is None else x @ new_weight + new_bias
    expect(packed, foreign, "each head has the queries, keys and values that it had")
    expect(
        new_bias, bias.view(heads, 3, width).transpose(0, 1).flatten(), "the bias has moved as well"
    )


@exercise("heads-look-up")
def _(pointing: Answer) -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (5, 16, 50):
        targets = torch.randint(count, (count,), generator=generator)
        q, k = pointing(targets) or (None, None)
        for name, array in {"queries": q, "keys": k}.items():
            shape = torch.Size((count, 2))
            if isinstance(array, Tensor) and array.shape != shape:
                raise AssertionError(f"the {name} have shape {tuple(array.shape)}, not {shape}.")
        weights = None if q is None or k is None else softmax(q @ k.mT / 2**0.5, dim=-1)
        expect(
            None if weights is None else weights[range(count), targets],
            torch.ones(count, dtype=torch.float64),
            f"each of {count} tokens puts 99 % on its target",
            atol=0.01,
        )
