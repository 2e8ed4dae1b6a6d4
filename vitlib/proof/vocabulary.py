"""The commands of LaTeX that the book's formulas are made of."""

from typing import Literal

GREEK = """
alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi rho
varrho sigma tau upsilon chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Psi Omega
"""
LETTERS = {f"\\{name}" for name in [*GREEK.split(), "ell"]}
FUNCTIONS = {"\\log", "\\ln", "\\exp", "\\tanh", "\\sin", "\\cos", "\\Phi", "\\phi", "\\varphi"}
REDUCTIONS: dict[str, Literal["sum", "prod", "max", "min"]] = {
    "\\sum": "sum",
    "\\prod": "prod",
    "\\max": "max",
    "\\min": "min",
}
BOLD = {"\\mathbf", "\\boldsymbol", "\\bm"}
ACCENTS = {
    "\\hat": "hat",
    "\\widehat": "hat",
    "\\bar": "bar",
    "\\overline": "bar",
    "\\tilde": "tilde",
    "\\widetilde": "tilde",
}
FRACTIONS = {"\\frac", "\\tfrac", "\\dfrac"}
BRACKETS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}"}

# Brackets that are functions of what stands between them: closing bracket, function, arguments.
FUNCTION_BRACKETS = {
    "\\lfloor": ("\\rfloor", "floor", 1),
    "\\lceil": ("\\rceil", "ceil", 1),
    "\\lvert": ("\\rvert", "abs", 1),
    "|": ("|", "abs", 1),
    "\\lVert": ("\\rVert", "norm", 1),
    "\\|": ("\\|", "norm", 1),
    "\\langle": ("\\rangle", "inner", 2),
}

# Commands that end a product; every other one is read as the beginning of a factor.
STOPS = {
    *("\\odot", "\\cdot", "\\times", "\\bmod", "\\top", "\\qquad", "\\}"),
    *("\\rfloor", "\\rceil", "\\rvert", "\\rVert", "\\rangle"),
}
