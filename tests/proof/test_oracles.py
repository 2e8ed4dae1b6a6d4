from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from vitlib import proof
from vitlib.proof.latex import parse
from vitlib.proof.measure import measure
from vitlib.proof.oracles import array_functions, given


def rng(seed=0):
    return np.random.default_rng(seed)


ATTENTION = proof.Computation(
    inputs={"Q": "T d", "K": "U d", "V": "U c"},
    steps={
        "S": lambda Q, K, d: Q @ K.mT / d**0.5,
        "A": lambda S: torch.softmax(S, dim=-1),
        "O": lambda A, V: A @ V,
    },
)


def error(latex, environment, indices=()):
    return measure(parse(latex, environment.functions), environment, dict(indices)).worst.error


# Sizes and inputs


def test_sizes_are_drawn_all_different_and_fit_the_inputs():
    for seed in range(20):
        case = ATTENTION(rng(seed))
        sizes = {name: case.scalars[name] for name in case.sizes}
        assert set(sizes) == {"T", "U", "d", "c"}
        assert len(set(sizes.values())) == 4
        assert all(2 <= size <= 7 for size in sizes.values())
        assert case.arrays["K"].shape == (sizes["U"], sizes["d"])


def test_sizes_are_drawn_from_2_to_7_unless_said_otherwise():
    drawn = {proof.Computation({"x": "n"}, {})(rng(seed)).scalars["n"] for seed in range(50)}
    assert drawn == set(range(2, 8))


def test_the_same_generator_draws_the_same_case():
    first, second = ATTENTION(rng(3)), ATTENTION(rng(3))
    np.testing.assert_array_equal(first.arrays["O"], second.arrays["O"])
    np.testing.assert_array_equal(first.gradient("Q"), second.gradient("Q"))


def test_sizes_may_be_fixed_or_follow_from_others():
    computation = proof.Computation(
        inputs={"X": "T D 1"},
        steps={"Y": lambda X, epsilon, H: X * epsilon * H},
        sizes={"T": 5, "D": lambda H, d: H * d},
        scalars={"epsilon": 1e-5, "half": lambda D: D / 2},
    )
    for seed in range(10):
        case = computation(rng(seed))
        assert case.arrays["X"].shape == (5, case.scalars["H"] * case.scalars["d"], 1)
        assert case.scalars["half"] == case.scalars["D"] / 2
        sizes = [case.scalars[name] for name in case.sizes]
        assert len(set(sizes)) == len(sizes)


def test_more_sizes_than_small_numbers():
    names = [f"size{n}" for n in range(6)]
    case = proof.Computation({"X": " ".join(names)}, {}, largest=4)(rng())
    assert sorted(case.arrays["X"].shape) == list(range(2, 8))


def test_samplers_draw_what_they_say():
    case = proof.Computation(
        inputs={
            "p": proof.positive("B K"),
            "q": proof.probabilities("B K"),
            "Y": proof.one_hot("B K"),
            "y": proof.integers("B", below="K"),
            "zero": proof.constant(0.0, "B 1"),
            "n": proof.normal(""),
        },
        steps={},
    )(rng())
    assert (case.arrays["p"] >= 0.5).all()
    np.testing.assert_allclose(case.arrays["q"].sum(-1), 1)
    assert (np.sort(case.arrays["Y"])[:, -2:] == [0, 1]).all()
    assert case.arrays["y"].dtype.kind == "i"
    assert case.arrays["y"].max() < case.scalars["K"]
    assert (case.arrays["zero"] == 0).all()
    assert "n" in case.scalars


def test_samplers_keep_to_their_ranges_and_reach_their_ends():
    sizes = {"n": 3}
    p = proof.positive("2 1000")(rng(), sizes)
    assert p.shape == (2, 1000)
    assert 0.5 <= p.min() < 0.51 < 1.99 < p.max() <= 2
    q = proof.probabilities("2 1000 5")(rng(), sizes)
    assert q.shape == (2, 1000, 5)
    np.testing.assert_allclose(q.sum(-1), 1)
    assert 8 < (q.max(-1) / q.min(-1)).max() <= 10
    Y = proof.one_hot("2 4 n")(rng(), sizes)
    assert Y.shape == (2, 4, 3)
    assert (np.sort(Y) == [0, 0, 1]).all()
    assert (Y.sum((0, 1)) > 0).all()
    assert set(proof.integers("100", below=3)(rng(), sizes)) == {0, 1, 2}


def test_a_size_that_only_a_scalar_asks_for_is_drawn():
    case = proof.Computation({"x": "n"}, {}, scalars={"half": lambda m: m / 2})(rng())
    assert case.scalars["half"] == case.scalars["m"] / 2
    assert "m" in case.sizes


@pytest.mark.parametrize(
    "rules",
    [
        {"sizes": {"a": lambda b: 2 * b, "b": lambda c: 3 * c}},
        {"scalars": {"a": lambda b: 2 * b, "b": 1.5}},
    ],
)
def test_what_a_rule_asks_for_must_stand_before_it(rules):
    with pytest.raises(ValueError, match="a asks for b, which is not known"):
        proof.Computation({"x": "n"}, {}, **rules)(rng())


def test_what_a_step_asks_for_must_be_known():
    computation = proof.Computation({"X": "T d"}, {"Y": lambda X, Z: X + Z})
    with pytest.raises(ValueError, match="Y asks for Z, which is not known"):
        computation(rng())


def test_a_name_is_an_input_or_a_step():
    with pytest.raises(ValueError, match="X is an input and a step"):
        proof.Computation({"X": "T d"}, {"X": lambda X: X})


# Gradients


@pytest.mark.parametrize("name", ["Q", "K", "V", "S", "A"])
def test_gradients_are_those_of_the_inner_product_with_the_cotangent(name):
    case = ATTENTION(rng())
    cotangent = torch.from_numpy(case.gradient("O"))
    leaf = torch.from_numpy(case.arrays[name]).clone().requires_grad_()
    values = {n: torch.from_numpy(a) for n, a in case.arrays.items()} | {name: leaf}
    S = leaf if name == "S" else values["Q"] @ values["K"].mT / case.scalars["d"] ** 0.5
    A = leaf if name == "A" else S.softmax(-1)
    (expected,) = torch.autograd.grad((A @ values["V"] * cotangent).sum(), leaf)
    np.testing.assert_allclose(case.gradient(name), expected.numpy(), rtol=0, atol=1e-14)


def test_a_last_step_that_is_a_number_is_the_loss():
    computation = proof.Computation({"x": "n"}, {"l": lambda x: (x**2).sum()})
    case = computation(rng())
    assert case.scalars["ell"] == pytest.approx((case.arrays["x"] ** 2).sum())
    np.testing.assert_allclose(case.gradient("x"), 2 * case.arrays["x"])


def test_jacobians_have_the_axes_of_both():
    case = ATTENTION(rng())
    A, S = case.arrays["A"], case.arrays["S"]
    found = case.jacobian("A", "S")
    assert found.shape == A.shape + S.shape
    t, u, w = 1, 0, 1
    assert found[t, u, t, w] == pytest.approx(-A[t, u] * A[t, w])
    assert found[0, u, t, w] == 0


def test_vectors_have_a_jacobian_matrix_and_rows_of_matrices_too():
    case = proof.Computation({"x": "n"}, {"r": lambda x: torch.tanh(x.cumsum(0))})(rng())
    assert (
        error(r"\frac{\partial r_i}{\partial x_j} = \frac{\partial r_i}{\partial x_j}", case) == 0
    )
    latex = (
        r"\frac{\partial \ell}{\partial \mathbf x} = \frac{\partial \ell}{\partial \mathbf r}"
        r"\frac{\partial \mathbf r}{\partial \mathbf x}"
    )
    assert error(latex, case) < 1e-14
    rows = (
        r"\frac{\partial \mathbf a_t}{\partial \mathbf s_t} = \operatorname{diag}(\mathbf a_t)"
        r" - \mathbf a_t^\top \mathbf a_t"
    )
    assert error(rows, ATTENTION(rng())) < 1e-14


def test_columns_and_vectors_have_jacobians_of_entries():
    case = proof.Computation(
        {"X": "T D", "b": "D"},
        {"mu": lambda X: X.mean(-1, keepdim=True), "Y": lambda X, b: X + b},
    )(rng())
    assert error(r"\sum_j \frac{\partial \mu_t}{\partial x_{sj}} = \delta_{ts}", case) < 1e-14
    assert error(r"\sum_j \frac{\partial Y_{tj}}{\partial b_k} = 1", case) < 1e-14


def test_a_row_by_a_number_is_not_read():
    case = proof.Computation({"x": "n"}, {"r": lambda x: x.cumsum(0)})(rng())
    with pytest.raises(proof.FormulaError, match="index both"):
        error(r"\mathbf r = \frac{\partial \mathbf r}{\partial x_j}", case)


def test_a_sum_reaches_the_end_of_the_axis_of_a_jacobian():
    case = proof.Computation({"x": "n"}, {"r": lambda x: x.cumsum(0)}, sizes={"n": 3})(rng())
    with pytest.raises(proof.ShapeError, match="k takes 2 values in its sum, this axis has 3"):
        error(r"r_j = \sum_{k=1}^2 \frac{\partial r_j}{\partial x_k}", case)


def test_an_empty_sum_does_not_stand_for_a_whole_axis():
    case = proof.Computation({"x": "n"}, {"y": lambda x: x.sum()}, sizes={"n": 3})(rng())
    with pytest.raises(proof.ShapeError, match="k takes 0 values in its sum, this axis has 3"):
        error(r"y = \sum_{k=0}^{n-4} x_k", case)
    assert error(r"y = y + \sum_{k=0}^{n-4} x_{k+1}", case) <= 1e-12
    assert error(r"y = \sum_{k=0}^{n-1} x_k", case) <= 1e-12


def test_in_an_empty_sum_other_subscripts_still_have_to_be_on_their_axis():
    case = proof.Computation({"X": "n n"}, {"y": lambda X: X.sum()}, sizes={"n": 3})(rng())
    assert error(r"y = y + \sum_{k=0}^{n-4} X_{k+1,2}", case) <= 1e-12
    with pytest.raises(proof.ShapeError, match="takes the values 3 to 3, its axis has 0 to 2"):
        error(r"y = y + \sum_{k=0}^{n-4} X_{k+1,3}", case)


class Wrong(torch.autograd.Function):
    """x², whose backward pass forgets the 2."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0]


def test_finite_differences_catch_a_wrong_backward_pass():
    case = proof.Computation({"X": "T d"}, {"Y": lambda X: Wrong.apply(X)})(rng())
    with pytest.raises(AssertionError, match=r"oracles disagree about the gradient of X"):
        case.gradient("X")
    with pytest.raises(AssertionError, match=r"oracles disagree about the derivative of Y by X"):
        case.jacobian("Y", "X")


def test_finite_differences_catch_the_wrong_derivative_of_a_function():
    derivative = array_functions({"f": Wrong.apply})["f'"]
    with pytest.raises(AssertionError, match=r"oracles disagree about the derivative of f"):
        derivative(np.arange(3.0))


def test_they_catch_it_however_small_it_is():
    derivative = array_functions({"f": lambda x: 1e-10 * Wrong.apply(x)})["f'"]
    with pytest.raises(AssertionError, match=r"oracles disagree about the derivative of f"):
        derivative(np.arange(3.0))


@pytest.mark.parametrize(("slope", "agree"), [(1e-8, True), (1.01e-8, False)])
def test_they_may_differ_by_a_hundred_millionth_of_the_largest_entry(slope, agree):
    class Off(torch.autograd.Function):
        """x at 0, and 0 elsewhere; of that, the backward pass says another slope."""

        @staticmethod
        def forward(ctx, x):
            return x * torch.tensor([1.0, 0.0])

        @staticmethod
        def backward(ctx, grad):
            return grad * torch.tensor([1.0, slope], dtype=torch.float64)

    derivative = array_functions({"f": Off.apply})["f'"]
    with nullcontext() if agree else pytest.raises(AssertionError, match="oracles disagree"):
        assert derivative(np.zeros(2)).tolist() == [1, slope]


def test_functions_have_derivatives_at_whole_numbers():
    derivative = array_functions({"f": torch.square})["f'"]
    np.testing.assert_allclose(derivative(np.arange(3)), [0, 2, 4])


def test_what_the_loss_does_not_depend_on_has_no_gradient():
    case = proof.Computation(
        {"X": "T d", "Z": "T d", "y": proof.integers("T", below="d")}, {"Y": lambda X: 2 * X}
    )(rng())
    for name in ("Z", "y", "nothing"):
        with pytest.raises(KeyError):
            case.gradient(name)
    for name in ("X", "nothing"):
        with pytest.raises(KeyError):
            case.jacobian(name, "Z")


def test_weights_of_a_step_are_no_quantities():
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    case = proof.Computation({"X": "n", "Z": "n"}, {"Y": lambda X, Z: X * weight})(rng())
    np.testing.assert_allclose(case.gradient("X"), case.gradient("Y"))
    with pytest.raises(KeyError):
        case.gradient("Z")


def test_a_quantity_may_have_a_second_name():
    case = proof.Computation(
        {"X": "T d", "shift": proof.constant(0.0, "T 1")},
        {"Y": lambda X, shift: X + shift},
        names={"delta": "grad_shift", "Z": "X"},
    )(rng())
    rowsum = r"\boldsymbol\delta = \operatorname{rowsum}"
    assert error(rowsum + r"\left(\frac{\partial \ell}{\partial \mathbf X}\right)", case) < 1e-14
    assert error(r"\mathbf Z = \mathbf Y", case) < 1e-14


# Functions, names and random variables


def test_functions_are_applied_to_their_arguments_and_primes_are_derivatives():
    case = proof.Computation(
        {"x": "n", "X": "T d"},
        {"r": lambda x: functional.silu(x)},
        functions={"f": functional.silu, "silu": functional.silu},
    )(rng())
    assert error("r_j = f(x_j)", case) < 1e-15
    assert error(r"f'(x_j) = \frac{\partial r_j}{\partial x_j}", case) < 1e-15
    assert error(r"\mathbf r = \operatorname{silu}(\mathbf x)", case) < 1e-15
    slope = r"\operatorname{silu}'(\mathbf X) = f(\mathbf X) + \frac{1 - f(\mathbf X)}{1 + e}"
    assert error(slope, case) > 1e-3
    chain = r"\frac{\partial \ell}{\partial x_j} = \frac{\partial \ell}{\partial r_j} f'(x_j)"
    assert error(chain, case) < 1e-15


def test_a_function_may_take_whole_matrices():
    functions = {"Attention": functional.scaled_dot_product_attention}
    case = proof.Computation(ATTENTION.inputs, ATTENTION.steps, functions=functions)(rng())
    latex = r"\mathbf O = \operatorname{Attention}(\mathbf Q, \mathbf K, \mathbf V)"
    assert error(latex, case) < 1e-14


def test_what_a_function_asserts_of_its_arguments_is_a_matter_of_shape():
    attend = torch.nn.MultiheadAttention(6, 3, batch_first=True).double()
    case = proof.Computation(
        {"X": "T D"},
        {"Y": lambda X: X},
        sizes={"D": 6, "T": 4},
        functions={"MHA": lambda x: attend(x[None], x[None], x[None])[0][0]},
    )(rng())
    with pytest.raises(proof.ShapeError, match=r"MHA does not take these .* dimension of 6"):
        error(r"\mathbf Y = \operatorname{MHA}(\mathbf X^\top)", case)


def test_of_what_a_function_says_the_first_line_is_shown():
    def refuse(array):
        raise ValueError("first\nsecond\nthird")

    case = replace(given({"X": np.eye(2)}), functions={"f": refuse})
    with pytest.raises(proof.ShapeError) as caught:
        error(r"\mathbf X = f(\mathbf X)", case)
    assert caught.value.problem == "f does not take these arguments: first"


def test_arguments_that_a_function_does_not_take_are_a_wrong_shape():
    functions = {"Attention": functional.scaled_dot_product_attention}
    case = proof.Computation(ATTENTION.inputs, ATTENTION.steps, functions=functions)(rng())
    latex = r"\mathbf O = \operatorname{Attention}(\mathbf Q^\top, \mathbf K, \mathbf V)"
    with pytest.raises(proof.ShapeError, match="Attention does not take these arguments"):
        error(latex, case)


def test_bold_and_italic_letters_are_different_names():
    case = proof.Computation({"K": "K d"}, {"Y": lambda K: 2 * K})(rng())
    latex = (
        r"\operatorname{tr}\left(\mathbf 1_{K}^\top \mathbf 1_{K}\right) \mathbf Y = 2 K \mathbf K"
    )
    assert error(latex, case) < 1e-15


def test_means_and_variances_of_random_variables():
    faces = np.array([[a, b] for a in range(1, 7) for b in range(1, 7)], dtype=float)
    case = given({"x": proof.outcomes(faces), "n": 2})
    assert error(r"\operatorname{E}(x_j) = \frac72", case) < 1e-15
    assert (
        error(r"\operatorname{Var}(\operatorname{rowsum}(\mathbf x)) = n \frac{35}{12}", case)
        < 1e-14
    )
    assert error(r"\operatorname{Var}(x_0 x_1) = \operatorname{Var}(x_0)^2", case) > 1e-3
    assert error(r"x_0 = \operatorname{E}(x_0)", case) > 1e-3


def test_variances_of_entries():
    faces = np.array([[a, 2 * b] for a in range(1, 7) for b in range(1, 7)], dtype=float)
    case = given({"x": proof.outcomes(faces), "z": faces.var(axis=0)})
    assert error(r"z_j = \operatorname{Var}(x_j)", case) < 1e-14


def test_tensors_are_given_with_or_without_gradients():
    assert given({"x": torch.ones(2, requires_grad=True)}).arrays["x"].tolist() == [1, 1]


# What errors are relative to


def test_given_gradients_are_measured_against_the_largest_of_them():
    case = given({"x": np.ones(2), "grad_x": np.full(2, 1e-15), "grad_y": np.full(2, 4.0)})
    zero = r"\frac{\partial \ell}{\partial \mathbf x} = \mathbf 0"
    assert error(zero, case) == pytest.approx(1e-15 / 4)


def test_sides_that_vanish_are_measured_against_the_arrays_that_enter():
    case = given({"X": np.arange(12.0).reshape(3, 4) / 7})
    centred = r"\mathbf X - \operatorname{rowmean}(\mathbf X)"
    assert error(rf"\operatorname{{rowsum}}\left({centred}\right) = \mathbf 0", case) < 1e-15


@pytest.mark.parametrize(("side", "scale"), [(1e-9, 1), (1.01e-9, 1.01e-9)])
def test_a_side_vanishes_up_to_a_billionth_of_what_enters(side, scale):
    case = given({"x": np.array([1, side])})
    assert error("x_1 = 0", case) == pytest.approx(side / scale)


def test_numbers_alone_are_measured_against_themselves():
    assert error(r"10^{-10} = 2 \cdot 10^{-10}", given({})) == pytest.approx(0.5)


def test_whole_numbers_of_python_are_sizes_and_those_of_numpy_are_places():
    case = given({"X": np.eye(3), "T": 3, "y": np.int64(1)})
    assert error(r"X_{T y} = \delta_{T y}", case) == 0
    assert error(r"X_{y y} = 1", case) == 0
