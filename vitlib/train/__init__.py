"""Training: a recipe in, a tested model and its record out."""

from vitlib.train.evaluate import Evaluation, evaluate
from vitlib.train.folder import WEIGHTS
from vitlib.train.loop import Run, train
from vitlib.train.recipes import RECIPES, Digits, Recipe

__all__ = ["RECIPES", "WEIGHTS", "Digits", "Evaluation", "Recipe", "Run", "evaluate", "train"]
