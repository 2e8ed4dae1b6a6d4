"""Exercises of part I, From image to tokens."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, scaled_dot_product_attention, unfold

from vitlib.exercises import Answer, exercise, expect, results


def _numbered(*shape: int) -> Tensor:
    """Every entry another number: two entries that change places are noticed."""
    size = torch.Size(shape)
    return torch.arange(size.numel(), dtype=torch.float64).reshape(size)


def _draw(*shape: int) -> Tensor:
    """The same numbers whenever a tensor of this shape is asked for."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@exercise("patches-overlap")
def _(overlapping_patches: Answer) -> None:
    images = _numbered(2, 3, 8, 12)
    expect(
        overlapping_patches(images, 4, 4),
        unfold(images, 4, stride=4).mT,
        "with stride P, the patches of this chapter",
    )
    expect(
        overlapping_patches(images, 4, 2),
        unfold(images, 4, stride=2).mT,
        "with stride 2, 3 × 5 patches that share pixels with their neighbours",
    )
    expect(
        overlapping_patches(images, 3, 2),
        unfold(images, 3, stride=2).mT,
        "with P = 3 and stride 2, also where pixels are left over at the edge",
    )


@exercise("patches-channels-last")
def _(channels_first: Answer) -> None:
    grey = _numbered(16, 5)
    expect(channels_first(grey, 1, 4), grey, "nothing to do for a single channel")
    for channels, patch_size in [(3, 4), (2, 5)]:
        size = channels * patch_size**2
        # in the order (c, p, q), and what the reader is given, in the order (p, q, c)
        right = _numbered(channels, patch_size, patch_size, 5)
        given = right.movedim(0, 2).reshape(size, 5)
        expect(
            channels_first(given, channels, patch_size),
            right.reshape(size, 5),
            f"the same embeddings for {channels} channels and P = {patch_size}",
        )


@exercise("patches-unpatchify")
def _(unpatchify_by_hand: Answer) -> None:
    for channels, height, width, patch_size, what in [
        (1, 8, 8, 4, "a square image of one channel"),
        (1, 6, 10, 2, "an image that is wider than high"),
        (3, 9, 6, 3, "a colour image that is higher than wide"),
    ]:
        images = _numbered(2, channels, height, width)
        patches = unfold(images, patch_size, stride=patch_size).mT
        expect(
            unpatchify_by_hand(patches, patch_size, (height, width)), images, f"{what} comes back"
        )


@exercise("embedding-normalisation")
def _(fold: Answer) -> None:
    for channels, patch_size in [(1, 4), (3, 2)]:
        kernel, raw = _draw(5, channels, patch_size, patch_size), _draw(2, channels, 8, 12)
        bias, mean, std = _draw(5), _draw(channels), 0.5 + _draw(channels).abs()
        normalised = (raw - mean[:, None, None]) / std[:, None, None]
        new_kernel, new_bias = results(fold(kernel, bias, mean, std), 2)
        where = f"{channels} channel{'s' * (channels > 1)}, P = {patch_size}"
        expect(new_kernel, kernel / std[:, None, None], f"the kernel, {where}")
        assert isinstance(new_kernel, Tensor)
        assert isinstance(new_bias, Tensor), "returns no bias yet."
        expect(
            conv2d(raw, new_kernel, new_bias, stride=patch_size),
            conv2d(normalised, kernel, bias, stride=patch_size),
            f"raw images are embedded as the normalised ones were, {where}",
        )


@exercise("embedding-grey")
def _(grey_kernel: Answer) -> None:
    grey = _draw(2, 1, 8, 12)
    for dim, channels in [(5, 3), (7, 4)]:
        kernel = _draw(dim, channels, 4, 4)
        copied = grey.expand(-1, channels, -1, -1)
        found = grey_kernel(kernel)
        expect(found, kernel.sum(1, keepdim=True), f"a kernel for one channel, made of {channels}")
        assert isinstance(found, Tensor)
        expect(
            conv2d(grey, found, stride=4),
            conv2d(copied, kernel, stride=4),
            f"the embeddings of grey images as of {channels} copies",
        )


@exercise("embedding-invisible")
def _(invisible: Answer) -> None:
    for dim, channels, patch_size in [(4, 1, 4), (26, 3, 3)]:
        kernel = _draw(dim, channels, patch_size, patch_size)
        ink = invisible(kernel)
        where = f"D = {dim}, {channels * patch_size**2} numbers a patch"
        assert isinstance(ink, Tensor), "returns no picture yet."
        expect(ink.square().sum().sqrt(), 1.0, f"a picture of length 1, {where}")
        patch = _draw(channels, patch_size, patch_size)
        expect(
            conv2d((patch + ink)[None], kernel),
            conv2d(patch[None], kernel),
            f"a patch has the same embedding with the picture added, {where}",
        )


@exercise("positions-linear-resize")
def _(linear_matrix: Answer) -> None:
    for old, new in [(4, 4), (3, 7), (14, 24)]:
        sheet = _draw(1, 1, old)
        found = linear_matrix(old, new)
        assert isinstance(found, Tensor), "returns no tensor yet."
        expect(found.sum(-1), torch.ones_like(found[:, 0]), f"rows sum to 1, {old} places to {new}")
        expect(
            (sheet @ found.double().mT)[0, 0],
            interpolate(sheet, size=new, mode="linear")[0, 0],
            f"torch.nn.functional.interpolate, {old} places to {new}",
        )


@exercise("positions-rotary-sequence")
def _(rotary_halves: Answer) -> None:
    for count, dim in [(1, 2), (5, 6), (9, 16)]:
        x = _draw(2, count, dim)
        pairs = torch.complex(*x.chunk(2, dim=-1))
        frequencies = torch.logspace(0, -4, dim // 2 + 1, dtype=torch.float64)[:-1]
        steps = torch.polar(torch.ones_like(frequencies), frequencies)
        turned = torch.stack([pairs[:, t] * steps**t for t in range(count)], dim=1)
        expect(
            rotary_halves(x),
            torch.cat([turned.real, turned.imag], dim=-1),
            f"products of complex numbers, T = {count} and d = {dim}",
        )


@exercise("positions-foreign-table")
def _(foreign_table: Answer) -> None:
    for rows, columns, dim in [(2, 2, 8), (3, 5, 16)]:
        frequencies = torch.logspace(0, -4, dim // 4, dtype=torch.float64)
        places = [(r, s) for r in range(rows) for s in range(columns)]
        expected = [
            torch.cat(
                [wave(frequencies * place) for place in (s, r) for wave in (torch.sin, torch.cos)]
            )
            for r, s in places
        ]
        expect(
            foreign_table(rows, columns, dim),
            torch.stack(expected)[None],
            f"the foreign table of {rows} × {columns} places and D = {dim}",
        )


@exercise("class-token-fold")
def _(fold_class_token: Answer) -> None:
    cls_token, pos_embed = _draw(1, 1, 6), _draw(1, 5, 6)
    patches = _draw(2, 4, 6)
    kept = pos_embed.clone()
    new_token, new_positions = results(fold_class_token(cls_token, pos_embed), 2)
    expect(new_token, torch.zeros(1, 1, 6, dtype=torch.float64), "the class token is zero")
    assert isinstance(new_token, Tensor)
    assert isinstance(new_positions, Tensor), "returns no positions yet."
    expect(
        torch.cat([new_token.expand(2, -1, -1), patches], dim=1) + new_positions,
        torch.cat([cls_token.expand(2, -1, -1), patches], dim=1) + kept,
        "the same tokens as before, class token and patches",
    )
    expect(pos_embed, kept, "the positions that were given are left as they were")


@exercise("class-token-query")
def _(pool_by_query: Answer) -> None:
    x, q = _draw(2, 7, 4), _draw(4)
    expect(
        pool_by_query(x, q),
        scaled_dot_product_attention(q.expand(2, 1, -1), x, x)[:, 0],
        "ordinary attention, one query",
    )
    expect(pool_by_query(x, torch.zeros_like(q)), x.mean(1), "with a query of zeros, the mean")
    expect(
        pool_by_query(x, 1e6 * q),
        x[torch.arange(2), (x @ q).argmax(1)],
        "with a very long query, the token that fits best",
    )


@exercise("class-token-backward")
def _(tokens_backward: Answer) -> None:
    for images, registers, patches in [(3, 0, 4), (2, 3, 5)]:
        c, reg, e = _draw(1, 1, 6), _draw(1, registers, 6), _draw(images, patches, 6)
        variables = [t.requires_grad_() for t in (c, reg, e)]
        shared = [t.expand(images, -1, -1) for t in (c, reg)]
        tokens = torch.cat([*shared, e], dim=1)
        grad_x = _draw(*tokens.shape)
        truth = torch.autograd.grad(tokens, variables, grad_x)
        found = results(tokens_backward(grad_x, registers), 3)
        where = f"{images} images, {registers} registers, {patches} patches"
        for what, grad, right in zip(
            ("class token", "registers", "patches"), found, truth, strict=True
        ):
            expect(grad, right, f"the gradient of the {what}: {where}")


@exercise("patches-overlap-backward")
def _(overlapping_backward: Answer) -> None:
    for size, patch_size, stride, what in [
        ((8, 12), 4, 4, "with stride P, every gradient goes back to its pixel"),
        ((8, 12), 4, 2, "with stride 2 and P = 4, gradients of shared pixels are added"),
        ((9, 6), 3, 2, "with P = 3 and stride 2, pixels left over at the edge get nothing"),
    ]:
        images = _draw(2, 3, *size).requires_grad_()
        patches = unfold(images, patch_size, stride=stride).mT
        grad_patches = _draw(*patches.shape)
        (truth,) = torch.autograd.grad(patches, images, grad_patches)
        expect(overlapping_backward(grad_patches, patch_size, stride, size), truth, what)


@exercise("embedding-kernel-gradient")
def _(kernel_gradient: Answer) -> None:
    for count, channels, size, patch_size, dim in [(1, 1, (8, 8), 4, 4), (3, 2, (6, 9), 3, 5)]:
        images = _draw(count, channels, *size)
        kernel = _draw(dim, channels, patch_size, patch_size).requires_grad_()
        embedded = conv2d(images, kernel, stride=patch_size)
        grad_map = _draw(*embedded.shape)
        (truth,) = torch.autograd.grad(embedded, kernel, grad_map)
        expect(
            kernel_gradient(images, grad_map, patch_size),
            truth,
            f"the gradient of the kernel for {count} image{'s' * (count > 1)}, P = {patch_size}",
        )


@exercise("positions-angle-gradient")
def _(angle_gradient: Answer) -> None:
    for images, heads, count, dim in [(1, 1, 3, 2), (2, 3, 5, 8)]:
        x, grad_y = _draw(2, images, heads, count, dim)
        angles = _draw(count, dim // 2).requires_grad_()
        pairs = torch.complex(x[..., ::2], x[..., 1::2])
        turned = pairs * torch.polar(torch.ones_like(angles), angles)
        y = torch.stack([turned.real, turned.imag], dim=-1).flatten(-2)
        (truth,) = torch.autograd.grad(y, angles, grad_y)
        expect(
            angle_gradient(grad_y, y.detach()),
            truth,
            f"the gradient of the angles: B = {images}, H = {heads}, N = {count}, d = {dim}",
        )


@exercise("class-token-mask")
def _(mask_token_backward: Answer) -> None:
    for images, patches in [(1, 4), (3, 6)]:
        embeddings, grad_x = _draw(2, images, patches, 5)
        embeddings.requires_grad_()
        mask_token = _draw(5).requires_grad_()
        masked = _draw(images, patches) > 0
        tokens = torch.where(masked[..., None], mask_token, embeddings)
        truth = torch.autograd.grad(tokens, (mask_token, embeddings), grad_x)
        found = results(mask_token_backward(grad_x.clone(), masked), 2)
        where = f"{images} image{'s' * (images > 1)} of {patches} patches, {masked.sum()} hidden"
        for what, grad, right in zip(("m", "the embeddings"), found, truth, strict=True):
            expect(grad, right, f"the gradient of {what}: {where}")
