"""Is a check worth something? It has to fail when the formula has lost something.

`python -m vitlib.proof.mutants [chapter.md ...]` takes a ⊤, a sign, a factor, a sum out of every
display that a chapter checks, one at a time, and expects every check to fail.
"""

from vitlib.proof.mutants.generator import Mutant, mutants

__all__ = ["Mutant", "mutants"]
