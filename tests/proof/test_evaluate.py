r"""Printed formulas against values that numpy and PyTorch compute without them.

Each row is an equation whose left side is the reference. It must hold, and must stop to hold when
the reference is disturbed.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional

from vitlib.proof.latex import parse
from vitlib.proof.measure import measure
from vitlib.proof.oracles import given

B, T, U, d, D, K, M = 2, 5, 4, 3, 6, 7, 8


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + 100 * len(shape) + sum(shape))
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def with_gradients(function, cotangent=None, **inputs):
    """Inputs, outputs and the gradients of all of them, by autograd under a random cotangent."""
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    outputs = function(**leaves)
    last = list(outputs.values())[-1]
    cotangent = torch.ones(()) if last.ndim == 0 else normal(*last.shape, seed=9)
    values = leaves | outputs
    names = [name for name, value in values.items() if value.requires_grad]
    gradients = torch.autograd.grad(
        (last * cotangent).sum(), [values[name] for name in names], allow_unused=True
    )
    found = {f"grad_{n}": g for n, g in zip(names, gradients, strict=True) if g is not None}
    return {name: value.detach() for name, value in (values | found).items()}


def attention(Q, K, V):
    S = Q @ K.mT / d**0.5
    A = functional.softmax(S, dim=-1)
    return {"S": S, "A": A, "O": A @ V}


ATTENTION = with_gradients(
    attention, Q=normal(T, d), K=normal(U, d, seed=1), V=normal(U, d, seed=2)
) | {"d": d, "U": U, "delta": None}
ATTENTION["delta"] = (ATTENTION["grad_O"] * ATTENTION["O"]).sum(-1, keepdim=True)
ATTENTION["fused"] = functional.scaled_dot_product_attention(
    ATTENTION["Q"], ATTENTION["K"], ATTENTION["V"]
)

SOFTMAX = {"s": normal(K), "a": functional.softmax(normal(K), dim=-1)}
SOFTMAX["J"] = torch.autograd.functional.jacobian(
    lambda s: functional.softmax(s, dim=-1), SOFTMAX["s"]
)


def layer_norm(X, gamma, beta):
    mu = X.mean(-1, keepdim=True)
    sigma = (X.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    X_hat = (X - mu) / sigma
    return {"mu": mu, "sigma": sigma, "X_hat": X_hat, "Y": X_hat * gamma + beta}


NORM = with_gradients(layer_norm, X=normal(T, D), gamma=normal(D), beta=normal(D, seed=1)) | {
    "D": D,
    "epsilon": 1e-5,
}
NORM["fused"] = functional.layer_norm(NORM["X"], (D,), NORM["gamma"], NORM["beta"], 1e-5)

LINEAR = with_gradients(
    lambda X, W, b: {"Y": functional.linear(X, W.mT, b)},
    X=normal(B, T, D),
    W=normal(D, M),
    b=normal(M),
)


def cross_entropy(Z):
    return {"ell": functional.cross_entropy(Z, LABELS)}


LABELS = torch.tensor([3, 0, 6, 2, 3])
ENTROPY = with_gradients(cross_entropy, Z=normal(T, K)) | {
    "Y": functional.one_hot(LABELS, K).double(),
    "y": LABELS,
    "T": T,
    "K": K,
}
ENTROPY["P"] = functional.softmax(ENTROPY["Z"], dim=-1)


def slope(function, x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


def gelu_tanh(x):
    return functional.gelu(x, approximate="tanh")


x = normal(T, M)
GELU = {
    "X": x,
    "exact": functional.gelu(x),
    "approximate": gelu_tanh(x),
    "exactslope": slope(functional.gelu, x),
    "approximateslope": slope(gelu_tanh, x),
}

PATCH, ROWS, COLUMNS = 2, 3, 4
image = normal(3, ROWS * PATCH, COLUMNS * PATCH)
PATCHES = {
    "I": image,
    "X": functional.unfold(image[None], PATCH, stride=PATCH)[0].mT,
    "P": PATCH,
    "w": COLUMNS,
}

POSITIONS = {"E": np.zeros((T, D)), "D": D}
for t in range(T):
    for i in range(D // 2):
        angle = t / 10000 ** (2 * i / D)
        POSITIONS["E"][t, 2 * i : 2 * i + 2] = np.sin(angle), np.cos(angle)
POSITIONS["F"] = POSITIONS["E"].reshape(T, D // 2, 2)
POSITIONS["G"], POSITIONS["H"] = POSITIONS["F"][..., 0], POSITIONS["F"][..., 1]

X, Y, W, v = (a.numpy() for a in (normal(T, d), normal(T, d, seed=1), normal(d, M), normal(d)))
SQUARE = normal(d, d).numpy()
PLAIN = {
    "X": X,
    "Y": Y,
    "W": W,
    "v": v,
    "S": SQUARE,
    "T": T,
    "d": d,
    "a": 1.5,
    "p": np.int64(2),
    "k": np.int64(4),
}
BATCH = normal(B, T, d).numpy()
SQUARES = normal(B, d, d).numpy()
HEADS = normal(B, U, d, d).numpy()

# (equation, values, the reference: the name on its left side)
FORMULAS = {
    # attention
    "scores": (r"\mathbf S = \frac{\mathbf Q \mathbf K^\top}{\sqrt d}", ATTENTION, "S"),
    "scores, divided": (r"\mathbf S = \mathbf Q \mathbf K^\top / \sqrt d", ATTENTION, "S"),
    "scores, by entry": (r"S_{tu} = \frac{1}{\sqrt{d}} \sum_{j} Q_{tj} K_{uj}", ATTENTION, "S"),
    "scores, the sum's letter a size elsewhere": (
        r"S_{tu} = \frac{1}{\sqrt{d}} \sum_{d} Q_{td} K_{ud}",
        ATTENTION,
        "S",
    ),
    "scores, by rows": (r"S_{tu} = \mathbf q_t \mathbf k_u^\top / \sqrt d", ATTENTION, "S"),
    "scores, power": (r"\mathbf S = d^{-1/2} \mathbf Q \mathbf K^{\top}", ATTENTION, "S"),
    "weights": (r"\mathbf A = \operatorname{softmax}(\mathbf S)", ATTENTION, "A"),
    "weights, exp": (
        r"\mathbf A = \frac{\exp(\mathbf S)}{\operatorname{rowsum}(\exp(\mathbf S))}",
        ATTENTION,
        "A",
    ),
    "weights, by entry": (r"A_{tu} = \frac{e^{S_{tu}}}{\sum_{j} e^{S_{tj}}}", ATTENTION, "A"),
    "weights, safe": (
        r"A_{tu} = \frac{\exp(S_{tu} - \max_j S_{tj})}{\sum_k \exp(S_{tk} - \max_{j} S_{tj})}",
        ATTENTION,
        "A",
    ),
    "output": (
        r"\mathbf O = \operatorname{softmax}\!\left(\frac{\mathbf Q \mathbf K^\top}{\sqrt d}\right)"
        r" \mathbf V",
        ATTENTION,
        "O",
    ),
    "output, fused": (r"\mathbf{fused} = \mathbf A \, \mathbf V.", ATTENTION, "fused"),
    "output, entries of a product": (r"O_{tj} = (\mathbf A \mathbf V)_{tj}", ATTENTION, "O"),
    "output, as a sum of rows": (r"\mathbf o_t = \sum_u A_{tu} \mathbf v_u", ATTENTION, "O"),
    "grad V": (
        r"\frac{\partial \ell}{\partial \mathbf V} = \mathbf A^\top"
        r" \frac{\partial \ell}{\partial \mathbf O}",
        ATTENTION,
        "grad_V",
    ),
    "grad V, by entry": (
        r"\frac{\partial \ell}{\partial V_{uj}} = \sum_{t} A_{tu}"
        r" \frac{\partial \ell}{\partial O_{tj}}",
        ATTENTION,
        "grad_V",
    ),
    "grad A": (
        r"\frac{\partial \ell}{\partial \mathbf A} = \frac{\partial \ell}{\partial \mathbf O}"
        r" \mathbf V^\top",
        ATTENTION,
        "grad_A",
    ),
    "grad S": (
        r"\frac{\partial \ell}{\partial \mathbf S} = \mathbf A \odot \left("
        r"\frac{\partial \ell}{\partial \mathbf A} - \operatorname{rowsum}\left("
        r"\frac{\partial \ell}{\partial \mathbf A} \odot \mathbf A\right)\right)",
        ATTENTION,
        "grad_S",
    ),
    "grad S, with delta": (
        r"\frac{\partial \ell}{\partial \mathbf S} = \mathbf A \odot \left("
        r"\frac{\partial \ell}{\partial \mathbf A} - \boldsymbol\delta\right)",
        ATTENTION,
        "grad_S",
    ),
    "grad S, by entry": (
        r"\frac{\partial \ell}{\partial S_{tw}} = \sum_u \frac{\partial \ell}{\partial A_{tu}}"
        r" A_{tu} (\delta_{uw} - A_{tw})",
        ATTENTION,
        "grad_S",
    ),
    "grad S, delta by entry": (
        r"\frac{\partial \ell}{\partial S_{tu}} = A_{tu} \bigl("
        r"\frac{\partial \ell}{\partial A_{tu}} - \delta_t\bigr)",
        ATTENTION,
        "grad_S",
    ),
    "delta": (
        r"\boldsymbol\delta = \operatorname{rowsum}\left(\frac{\partial \ell}{\partial \mathbf O}"
        r" \odot \mathbf O\right)",
        ATTENTION,
        "delta",
    ),
    "delta, the other way": (
        r"\boldsymbol{\delta} = \operatorname{rowsum}\left(\frac{\partial \ell}{\partial \mathbf A}"
        r" \odot \mathbf A\right)",
        ATTENTION,
        "delta",
    ),
    "delta, by ones": (
        r"\boldsymbol\delta = \left(\frac{\partial \ell}{\partial \mathbf A} \odot \mathbf A"
        r"\right) \mathbf 1_{U}",
        ATTENTION,
        "delta",
    ),
    "grad Q": (
        r"\frac{\partial \ell}{\partial \mathbf Q} = \frac{1}{\sqrt d}"
        r" \frac{\partial \ell}{\partial \mathbf S} \mathbf K",
        ATTENTION,
        "grad_Q",
    ),
    "grad K": (
        r"\frac{\partial \ell}{\partial \mathbf K} = \frac1{\sqrt d} \left("
        r"\frac{\partial \ell}{\partial \mathbf S}\right)^\top \mathbf Q",
        ATTENTION,
        "grad_K",
    ),
    # softmax and its Jacobian
    "Jacobian": (r"J_{jk} = a_j (\delta_{jk} - a_k)", SOFTMAX, "J"),
    "Jacobian, quotient": (
        r"J_{jk} = \frac{\delta_{jk} e^{s_j} \sum_i e^{s_i} - e^{s_j} e^{s_k}}"
        r"{\left(\sum_i e^{s_i}\right)^2}",
        SOFTMAX,
        "J",
    ),
    "Jacobian, matrix": (
        r"\mathbf J = \operatorname{diag}(\mathbf a) - \mathbf a^\top \mathbf a",
        SOFTMAX,
        "J",
    ),
    "softmax of a row": (r"\mathbf a = \operatorname{softmax}(\mathbf s)", SOFTMAX, "a"),
    "entry of a softmax": (r"a_j = \operatorname{softmax}(\mathbf s)_j", SOFTMAX, "a"),
    "counting what only a function is given": (
        r"y = \sum_{i} i \exp(x_i)",
        {"x": normal(K), "y": (torch.arange(K) * normal(K).exp()).sum()},
        "y",
    ),
    "log of a softmax": (r"a_j = \exp(s_j - \log \sum_k e^{s_k})", SOFTMAX, "a"),
    # layer norm
    "norm, mean": (r"\boldsymbol\mu = \operatorname{rowmean}(\mathbf X)", NORM, "mu"),
    "norm, mean by entry": (r"\mu_t = \frac1D \sum_{j} X_{tj}", NORM, "mu"),
    "norm, mean by ones": (r"\boldsymbol\mu = \frac{1}{D} \mathbf X \mathbf 1", NORM, "mu"),
    "norm, deviation": (
        r"\boldsymbol\sigma = \sqrt{\operatorname{rowmean}"
        r"\left((\mathbf X - \boldsymbol\mu)^{\odot 2}\right) + \varepsilon}",
        NORM,
        "sigma",
    ),
    "norm, deviation by entry": (
        r"\sigma_t = \sqrt{\frac{1}{D} \sum_{j=1}^{D} (x_{tj} - \mu_t)^2 + \varepsilon}",
        NORM,
        "sigma",
    ),
    "norm, normalised": (
        r"\hat{\mathbf X} = \frac{\mathbf X - \boldsymbol\mu}{\boldsymbol\sigma}",
        NORM,
        "X_hat",
    ),
    "norm, forward": (
        r"\mathbf Y = \boldsymbol\gamma \odot \hat{\mathbf X} + \boldsymbol\beta",
        NORM,
        "Y",
    ),
    "norm, forward by entry": (
        r"Y_{tj} = \gamma_j \hat x_{tj} + \beta_j",
        NORM,
        "Y",
    ),
    "norm, fused": (
        r"\mathbf{fused} = \frac{\mathbf X - \boldsymbol\mu}{\boldsymbol\sigma}"
        r" \odot \boldsymbol\gamma + \boldsymbol\beta",
        NORM,
        "fused",
    ),
    "norm, backward": (
        r"\frac{\partial \ell}{\partial \mathbf X} = \left("
        r"\frac{\partial \ell}{\partial \hat{\mathbf X}}"
        r"- \operatorname{rowmean}\left(\frac{\partial \ell}{\partial \hat{\mathbf X}}\right)"
        r"- \hat{\mathbf X} \odot \operatorname{rowmean}\left("
        r"\frac{\partial \ell}{\partial \hat{\mathbf X}} \odot \hat{\mathbf X}\right)\right)"
        r" / \boldsymbol\sigma",
        NORM,
        "grad_X",
    ),
    "norm, backward by entry": (
        r"\frac{\partial \ell}{\partial X_{tj}} = \frac{\gamma_j}{\sigma_t}"
        r" \frac{\partial \ell}{\partial Y_{tj}} - \frac{1}{D \sigma_t} \sum_k \gamma_k"
        r" \frac{\partial \ell}{\partial Y_{tk}} - \frac{\hat X_{tj}}{D \sigma_t} \sum_k \gamma_k"
        r" \frac{\partial \ell}{\partial Y_{tk}} \hat X_{tk}",
        NORM,
        "grad_X",
    ),
    "norm, gain": (
        r"\frac{\partial \ell}{\partial \boldsymbol\gamma} = \operatorname{colsum}\left("
        r"\frac{\partial \ell}{\partial \mathbf Y} \odot \hat{\mathbf X}\right)",
        NORM,
        "grad_gamma",
    ),
    "norm, bias": (
        r"\frac{\partial \ell}{\partial \beta_j} = \sum_{t} \frac{\partial \ell}{\partial Y_{tj}}",
        NORM,
        "grad_beta",
    ),
    # batched linear
    "linear": (r"\mathbf Y = \mathbf X \mathbf W + \mathbf b", LINEAR, "Y"),
    "linear, each image": (r"\mathbf Y_b = \mathbf X_b \mathbf W + \mathbf b", LINEAR, "Y"),
    "linear, by entry": (r"Y_{btk} = \sum_j X_{btj} W_{jk} + b_k", LINEAR, "Y"),
    "linear, grad X": (
        r"\frac{\partial \ell}{\partial \mathbf X} = \frac{\partial \ell}{\partial \mathbf Y}"
        r" \mathbf W^\top",
        LINEAR,
        "grad_X",
    ),
    "linear, grad W": (
        r"\frac{\partial \ell}{\partial \mathbf W} = \sum_b \mathbf X_b^\top"
        r" \frac{\partial \ell}{\partial \mathbf Y_b}",
        LINEAR,
        "grad_W",
    ),
    "linear, grad W by entry": (
        r"\frac{\partial \ell}{\partial W_{jk}} = \sum_{b, t} X_{btj}"
        r" \frac{\partial \ell}{\partial Y_{btk}}",
        LINEAR,
        "grad_W",
    ),
    "linear, grad b": (
        r"\frac{\partial \ell}{\partial \mathbf b} = \sum_{b} \operatorname{colsum}\left("
        r"\frac{\partial \ell}{\partial \mathbf Y_b}\right)",
        LINEAR,
        "grad_b",
    ),
    # cross-entropy
    "entropy": (r"\ell = -\frac{1}{T} \sum_{t} \sum_k Y_{tk} \log P_{tk}", ENTROPY, "ell"),
    "entropy, by label": (r"\ell = -\frac1T \sum_t \log P_{t y_t}", ENTROPY, "ell"),
    "entropy, of logits": (
        r"\ell = \frac{1}{T} \sum_t \left(\log \sum_k e^{Z_{tk}} - Z_{t, y_t}\right)",
        ENTROPY,
        "ell",
    ),
    "entropy, inner product": (
        r"\ell = -\tfrac{1}{T} \langle \mathbf Y, \log \mathbf P \rangle",
        ENTROPY,
        "ell",
    ),
    "entropy, gradient": (
        r"\frac{\partial \ell}{\partial \mathbf Z} = \frac{1}{T} (\mathbf P - \mathbf Y)",
        ENTROPY,
        "grad_Z",
    ),
    "entropy, gradient by label": (
        r"\frac{\partial \ell}{\partial Z_{tk}} = \frac{P_{tk} - \delta_{k y_t}}{T}",
        ENTROPY,
        "grad_Z",
    ),
    # activations
    "gelu": (r"\mathbf{exact} = \mathbf X \odot \Phi(\mathbf X)", GELU, "exact"),
    "gelu, erf": (
        r"\mathbf{exact} = \frac12 \mathbf X \odot \left(1 + \operatorname{erf}"
        r"\left(\frac{\mathbf X}{\sqrt 2}\right)\right)",
        GELU,
        "exact",
    ),
    "gelu, slope": (
        r"\mathbf{exactslope} = \Phi(\mathbf X) + \mathbf X \odot \phi(\mathbf X)",
        GELU,
        "exactslope",
    ),
    "gelu, slope by entry": (
        r"Z_{tj} = \Phi(x_{tj}) + \frac{x_{tj}}{\sqrt{2 \pi}} e^{-x_{tj}^2 / 2}",
        {"X": x, "Z": slope(functional.gelu, x)},
        "Z",
    ),
    "gelu, tanh": (
        r"\mathbf{approximate} = \tfrac12 \mathbf X \odot \left(1 + \tanh\left(\sqrt{\tfrac2\pi}"
        r"\left(\mathbf X + 0.044715 \mathbf X^{\odot 3}\right)\right)\right)",
        GELU,
        "approximate",
    ),
    "gelu, tanh slope": (
        r"\mathbf{approximateslope} = \tfrac12 \left(1 + \tanh(\mathbf u)\right) + \tfrac12"
        r" \mathbf X \odot \left(1 - \tanh(\mathbf u)^{\odot 2}\right) \odot \sqrt{2 / \pi}"
        r"\left(1 + 0.134145 \mathbf X^{\odot 2}\right)",
        GELU | {"u": np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)},
        "approximateslope",
    ),
    # indices that are computed
    "patches": (
        r"X_{n,\, (c P + p) P + q} = I_{c,\, \lfloor n / w \rfloor P + p,\, (n \bmod w) P + q}",
        PATCHES,
        "X",
    ),
    "pixels": (
        r"I_{c,i,j} = X_{\lfloor i / P \rfloor w + \lfloor j / P \rfloor,\,"
        r" (c P + i \bmod P) P + j \bmod P}",
        PATCHES,
        "I",
    ),
    "positions, even": (
        r"E_{t,2i} = \sin\left(t / 10000^{2i/D}\right),",
        POSITIONS,
        "E",
    ),
    "positions, odd": (
        r"H_{ti} = \cos\left(\frac{t}{10{,}000^{2i/D}}\right)",
        POSITIONS,
        "H",
    ),
    # plain notation
    "sum and difference": (
        r"\mathbf Z = \mathbf X - \mathbf Y + 2 \mathbf X",
        PLAIN | {"Z": 3 * X - Y},
        "Z",
    ),
    "juxtaposition binds closer than ⊙": (
        r"\mathbf Z = \mathbf X \odot \mathbf Y \mathbf S",
        PLAIN | {"Z": X * (Y @ SQUARE)},
        "Z",
    ),
    "transpose of a product": (
        r"\mathbf Z = (\mathbf X \mathbf W)^\top",
        PLAIN | {"Z": (X @ W).T},
        "Z",
    ),
    "row of a matrix": (r"Z_{tj} = (\mathbf x_t)_j", PLAIN | {"Z": X}, "Z"),
    "row of a product": (r"\mathbf z_t = (\mathbf X \mathbf W)_t", PLAIN | {"Z": X @ W}, "Z"),
    "rows of two entries": (
        r"\mathbf z_t = 2 \mathbf x_t",
        {"X": X[:, :2], "Z": 2 * X[:, :2]},
        "Z",
    ),
    "a row's sum scales a matrix": (
        r"\mathbf Z = \operatorname{rowsum}(\mathbf v) \mathbf X",
        PLAIN | {"Z": v.sum() * X},
        "Z",
    ),
    "a matrix times a scalar with a dot": (
        r"\mathbf Z = a \cdot \mathbf X",
        PLAIN | {"Z": 1.5 * X},
        "Z",
    ),
    "zero": (r"\mathbf Z = \mathbf X + \mathbf 0", PLAIN | {"Z": X}, "Z"),
    "a row of zeros for each token": (r"\mathbf z_t = \mathbf 0", {"Z": X * 0}, "Z"),
    "identity": (
        r"\mathbf Z = \mathbf S - a \mathbf I",
        PLAIN | {"Z": SQUARE - 1.5 * np.eye(d)},
        "Z",
    ),
    "identity in a product": (
        r"\mathbf Z = \mathbf X (\mathbf I_{d} + \mathbf S)",
        PLAIN | {"Z": X + X @ SQUARE},
        "Z",
    ),
    "identity that fits": (
        r"\mathbf Z = a \mathbf I \mathbf X - \mathbf X \mathbf I",
        PLAIN | {"Z": 0.5 * X},
        "Z",
    ),
    "identity, divided": (
        r"\mathbf Z = \mathbf S - \frac{\mathbf I}{a}",
        PLAIN | {"Z": SQUARE - np.eye(d) / 1.5},
        "Z",
    ),
    "ones, divided by a column": (
        r"\boldsymbol\sigma = \frac{\mathbf 1}{\mathbf c}",
        {"sigma": 1 / X[:, :1], "c": X[:, :1]},
        "sigma",
    ),
    "row of ones": (r"\mathbf z = \mathbf 1^\top \mathbf X", PLAIN | {"z": X.sum(0)}, "z"),
    "ones as a matrix": (
        r"\mathbf Z = \mathbf X - \frac{1}{T} \mathbf 1_{T} \mathbf 1_{T}^\top \mathbf X",
        PLAIN | {"Z": X - X.mean(0)},
        "Z",
    ),
    "Frobenius": (
        r"z = \lVert \mathbf X \rVert_F^2",
        PLAIN | {"z": (X**2).sum()},
        "z",
    ),
    "distance": (
        r"z = \left\| \mathbf X - \mathbf Y \right\|",
        PLAIN | {"z": np.linalg.norm(X - Y)},
        "z",
    ),
    "absolute": (r"Z_{tj} = |X_{tj}| \lvert Y_{tj} \rvert", PLAIN | {"Z": abs(X * Y)}, "Z"),
    "trace": (
        r"z = \operatorname{tr}(\mathbf X^\top \mathbf Y)",
        PLAIN | {"z": (X * Y).sum()},
        "z",
    ),
    "inner": (r"z = \langle \mathbf X, \mathbf Y \rangle", PLAIN | {"z": (X * Y).sum()}, "z"),
    "largest of all": (r"z = \max(\mathbf X)", PLAIN | {"z": X.max()}, "z"),
    "larger of two": (r"\mathbf Z = \max(\mathbf X, 0)", PLAIN | {"Z": X.clip(0)}, "Z"),
    "least of all": (r"z = \min(\mathbf X)", PLAIN | {"z": X.min()}, "z"),
    "smaller of two": (r"\mathbf Z = \min(\mathbf X, 0)", PLAIN | {"Z": -(-X).clip(0)}, "Z"),
    "product over an index": (r"z_t = \prod_j X_{tj}", PLAIN | {"z": X.prod(1)}, "z"),
    "least": (r"z_t = \min_{j} X_{tj}", PLAIN | {"z": X.min(1)}, "z"),
    "sum that leaves one out": (
        r"Z_{tj} = \sum_{k \neq j} X_{tk}",
        PLAIN | {"Z": X.sum(1, keepdims=True) - X},
        "Z",
    ),
    "the same, in short": (
        r"Z_{tj} = \sum_{k \ne j} X_{tk}",
        PLAIN | {"Z": X.sum(1, keepdims=True) - X},
        "Z",
    ),
    "sum of numbers": (r"z = \sum_{i=0}^{d-1} i^2 + \sum_{i=1}^{d} 1", PLAIN | {"z": 5 + d}, "z"),
    "one letter in two sums, one within the other": (
        r"z = \sum_i v_i \left(v_i + \sum_{i} W_{0,i} i\right)",
        PLAIN | {"z": (v * (v + (W[0] * np.arange(M)).sum())).sum()},
        "z",
    ),
    "a letter of the outer sum that is a size elsewhere": (
        r"z = T + \sum_T \sum_j X_{Tj}",
        PLAIN | {"z": T + X.sum()},
        "z",
    ),
    "diagonal entries": (r"z_j = S_{jj}", PLAIN | {"z": SQUARE.diagonal()}, "z"),
    "diagonal": (
        r"\mathbf z = \operatorname{diag}(\mathbf S)",
        PLAIN | {"z": SQUARE.diagonal()},
        "z",
    ),
    "index that is a number": (r"z = v_p + X_{k p}", PLAIN | {"z": v[2] + X[4, 2]}, "z"),
    "a size below a symbol is an index": (
        r"Z_{Td} = 2 X_{Td}",
        PLAIN | {"Z": 2 * X},
        "Z",
    ),
    "power of a function": (
        r"Z_{tj} = 1 - \tanh^2(X_{tj})",
        PLAIN | {"Z": 1 - np.tanh(X) ** 2},
        "Z",
    ),
    "TeX takes one digit": (r"z = \frac12 + a^23", PLAIN | {"z": 0.5 + 1.5**2 * 3}, "z"),
    "brackets end an argument": (r"z = (\log a) a", PLAIN | {"z": 1.5 * np.log(1.5)}, "z"),
    "minus binds the term": (r"z = -a^2 + a", PLAIN | {"z": -(1.5**2) + 1.5}, "z"),
    "accents and words": (
        r"\mathbf Z = \mathbf W_Q + \tilde{\mathbf W} + \bar{\mathbf W}_{\text{old}}",
        {"Z": 3 * W, "W_Q": W, "W_tilde": 4 * W, "W_bar_old": -2 * W, "W": W},
        "Z",
    ),
    "batched": (
        r"\mathbf Z = \mathbf X \mathbf X^\top + \mathbf S",
        {"Z": BATCH @ BATCH.swapaxes(1, 2) + 1, "X": BATCH, "S": np.ones((T, T))},
        "Z",
    ),
    "ones, batched": (
        r"\mathbf Z = \mathbf X \mathbf 1 + \mathbf 1^\top \mathbf X",
        {"Z": BATCH.sum(2, keepdims=True) + BATCH.sum(1, keepdims=True), "X": BATCH},
        "Z",
    ),
    "identity, batched": (
        r"\mathbf Z = \mathbf S - a \mathbf I",
        {"Z": HEADS - 1.5 * np.eye(d), "S": HEADS, "a": 1.5},
        "Z",
    ),
    "diagonals, batched": (
        r"\mathbf Z = \operatorname{diag}(\mathbf S)",
        {"Z": SQUARES.diagonal(axis1=1, axis2=2)[:, None], "S": SQUARES},
        "Z",
    ),
    # functions of the matrix of each letter
    "row sums of each image": (
        r"\mathbf Z_b = \operatorname{rowsum}(\mathbf X_b)",
        {"Z": BATCH.sum(2, keepdims=True), "X": BATCH},
        "Z",
    ),
    "row means of each image": (
        r"\mathbf Z_b = \operatorname{rowmean}(\mathbf X_b)",
        {"Z": BATCH.mean(2, keepdims=True), "X": BATCH},
        "Z",
    ),
    "largest of each row of each image": (
        r"\mathbf Z_b = \operatorname{rowmax}(\mathbf X_b)",
        {"Z": BATCH.max(2, keepdims=True), "X": BATCH},
        "Z",
    ),
    "softmax of each image": (
        r"\mathbf Z_b = \operatorname{softmax}(\mathbf X_b)",
        {"Z": functional.softmax(torch.from_numpy(BATCH), -1), "X": BATCH},
        "Z",
    ),
    "diagonal of each": (
        r"\mathbf z_b = \operatorname{diag}(\mathbf S_b)",
        {"Z": SQUARES.diagonal(axis1=1, axis2=2), "S": SQUARES},
        "Z",
    ),
    "trace of each": (
        r"z_b = \operatorname{tr}(\mathbf S_b)",
        {"z": np.trace(SQUARES, axis1=1, axis2=2), "S": SQUARES},
        "z",
    ),
    "norm of each": (
        r"z_b = \lVert \mathbf X_b \rVert_2",
        {"z": np.linalg.norm(BATCH, axis=(1, 2)), "X": BATCH},
        "z",
    ),
    "largest of each": (
        r"z_b = \max(\mathbf X_b)",
        {"z": BATCH.max((1, 2)), "X": BATCH},
        "z",
    ),
    "inner product of each": (
        r"z_b = \langle \mathbf X_b, \mathbf X_b \rangle",
        {"z": (BATCH**2).sum((1, 2)), "X": BATCH},
        "z",
    ),
    # names
    "a name in braces, another in Greek": (
        r"\mathbf Z = \mathbf W_{Q} + \mathbf W_\mu",
        {"Z": 3 * W, "W_Q": W, "W_mu": 2 * W},
        "Z",
    ),
    "gradient by an entry of a matrix whose name has a subscript": (
        r"Z_{jk} = \frac{\partial \ell}{\partial (\mathbf W_Q)_{jk}}",
        {"Z": W, "W_Q": 2 * W, "grad_W_Q": W},
        "Z",
    ),
    "letter counted as far as such an entry": (
        r"z_k = \sum_j j (\mathbf W_Q)_{jk}",
        {"z": np.arange(d) @ W, "W_Q": W},
        "z",
    ),
    "letter counted as far as an entry of a row": (
        r"z_t = \sum_j j (\mathbf x_t)_j",
        {"z": X @ np.arange(d), "X": X},
        "z",
    ),
    "letter counted as far as a label": (
        r"z_k = \sum_t t \delta_{k y_t}",
        ENTROPY | {"z": np.bincount(LABELS, weights=np.arange(T), minlength=K)},
        "z",
    ),
    "letter counted as far as an entry below a symbol": (
        r"z_k = \sum_t t \delta_{k,\, (2 \mathbf y)_t}",
        ENTROPY | {"z": np.bincount(2 * LABELS, weights=np.arange(T), minlength=2 * K)},
        "z",
    ),
    "letter counted as far as an entry of a product": (
        r"z_t = \sum_k k (\mathbf X \mathbf W)_{tk}",
        {"z": X @ W @ np.arange(M), "X": X, "W": W},
        "z",
    ),
}

INDICES = {"patches": {"p": "P", "q": "P"}, "positions, even": {"i": "D / 2"}}


def error(name, disturbance=0.0):
    equation, values, reference = FORMULAS[name]
    values = {key: value for key, value in values.items() if value is not None}
    values[reference] = values[reference] + disturbance
    environment = given(values)
    return measure(parse(equation), environment, INDICES.get(name, {})).worst.error


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_has_the_value_of_its_reference(name):
    assert error(name) <= 1e-12


@pytest.mark.parametrize("name", FORMULAS)
def test_it_does_not_hold_for_another_value(name):
    assert error(name, disturbance=0.01) > 1e-4


def test_there_are_enough_formulas():
    assert len(FORMULAS) >= 60
