r"""Printed formulas, run as they are printed.

A page's displays are parsed from their LaTeX, evaluated in float64 on random values of their
symbols, and compared with a truth that does not share their derivation::

    page = proof.open_page("attention/gradients")
    attention = proof.Computation(
        inputs={"Q": "T d", "K": "T d", "V": "T d"},
        steps={
            "S": lambda Q, K, d: Q @ K.mT / d**0.5,
            "A": lambda S: torch.softmax(S, dim=-1),
            "O": lambda A, V: A @ V,
        },
    )
    page.check(
        "eq-grad-v",
        attention,
        mistakes=[proof.edit(r"\mathbf A^\top", r"\mathbf A", "the transpose is lost")],
    )

`vitlib.proof.latex` holds the grammar, `vitlib.proof.evaluate` what it means.
"""

from vitlib.proof.chapter import Equation, audit, equations, evidence_in
from vitlib.proof.edits import Edit, edit
from vitlib.proof.errors import FormulaError, ShapeError
from vitlib.proof.evidence import MIME, Evidence, Refutation
from vitlib.proof.ledger import Page, open_page
from vitlib.proof.oracles import Computation
from vitlib.proof.samplers import (
    Sampler,
    constant,
    integers,
    normal,
    one_hot,
    outcomes,
    positive,
    probabilities,
)

__all__ = [
    "MIME",
    "Computation",
    "Edit",
    "Equation",
    "Evidence",
    "FormulaError",
    "Page",
    "Refutation",
    "Sampler",
    "ShapeError",
    "audit",
    "constant",
    "edit",
    "equations",
    "evidence_in",
    "integers",
    "normal",
    "one_hot",
    "open_page",
    "outcomes",
    "positive",
    "probabilities",
]
