"""Exercises of part II, Attention."""

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, softmax

from vitlib.exercises import Answer, exercise, expect, results


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
    new_weight, new_bias = results(repack(weight, bias, heads), 2)
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
        q, k = results(pointing(targets), 2)
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


@exercise("efficient-merge")
def _(merge: Answer) -> None:
    q, k, v = _draw((5, 3), (11, 3), (11, 3))
    for factor, what in {1: "", 1e4: ", for scores in the ten thousands too"}.items():
        scores = factor * q @ k.mT
        halves = [
            part
            for piece in (slice(4), slice(4, None))
            for part in (
                softmax(scores[:, piece], dim=-1) @ v[piece],
                scores[:, piece].logsumexp(-1, keepdim=True),
            )
        ]
        o, log_sum = results(merge(*halves), 2)
        expect(o, softmax(scores, dim=-1) @ v, f"the output over all keys{what}")
        expect(
            log_sum, scores.logsumexp(-1, keepdim=True), f"the log-sum-exp of the whole row{what}"
        )


@exercise("efficient-tile")
def _(tile_gradient: Answer) -> None:
    q, k, v, grad = _draw((6, 3), (9, 3), (9, 3), (6, 3))
    scores = (q @ k.mT / 3**0.5).requires_grad_()
    o = softmax(scores, dim=-1) @ v
    (truth,) = torch.autograd.grad(o, scores, grad)
    log_sum = scores.detach().logsumexp(-1, keepdim=True)
    for rows, columns, what in [
        (slice(6), slice(9), "equal to autograd where the tile is the whole matrix"),
        (slice(2, 6), slice(2), "and where it is two of nine keys"),
    ]:
        expect(
            tile_gradient(
                q[rows], k[columns], v[columns], o.detach()[rows], log_sum[rows], grad[rows]
            ),
            truth[rows, columns],
            what,
        )


@exercise("efficient-budget")
def _(largest_tile: Answer) -> None:
    for tile, width in [(1, 1), (64, 64), (256, 64), (1000, 80)]:
        needed = tile**2 + (4 * width + 2) * tile
        expect(largest_tile(needed, width), float(tile), f"tiles of {tile} where they fit exactly")
        expect(largest_tile(needed - 1, width), float(tile - 1), "one fewer with one number less")


@exercise("heads-shared-keys")
def _(shared_backward: Answer) -> None:
    q, k, v, grad_o = _draw((2, 3, 5, 4), (2, 5, 4), (2, 5, 4), (2, 3, 5, 4))
    leaves = [array.requires_grad_() for array in (q, k, v)]
    o = scaled_dot_product_attention(q, k[:, None].expand_as(q), v[:, None].expand_as(q))
    truth = torch.autograd.grad(o, leaves, grad_o)
    detached = [array.detach() for array in leaves]
    found = results(shared_backward(grad_o, *detached), 3)
    for name, gradient, right in zip(("queries", "keys", "values"), found, truth, strict=True):
        expect(gradient, right, f"the gradient of the {name} is equal to autograd")
