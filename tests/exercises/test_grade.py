"""A grade says what is right and what is not yet, and never raises."""

import numpy as np
import pytest
import torch

from vitlib.exercises import Grade, exercise, expect, grade, names, results


@pytest.fixture(autouse=True)
def doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitlib.exercises._CHECKS", {})

    @exercise("double")
    def _(answer) -> None:
        expect(answer(torch.ones(2, 3)), 2 * torch.ones(2, 3), "twice of one is two")
        expect(answer(4.0), 8.0, "numbers are doubled too")


def test_a_right_answer_passes_every_check() -> None:
    result = grade("double", lambda x: 2 * x)
    assert result == Grade("double", True, ("twice of one is two", "numbers are doubled too"))
    assert repr(result).startswith("✓ double\n")


@pytest.mark.parametrize(
    ("answer", "remark"),
    [
        (lambda x: None, "returns nothing yet. Wanted: twice of one is two."),
        (lambda x: "two", "returns a str, not a tensor."),
        (lambda x: torch.ones(3), "returns shape (3,) where (2, 3) is right."),
        (lambda x: 2 * x + 0.5, "is off by 0.5."),
        (lambda x: torch.full((2, 3), torch.nan), "is off by nan."),
        (lambda x: 1 / 0, "raises ZeroDivisionError: division by zero"),
        (lambda: 1, "raises TypeError: "),
    ],
)
def test_a_wrong_answer_is_told_why(answer, remark: str) -> None:
    result = grade("double", answer)
    assert not result.passed
    assert remark in result.remarks[-1]
    assert repr(result).startswith("✗ double\n")


def test_what_was_right_before_the_first_mistake_is_said() -> None:
    result = grade("double", lambda x: 2 * x if isinstance(x, torch.Tensor) else x)
    assert result.remarks == (
        "twice of one is two",
        "is off by 4. Wanted: numbers are doubled too.",
    )


def test_a_plain_number_keeps_its_digits() -> None:
    @exercise("third")
    def _(answer) -> None:
        expect(answer(), torch.tensor(1 / 3, dtype=torch.float64), "a third")

    assert grade("third", lambda: 1 / 3).passed
    assert grade("third", lambda: np.float64(1) / 3).passed
    assert not grade("third", lambda: np.int64(1)).passed


def test_an_unknown_exercise_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no exercise is called 'duoble'\. Did you mean 'double'"):
        grade("duoble", abs)


def test_names_are_sorted() -> None:
    assert list(names()) == sorted(names())
    assert "double" in names()


@pytest.mark.parametrize(
    ("answer", "remark"),
    [
        (lambda x: (x, -x), None),
        (lambda x: [x, -x], None),
        (lambda x: None, "returns nothing yet. Wanted: x itself."),
        (lambda x: x, "returns a Tensor, not 2 results."),
        (lambda x: (x,), "returns 1 results, not 2."),
        (lambda x: (x, x), "is off by 2. Wanted: its negative."),
    ],
)
def test_an_answer_of_several_parts(answer, remark: str | None) -> None:
    @exercise("both")
    def _(answer) -> None:
        same, negative = results(answer(torch.ones(2)), 2)
        expect(same, torch.ones(2), "x itself")
        expect(negative, -torch.ones(2), "its negative")

    result = grade("both", answer)
    assert result.passed == (remark is None)
    assert remark is None or result.remarks[-1] == remark
