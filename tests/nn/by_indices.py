"""The gradients of every layer a second time: derived in index notation from the forward formulas.

Derived independently of vitlib.nn, which argues with matrices and differentials. Here every forward
pass is a formula for one entry, every gradient the sum of the cotangent G over the entries of the
output, ``dx_a = Σ_c G_c ∂y_c/∂x_a``, and every derivative of one entry by another a Kronecker delta
δ or a product of such deltas with numbers; the code is the sum that is left, as an einsum or as
a look-up of entries. Nothing is fast, some Jacobians are written out whole: it is meant to be read
beside the formulas, and to disagree with vitlib.nn if either derivation is wrong.

Indices: b images, t and u tokens, i and j entries of a vector, o outputs, h heads. Masks of dropout
arrive as ``keep``, the factor M / (1 − ρ) of every entry, or None for no dropout. A function
``*_values`` is a forward formula that a gradient of a larger layer needs again.
"""

import math

import torch


def _times(x, keep):
    """The entries of x times their dropout factor, None meaning one."""
    return x if keep is None else x * keep


# ------------------------------------------------------------------------------------------ linear


def linear_values(x, weight, bias=None):
    """y_{bto} = Σ_i x_{bti} w_{oi} + c_o, for any axes in place of bt."""
    y = torch.einsum("...i,oi->...o", x, weight)
    return y if bias is None else y + bias


def linear_grads(x, weight, grad_y):
    """Gradients of x, w and c in y_{bto} = Σ_i x_{bti} w_{oi} + c_o.

    ∂y_{bto}/∂x_{b't'i'} = δ_{bb'} δ_{tt'} w_{oi'}: of Σ_{bto} G_{bto} only o is left to sum,
    dx_{bti} = Σ_o G_{bto} w_{oi}. ∂y_{bto}/∂w_{o'i'} = δ_{oo'} x_{bti'} has no delta in b and t:
    dw_{oi} = Σ_{bt} G_{bto} x_{bti}. ∂y_{bto}/∂c_{o'} = δ_{oo'}: dc_o = Σ_{bt} G_{bto}.
    """
    rows, grads = x.reshape(-1, x.shape[-1]), grad_y.reshape(-1, grad_y.shape[-1])
    grad_x = torch.einsum("...o,oi->...i", grad_y, weight)
    grad_weight = torch.einsum("no,ni->oi", grads, rows)
    grad_bias = torch.einsum("no->o", grads)
    return grad_x, grad_weight, grad_bias


# ------------------------------------------------------------------------------------------ tokens


def _pixel_of_entry(channels, height, width, size):
    """For every patch n and every entry m of it the pixel (channel, row, column) it shows.

    With S patches in a row of patches, n = r S + s and m = (c P + p) Q + q show the pixel
    (c, r P + p, s Q + q); each of the three comes back as a table (N, C·P·Q).
    """
    P, Q = size
    n = torch.arange((height // P) * (width // Q))[:, None]
    m = torch.arange(channels * P * Q)[None, :]
    r, s = n // (width // Q), n % (width // Q)
    c, p, q = m // (P * Q), m // Q % P, m % Q
    return c.expand(n.numel(), -1), r * P + p, s * Q + q


def patches_values(images, size):
    """y_{bnm} = image_{b c (rP+p) (sQ+q)} with n = r S + s and m = (c P + p) Q + q."""
    c, row, column = _pixel_of_entry(*images.shape[1:], size)
    return images[:, c, row, column]


def patches_grads(grad_y, shape, size):
    """Gradient of images (B, C, h, w) cut into patches y_{bnm} = image_{b c (rP+p) (sQ+q)}.

    ∂y_{bnm}/∂image_{b'c'ij} = δ_{bb'} δ_{cc'} δ_{rP+p,i} δ_{sQ+q,j}. Division with remainder has
    one answer, so rP + p = i leaves r = i // P and p = i % P alone, and j does the same: the sum
    over n and m keeps one term, dimage_{bcij} = G_{bnm} with n = (i//P) S + j//Q and
    m = (c P + i%P) Q + j%Q.
    """
    _, channels, height, width = shape
    P, Q = size
    c = torch.arange(channels)[:, None, None]
    i = torch.arange(height)[None, :, None]
    j = torch.arange(width)[None, None, :]
    n = (i // P * (width // Q) + j // Q).expand(channels, -1, -1)
    return grad_y[:, n, (c * P + i % P) * Q + j % Q]


def patch_embedding_grads(images, weight, grad_y):
    """Gradients of images, w and c in y_{bno} = Σ_{cpq} image_{b c (rP+p) (sQ+q)} w_{ocpq} + c_o.

    With the entries cpq counted by one index m this is the linear layer over the patches x_{bnm}:
    dw_{ocpq} = Σ_{bn} G_{bno} x_{bnm}, dc_o = Σ_{bn} G_{bno}, and dx_{bnm} = Σ_o G_{bno} w_{om}
    goes back to the one pixel that x_{bnm} shows.
    """
    size = tuple(weight.shape[-2:])
    flat = weight.reshape(len(weight), -1)
    grad_x, grad_flat, grad_bias = linear_grads(patches_values(images, size), flat, grad_y)
    return patches_grads(grad_x, images.shape, size), grad_flat.reshape(weight.shape), grad_bias


def positions_grads(grad_y):
    """Gradients of x and e in y_{btj} = x_{btj} + e_{tj}.

    ∂y_{btj}/∂x_{b't'j'} = δ_{bb'} δ_{tt'} δ_{jj'}: dx = G. ∂y_{btj}/∂e_{t'j'} = δ_{tt'} δ_{jj'} has
    no delta in b: de_{tj} = Σ_b G_{btj}.
    """
    return grad_y, torch.einsum("btj->tj", grad_y)


def class_token_grads(grad_y):
    """Gradients of x and a in y_{btj} = δ_{t0} a_j + [t ≥ 1] x_{b,t−1,j}.

    ∂y_{btj}/∂a_{j'} = δ_{t0} δ_{jj'}: da_j = Σ_b G_{b0j}. ∂y_{btj}/∂x_{b't'j'} = δ_{bb'} δ_{t,t'+1}
    δ_{jj'}: dx_{btj} = G_{b,t+1,j}.
    """
    t = torch.arange(grad_y.shape[1] - 1)
    return grad_y[:, t + 1], torch.einsum("bj->j", grad_y[:, 0])


def registers_grads(grad_y, count, before):
    """Gradients of x and the R = count registers e put behind the first s = before tokens of x.

    y_{btj} is x_{btj} for t < s, e_{t−s,j} for s ≤ t < s + R and x_{b,t−R,j} from there on. Token
    t of x therefore stands at t + R [t ≥ s]: dx_{btj} = G_{b,t+R[t≥s],j}. Register r stands at
    s + r in every image: de_{rj} = Σ_b G_{b,s+r,j}.
    """
    t = torch.arange(grad_y.shape[1] - count)
    r = torch.arange(count)
    return grad_y[:, t + count * (t >= before)], torch.einsum("brj->rj", grad_y[:, before + r])


def _selection(places, tokens, prefix):
    """R_{btu} = [u = r_{bt}], r_{bt} = t for t < s, the prefix, and s + k_{b,t−s} from there on."""
    front = torch.arange(prefix).repeat(len(places), 1)
    return (torch.cat([front, prefix + places], 1)[..., None] == torch.arange(tokens)).double()


def patch_dropout_values(x, places, prefix):
    """y_{btj} = Σ_u R_{btu} x_{buj}: what stands in front, then the patches k_{bn} = places."""
    return torch.einsum("btu,buj->btj", _selection(places, x.shape[1], prefix), x)


def patch_dropout_grads(places, tokens, prefix, grad_y):
    """Gradient of x in y_{btj} = Σ_u R_{btu} x_{buj}.

    ∂y_{btj}/∂x_{b'u'j'} = δ_{bb'} δ_{jj'} R_{btu'}: dx_{buj} = Σ_t R_{btu} G_{btj}. The places of
    an image differ, so one t at most is left of the sum: dx_{buj} is the G of the token that came
    from u, and 0 where none did.
    """
    return torch.einsum("btu,btj->buj", _selection(places, tokens, prefix), grad_y)


def tokens_values(images, params, keep=None, places=None):
    """y = κ [a; e'; patches w + c, with e added to a and to the patches before e' comes in].

    params = (w, c, a, e, e'): weight and bias of the patches, class token, positions, registers;
    each of the last three may be None. Of the patches only those at the places, if given, are left
    when e' comes in.
    """
    weight, bias, first, positions, registers = params
    flat = weight.reshape(len(weight), -1)
    x = linear_values(patches_values(images, tuple(weight.shape[-2:])), flat, bias)
    images_alike = torch.ones(len(images), dtype=x.dtype)
    if first is not None:
        x = torch.cat([torch.einsum("b,j->bj", images_alike, first)[:, None], x], 1)
    if positions is not None:
        x = x + positions
    s = 0 if first is None else 1
    if places is not None:
        x = patch_dropout_values(x, places, s)
    if registers is not None:
        x = torch.cat([x[:, :s], torch.einsum("b,rj->brj", images_alike, registers), x[:, s:]], 1)
    return _times(x, keep)


def tokens_grads(images, params, grad_y, keep=None, places=None):
    """Gradients of the images and of params = (w, c, a, e, e') in ``tokens_values``.

    A composition, walked back from the last step to the first: κ, registers, patches that are left
    out, positions, class token, patches. A parameter that is None has the gradient None.
    """
    weight, _, first, positions, registers = params
    grad, grad_first, grad_positions, grad_registers = _times(grad_y, keep), None, None, None
    s = 0 if first is None else 1
    if registers is not None:
        grad, grad_registers = registers_grads(grad, len(registers), s)
    if places is not None:
        (rows, columns), (P, Q) = images.shape[2:], weight.shape[2:]
        grad = patch_dropout_grads(places, s + rows // P * (columns // Q), s, grad)
    if positions is not None:
        grad, grad_positions = positions_grads(grad)
    if first is not None:
        grad, grad_first = class_token_grads(grad)
    grad_images, grad_weight, grad_bias = patch_embedding_grads(images, weight, grad)
    return grad_images, (grad_weight, grad_bias, grad_first, grad_positions, grad_registers)


def rotary_values(x, angles):
    """The pairs of the last N tokens turned: y_{bhtj} = Σ_k R_{btjk} x_{bhtk}.

    y_{2i} = x_{2i} cos θ − x_{2i+1} sin θ and y_{2i+1} = x_{2i} sin θ + x_{2i+1} cos θ, with
    θ = θ_{bni} for the n-th of these tokens, or θ_{ni} in all images; R_{bt} is δ for the tokens in
    front.
    """
    return torch.einsum("btjk,bhtk->bhtj", _rotation(angles, *x.shape[-2:]), x)


def _rotation(angles, tokens, dim):
    """R_{btjk} = ∂y_{btj}/∂x_{btk}: δ_{jk} for tokens in front, the four numbers of a pair behind.

    With the angles of all images, b has one value, and meets every other.
    """
    angles = angles.reshape(-1, *angles.shape[-2:])
    table = torch.eye(dim, dtype=angles.dtype).repeat(len(angles), tokens, 1, 1)
    first = tokens - angles.shape[1]
    for i in range(dim // 2):
        cos, sin = angles[..., i].cos(), angles[..., i].sin()
        table[:, first:, 2 * i, 2 * i] = cos
        table[:, first:, 2 * i, 2 * i + 1] = -sin
        table[:, first:, 2 * i + 1, 2 * i] = sin
        table[:, first:, 2 * i + 1, 2 * i + 1] = cos
    return table


def rotary_grads(angles, grad_y):
    """Gradient of x in y_{bhtj} = Σ_k R_{btjk} x_{bhtk}.

    ∂y_{bhtj}/∂x_{b'h't'k'} = δ_{bb'} δ_{hh'} δ_{tt'} R_{btjk'}: dx_{bhtk} = Σ_j G_{bhtj} R_{btjk},
    the sum over j, an index of R, where the forward pass sums over k, the other.
    """
    return torch.einsum("bhtj,btjk->bhtk", grad_y, _rotation(angles, *grad_y.shape[-2:]))


def resize_grads(grad_y, rows, columns, prefix):
    """Gradient of a table e (T, D) whose grid part is resized by F = rows and G = columns.

    With e_{rsj} for the rows behind the prefix, e'_{r's'j} = Σ_{rs} F_{r'r} G_{s's} e_{rsj} has
    ∂e'_{r's'j'}/∂e_{rsj} = F_{r'r} G_{s's} δ_{jj'}: with the cotangent g of e',
    de_{rsj} = Σ_{r's'} F_{r'r} G_{s's} g_{r's'j}.
    The rows of the prefix are copied, so their cotangent is.
    """
    new = grad_y[prefix:].reshape(len(rows), len(columns), -1)
    old = torch.einsum("ur,vs,uvj->rsj", rows, columns, new)
    return torch.cat([grad_y[:prefix], old.reshape(-1, grad_y.shape[-1])])


# --------------------------------------------------------------------------------------- attention


def softmax_values(s):
    """p_u = exp s_u / Σ_v exp s_v; the largest s is subtracted from all, which cancels."""
    e = (s - s.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def softmax_grads(p, grad_p):
    """Gradient of s in p_u = exp s_u / Z, Z = Σ_w exp s_w.

    ∂p_u/∂s_v = δ_{uv} exp s_u / Z − exp s_u exp s_v / Z² = p_u (δ_{uv} − p_v): summed as it stands,
    ds_v = Σ_u G_u p_u (δ_{uv} − p_v).
    """
    jacobian = p[..., :, None] * (torch.eye(p.shape[-1], dtype=p.dtype) - p[..., None, :])
    return torch.einsum("...u,...uv->...v", grad_p, jacobian)


def attention_values(q, k, v, keep=None):
    """O_{tj} = Σ_u P_{tu} κ_{tu} v_{uj}, P_t = softmax of S_{tu} = Σ_j q_{tj} k_{uj} / √d."""
    p = softmax_values(torch.einsum("bhtj,bhuj->bhtu", q, k) / math.sqrt(q.shape[-1]))
    return torch.einsum("bhtu,bhuj->bhtj", _times(p, keep), v), p


def attention_grads(q, k, v, grad_o, keep=None):
    """Gradients of q, k and v in O_{tj} = Σ_u P_{tu} κ_{tu} v_{uj}, κ the dropout factors.

    ∂O_{tj}/∂v_{u'j'} = P_{tu'} κ_{tu'} δ_{jj'}: dv_{uj} = Σ_t P_{tu} κ_{tu} dO_{tj}.
    ∂O_{tj}/∂P_{t'u'} = δ_{tt'} κ_{tu'} v_{u'j}: dP_{tu} = κ_{tu} Σ_j dO_{tj} v_{uj}.
    Row t of P depends on row t of S alone: dS_{tu} = Σ_w dP_{tw} P_{tw} (δ_{wu} − P_{tu}).
    ∂S_{tu}/∂q_{t'j'} = δ_{tt'} k_{uj'} / √d: dq_{tj} = Σ_u dS_{tu} k_{uj} / √d.
    ∂S_{tu}/∂k_{u'j'} = δ_{uu'} q_{tj'} / √d: dk_{uj} = Σ_t dS_{tu} q_{tj} / √d.
    """
    root = math.sqrt(q.shape[-1])
    _, p = attention_values(q, k, v)
    grad_v = torch.einsum("bhtu,bhtj->bhuj", _times(p, keep), grad_o)
    grad_p = _times(torch.einsum("bhtj,bhuj->bhtu", grad_o, v), keep)
    grad_s = softmax_grads(p, grad_p)
    grad_q = torch.einsum("bhtu,bhuj->bhtj", grad_s, k) / root
    grad_k = torch.einsum("bhtu,bhtj->bhuj", grad_s, q) / root
    return grad_q, grad_k, grad_v


def attention_grads_by_key(q, k, v, o, lse, grad_o, keep=None):
    """The same gradients from O and L_t = log Σ_u exp S_{tu} alone, one key u after the other.

    P_{tu} = exp S_{tu} / Σ_w exp S_{tw} = exp(S_{tu} − L_t) needs no other key. Of
    dS_{tu} = P_{tu} (dP_{tu} − δ_t), δ_t = Σ_w P_{tw} dP_{tw}, only δ_t does, and O knows it:
    δ_t = Σ_w P_{tw} κ_{tw} Σ_j dO_{tj} v_{wj} = Σ_j dO_{tj} Σ_w P_{tw} κ_{tw} v_{wj}
    = Σ_j dO_{tj} O_{tj}. The factor κ_{tw} came with dP and ends up inside O, which is the output
    after dropout: with dropout on the weights δ_t is still the sum over dO O. The normalisation L_t
    is that of P before dropout, and the first factor P_{tu} of dS_{tu} bears no κ.
    """
    root = math.sqrt(q.shape[-1])
    delta = torch.einsum("bhtj,bhtj->bht", grad_o, o)
    grad_q, grad_k, grad_v = (torch.zeros_like(x) for x in (q, k, v))
    for u in range(k.shape[-2]):
        p = (torch.einsum("bhtj,bhj->bht", q, k[:, :, u]) / root - lse).exp()
        kept = None if keep is None else keep[..., u]
        grad_v[:, :, u] = torch.einsum("bht,bhtj->bhj", _times(p, kept), grad_o)
        grad_p = _times(torch.einsum("bhtj,bhj->bht", grad_o, v[:, :, u]), kept)
        grad_s = p * (grad_p - delta) / root
        grad_q += torch.einsum("bht,bhj->bhtj", grad_s, k[:, :, u])
        grad_k[:, :, u] = torch.einsum("bht,bhtj->bhj", grad_s, q)
    return grad_q, grad_k, grad_v


def _heads(x, weight, bias, heads, angles):
    """q, k, v: y_{mbhtj} = Σ_i x_{bti} W_{(mhj)i} + c_{(mhj)}, q and k turned by angles, if any."""
    packed = torch.einsum("mhji,bti->mbhtj", weight.reshape(3, heads, -1, x.shape[-1]), x)
    if bias is not None:
        packed = packed + bias.reshape(3, 1, heads, 1, -1)
    q, k, v = packed
    if angles is not None:
        q, k = rotary_values(q, angles), rotary_values(k, angles)
    return q, k, v


def multi_head_values(x, params, heads, angles=None, keep_weights=None, keep_out=None):
    """y_{bto} = κ_{bto} (Σ_{hj} O_{bhtj} V_{o(hj)} + c_o), O the attention of the heads of x."""
    weight, bias, out_weight, out_bias = params
    o, _ = attention_values(*_heads(x, weight, bias, heads, angles), keep_weights)
    y = torch.einsum("bhtj,ohj->bto", o, out_weight.reshape(len(out_weight), heads, -1))
    return _times(y if out_bias is None else y + out_bias, keep_out)


def multi_head_grads(x, params, heads, grad_y, angles=None, keep_weights=None, keep_out=None):
    """Gradients of x and of (W, c, V, c') in y_{bto} = κ_{bto} (Σ_{hj} O_{bhtj} V_{o(hj)} + c'_o).

    Behind the factor κ (g = κ G) the heads are two more summed indices:
    dO_{bhtj} = Σ_o g_{bto} V_{o(hj)}, dV_{o(hj)} = Σ_{bt} g_{bto} O_{bhtj}, dc'_o = Σ_{bt} g_{bto}.
    Attention has the deltas δ_{bb'} δ_{hh'}: it gives dq, dk, dv head by head, and the rotation of
    q and k is undone as ``rotary_grads`` does. With m for q, k, v, packed_{mbhtj} = Σ_i x_{bti}
    W_{(mhj)i} + c_{(mhj)} leaves dx_{bti} = Σ_{mhj} d_{mbhtj} W_{(mhj)i}, dW_{(mhj)i} = Σ_{bt}
    d_{mbhtj} x_{bti} and dc_{(mhj)} = Σ_{bt} d_{mbhtj}; the number of (mhj) is (m H + h) d + j.
    """
    weight, bias, out_weight, _ = params
    q, k, v = _heads(x, weight, bias, heads, angles)
    o, _ = attention_values(q, k, v, keep_weights)
    g = _times(grad_y, keep_out)
    grad_out_weight = torch.einsum("bto,bhtj->ohj", g, o).reshape(out_weight.shape)
    grad_out_bias = torch.einsum("bto->o", g)
    grad_o = torch.einsum("bto,ohj->bhtj", g, out_weight.reshape(len(out_weight), heads, -1))
    grad_q, grad_k, grad_v = attention_grads(q, k, v, grad_o, keep_weights)
    if angles is not None:
        grad_q, grad_k = rotary_grads(angles, grad_q), rotary_grads(angles, grad_k)
    d = torch.stack([grad_q, grad_k, grad_v])
    grad_x = torch.einsum("mbhtj,mhji->bti", d, weight.reshape(3, heads, -1, x.shape[-1]))
    grad_weight = torch.einsum("mbhtj,bti->mhji", d, x).reshape(weight.shape)
    grad_bias = torch.einsum("mbhtj->mhj", d).reshape(-1)
    return grad_x, (grad_weight, grad_bias, grad_out_weight, grad_out_bias)


# ---------------------------------------------------------------------- normalisation, activations


def layer_norm_values(x, gain, bias, eps):
    """y_j = γ_j n_j + β_j, n_j = (x_j − μ) r, r = (σ² + ε)^(−1/2), σ² = Σ_j (x_j − μ)² / D."""
    n, _ = _normalised(x, eps)
    return gain * n + bias


def _normalised(x, eps):
    """n_j = (x_j − μ) r, and r."""
    dim = x.shape[-1]
    centred = x - torch.einsum("...j->...", x)[..., None] / dim
    r = (torch.einsum("...j,...j->...", centred, centred) / dim + eps) ** -0.5
    return centred * r[..., None], r


def layer_norm_grads(x, gain, eps, grad_y):
    """Gradients of x, γ and β in y_j = γ_j n_j + β_j.

    ∂μ/∂x_k = 1/D. ∂σ²/∂x_k = (2/D) Σ_m (x_m − μ)(δ_{mk} − 1/D) = (2/D)(x_k − μ), for Σ_m (x_m − μ)
    is 0. ∂r/∂x_k = −½ (σ² + ε)^(−3/2) (2/D)(x_k − μ) = −r² n_k / D. So
    ∂n_j/∂x_k = r (δ_{jk} − 1/D) + (x_j − μ)(−r² n_k / D) = r (δ_{jk} − 1/D − n_j n_k / D),
    dx_k = Σ_j G_j γ_j ∂n_j/∂x_k, and over all rows dγ_j = Σ G_j n_j, dβ_j = Σ G_j.
    """
    dim = x.shape[-1]
    n, r = _normalised(x, eps)
    outer = torch.einsum("...j,...k->...jk", n, n)
    jacobian = r[..., None, None] * (torch.eye(dim, dtype=x.dtype) - 1 / dim - outer / dim)
    grad_x = torch.einsum("...j,j,...jk->...k", grad_y, gain, jacobian)
    rows, grads = n.reshape(-1, dim), grad_y.reshape(-1, dim)
    return grad_x, torch.einsum("nj,nj->j", grads, rows), torch.einsum("nj->j", grads)


def gelu_values(u):
    """y = u Φ(u), Φ(u) = ½ (1 + erf(u/√2))."""
    return u * 0.5 * (1 + torch.special.erf(u / math.sqrt(2)))


def gelu_grads(u, grad_y):
    """Entry by entry, du = G (Φ + u φ): Φ' = φ = exp(−u²/2)/√(2π), as erf' = 2 exp(−x²)/√π."""
    density = (-u * u / 2).exp() / math.sqrt(2 * math.pi)
    return grad_y * (0.5 * (1 + torch.special.erf(u / math.sqrt(2))) + u * density)


_A, _B = math.sqrt(2 / math.pi), 0.044715


def gelu_tanh_values(u):
    """y = ½ u (1 + tanh(a (u + b u³)))."""
    return 0.5 * u * (1 + torch.tanh(_A * (u + _B * u**3)))


def gelu_tanh_grads(u, grad_y):
    """du = G (½ (1 + τ) + ½ u (1 − τ²) a (1 + 3 b u²)), τ = tanh(a (u + b u³)), τ' = 1 − τ²."""
    tau = torch.tanh(_A * (u + _B * u**3))
    return grad_y * 0.5 * (1 + tau + u * (1 - tau**2) * _A * (1 + 3 * _B * u**2))


def relu_values(u):
    """y = u where u > 0, else 0."""
    return torch.where(u > 0, u, torch.zeros_like(u))


def relu_grads(u, grad_y):
    """du = G [u > 0]."""
    return torch.where(u > 0, grad_y, torch.zeros_like(u))


def swiglu_values(u):
    """y_j = g_j σ(g_j) v_j with g_j = u_j and v_j = u_{j+m}, u of length 2m."""
    g, v = u.chunk(2, -1)
    return g * v / (1 + (-g).exp())


def swiglu_grads(u, grad_y):
    """Gradient of u = (g, v) in y_j = g_j σ_j v_j, σ_j = 1 / (1 + exp(−g_j)).

    ∂y_j/∂u_k = δ_{jk} v_j (σ_j + g_j σ_j (1 − σ_j)) + δ_{j+m,k} g_j σ_j: the first half of du is
    G v (σ + g σ (1 − σ)), the second G g σ.
    """
    g, v = u.chunk(2, -1)
    sigma = 1 / (1 + (-g).exp())
    return torch.cat([grad_y * v * sigma * (1 + g * (1 - sigma)), grad_y * g * sigma], -1)


ACTIVATIONS = {
    "gelu": (gelu_values, gelu_grads),
    "gelu_tanh": (gelu_tanh_values, gelu_tanh_grads),
    "relu": (relu_values, relu_grads),
    "swiglu": (swiglu_values, swiglu_grads),
}


# -------------------------------------------------------------------------------- MLP and the block


def dropout_grads(mask, rate, grad_y):
    """Gradient of x in y_a = x_a M_a / (1 − ρ), M independent of x: dx_a = G_a M_a / (1 − ρ).

    Drop path is the case M_{btj} = M_b, a mask (B, 1, 1).
    """
    return grad_y * mask / (1 - rate)


def mlp_values(x, params, activation, keep_hidden=None, keep_out=None):
    """y = κ' (fc2 of κ act(u)), u = fc1 of x, params = (w, c, w', c')."""
    weight, bias, out_weight, out_bias = params
    hidden = ACTIVATIONS[activation][0](linear_values(x, weight, bias))
    return _times(linear_values(_times(hidden, keep_hidden), out_weight, out_bias), keep_out)


def mlp_grads(x, params, activation, grad_y, keep_hidden=None, keep_out=None):
    """Gradients of x and of (w, c, w', c') in y = κ' (fc2 of κ act(u)), u = fc1 of x.

    In entries y_{bto} = κ'_{bto} (Σ_m κ_{btm} a_{btm} w'_{om} + c'_o), a = act(u). With g = κ' G,
    dw'_{om} = Σ_{bt} g_{bto} κ_{btm} a_{btm}, dc'_o = Σ_{bt} g_{bto}, and
    da_{btm} = κ_{btm} Σ_o g_{bto} w'_{om}; the activation turns da into du token by token, and
    u_{btm} = Σ_i x_{bti} w_{mi} + c_m is linear.
    """
    weight, bias, out_weight, _ = params
    values, grads = ACTIVATIONS[activation]
    u = linear_values(x, weight, bias)
    kept = _times(values(u), keep_hidden)
    grad_kept, *grad_out = linear_grads(kept, out_weight, _times(grad_y, keep_out))
    grad_x, *grad_in = linear_grads(x, weight, grads(u, _times(grad_kept, keep_hidden)))
    return grad_x, (*grad_in, *grad_out)


def layer_scale_grads(x, gamma, grad_y):
    """Gradients of x and γ in y_{btj} = γ_j x_{btj}.

    ∂y_{btj}/∂x_{b't'j'} = δ_{bb'} δ_{tt'} δ_{jj'} γ_j: dx_{btj} = γ_j G_{btj}. ∂y_{btj}/∂γ_{j'} =
    δ_{jj'} x_{btj} has no delta in b and t: dγ_j = Σ_{bt} G_{btj} x_{btj}.
    """
    return torch.einsum("j,btj->btj", gamma, grad_y), torch.einsum("btj,btj->j", grad_y, x)


def scaled(layer, gamma):
    """A layer, values and gradients as a branch takes them, behind which γ scales each entry."""
    if gamma is None:
        return layer
    values, grads = layer

    def scaled_grads(x, grad_y):
        grad_branch, grad_gamma = layer_scale_grads(values(x), gamma, grad_y)
        grad_x, grad_layer = grads(x, grad_branch)
        return grad_x, (*grad_layer, grad_gamma)

    return lambda x: torch.einsum("j,btj->btj", gamma, values(x)), scaled_grads


def pre_norm_values(x, norm, eps, values, keep=None):
    """y_a = x_a + κ_a f_a(LN(x)), f = values and norm = (γ, β)."""
    return x + _times(values(layer_norm_values(x, *norm, eps)), keep)


def pre_norm_grads(x, norm, eps, layer, grad_y, keep=None):
    """Gradients of x, (γ, β) and f's parameters in y_a = x_a + κ_a f_a(LN(x)); κ drops paths.

    layer = (values, grads) of f, the second called with (input, cotangent) and giving the gradients
    of input and parameters. ∂y_a/∂x_c = δ_{ac} + κ_a ∂f_a/∂x_c: the delta passes G on, the rest
    sends κ G back through f and LN, and the two are added.
    """
    _, grads = layer
    grad_normed, grad_layer = grads(layer_norm_values(x, *norm, eps), _times(grad_y, keep))
    through, *grad_norm = layer_norm_grads(x, norm[0], eps, grad_normed)
    return grad_y + through, tuple(grad_norm), grad_layer


def post_norm_values(x, norm, eps, values, keep=None):
    """y = LN(x + κ f(x))."""
    return layer_norm_values(x + _times(values(x), keep), *norm, eps)


def post_norm_grads(x, norm, eps, layer, grad_y, keep=None):
    """Gradients of x, (γ, β) and f's parameters in y = LN(v), v_a = x_a + κ_a f_a(x).

    LN comes first on the way back and makes dv of G; with ∂v_a/∂x_c = δ_{ac} + κ_a ∂f_a/∂x_c,
    dx_c = dv_c + Σ_a κ_a dv_a ∂f_a/∂x_c.
    """
    values, grads = layer
    grad_v, *grad_norm = layer_norm_grads(x + _times(values(x), keep), norm[0], eps, grad_y)
    through, grad_layer = grads(x, _times(grad_v, keep))
    return grad_v + through, tuple(grad_norm), grad_layer


BRANCHES = {
    "pre": (pre_norm_values, pre_norm_grads),
    "post": (post_norm_values, post_norm_grads),
}


def block_values(x, norms, eps, attn, mlp, place, keep_attn=None, keep_mlp=None):
    """The branch of attn, then that of mlp; arguments as in ``block_grads``."""
    values, _ = BRANCHES[place]
    middle = values(x, norms[:2], eps, attn[0], keep_attn)
    return values(middle, norms[2:], eps, mlp[0], keep_mlp)


def block_grads(x, norms, eps, attn, mlp, place, grad_y, keep_attn=None, keep_mlp=None):
    """Gradients of x, norms = (γ1, β1, γ2, β2), and the parameters of attn and mlp.

    pre: x' = x + κ attn(LN1 x), y = x' + κ' mlp(LN2 x'); post: x' = LN1(x + κ attn(x)),
    y = LN2(x' + κ' mlp(x')). ∂y_a/∂x_c = Σ_e ∂y_a/∂x'_e ∂x'_e/∂x_c: the branch of mlp makes dx' of
    G, the branch of attn dx of dx'.
    """
    values, grads = BRANCHES[place]
    middle = values(x, norms[:2], eps, attn[0], keep_attn)
    grad_middle, grad_norm2, grad_mlp = grads(middle, norms[2:], eps, mlp, grad_y, keep_mlp)
    grad_x, grad_norm1, grad_attn = grads(x, norms[:2], eps, attn, grad_middle, keep_attn)
    return grad_x, (*grad_norm1, *grad_norm2), grad_attn, grad_mlp


# ----------------------------------------------------------------------------- pooling, head, loss


def shares(pool, tokens, prefix):
    """a_t in y_{bj} = Σ_t a_t x_{btj}: δ_{t0}, or [t ≥ s] / (T − s) behind a prefix of s tokens."""
    t = torch.arange(tokens)
    chosen = t == 0 if pool == "cls" else t >= prefix
    return chosen.double() / chosen.sum()


def pool_values(x, pool, prefix):
    """y_{bj} = Σ_t a_t x_{btj}."""
    return torch.einsum("t,btj->bj", shares(pool, x.shape[1], prefix), x)


def pool_grads(pool, tokens, prefix, grad_y):
    """Gradient of x in y_{bj} = Σ_t a_t x_{btj}.

    ∂y_{bj}/∂x_{b'tj'} = a_t δ_{bb'} δ_{jj'}: dx_{btj} = a_t G_{bj}, that is δ_{t0} G_{bj} for the
    first token and [t ≥ s] G_{bj} / (T − s) for the mean behind s tokens.
    """
    return torch.einsum("t,bj->btj", shares(pool, tokens, prefix), grad_y)


def tanh_head_grads(x, params, grad_z):
    """Gradients of x and of (w, c, w', c') in h_{bm} = tanh(Σ_i x_{bi} w_{mi} + c_m), z = fc(h).

    tanh' = 1 − h²: du_{bm} = (1 − h_{bm}²) Σ_k G_{bk} w'_{km}, the linear layers on either side.
    """
    weight, bias, out_weight, _ = params
    h = torch.tanh(linear_values(x, weight, bias))
    grad_h, *grad_out = linear_grads(h, out_weight, grad_z)
    grad_x, *grad_in = linear_grads(x, weight, (1 - h**2) * grad_h)
    return grad_x, (*grad_in, *grad_out)


def readout_grads(x, norm, eps, after, pool, prefix, params, grad_z):
    """Gradients of x, norm = (γ, β) and the head's params in z = head(pool(LN(x))).

    after puts LN behind the pooling; norm = () leaves it out. Two params make a linear head, four
    the one with tanh. A composition: each cotangent is the gradient that the next step hands back.
    """
    y = layer_norm_values(x, *norm, eps) if norm and not after else x
    y = pooled = pool_values(y, pool, prefix)
    if norm and after:
        y = layer_norm_values(pooled, *norm, eps)
    if len(params) == 4:
        grad, grad_params = tanh_head_grads(y, params, grad_z)
    else:
        grad, *grad_params = linear_grads(y, params[0], grad_z)
    grad_norm = ()
    if norm and after:
        grad, *grad_norm = layer_norm_grads(pooled, norm[0], eps, grad)
    grad = pool_grads(pool, x.shape[1], prefix, grad)
    if norm and not after:
        grad, *grad_norm = layer_norm_grads(x, norm[0], eps, grad)
    return grad, tuple(grad_norm), tuple(grad_params)


def cross_entropy_grads(z, targets, smoothing, grad_loss=1.0):
    """Gradients of z and of the rows y in ℓ = −(1/B) Σ_{bk} y'_{bk} log p_{bk}, y' = (1−λ) y + λ/K.

    Integer labels stand for y_{bk} = δ_{k,label}. log p_{bk} = z_{bk} − log Σ_m exp z_{bm} has
    ∂log p_{bk}/∂z_{b'm} = δ_{bb'} (δ_{km} − p_{bm}): dz_{bm} = −(1/B) Σ_k y'_{bk} (δ_{km} − p_{bm})
    = (p_{bm} Σ_k y'_{bk} − y'_{bm}) / B, and Σ_k y'_{bk} is 1 only if the rows of y sum to 1.
    ∂y'_{bk}/∂y_{bk} = 1 − λ: dy_{bk} = −(1 − λ) log p_{bk} / B.
    """
    B, K = z.shape
    rows = targets
    if not targets.is_floating_point():
        rows = (targets[:, None] == torch.arange(K)).to(z.dtype)
    smoothed = (1 - smoothing) * rows + smoothing / K
    largest = z.amax(-1, keepdim=True)
    log_p = z - largest - torch.einsum("bk->b", (z - largest).exp()).log()[:, None]
    total = torch.einsum("bk->b", smoothed)
    grad_z = (torch.einsum("bm,b->bm", log_p.exp(), total) - smoothed) / B
    return grad_loss * grad_z, grad_loss * -(1 - smoothing) * log_p / B


def binary_cross_entropy_grads(z, targets, grad_loss=1.0):
    """Gradients of z and y in ℓ = (1/BK) Σ_{bk} f(z_{bk}, y_{bk}), f = log(1 + exp z) − y z.

    Integer labels stand for y_{bk} = δ_{k,label}. Entries do not meet: ∂z_{bk}/∂z_{b'm} = δ_{bb'}
    δ_{km} leaves one term, dz_{bm} = (exp z/(1 + exp z) − y_{bm}) / (BK), where the fraction is
    ½ + ½ tanh(z/2). f is linear in y with slope −z: dy_{bm} = −z_{bm} / (BK).
    """
    B, K = z.shape
    rows = targets
    if not targets.is_floating_point():
        rows = (targets[:, None] == torch.arange(K)).to(z.dtype)
    grad_z = (0.5 + 0.5 * torch.tanh(z / 2) - rows) / (B * K)
    return grad_loss * grad_z, grad_loss * -z / (B * K)
