"""Training: a recipe in, a tested model and its record out."""

from vitlib.train.augmented import draw_sheet
from vitlib.train.evaluate import Evaluation, evaluate
from vitlib.train.exporting import export, trained_model
from vitlib.train.folder import WEIGHTS
from vitlib.train.judge import Tested, evaluate_saved
from vitlib.train.loop import Run, train
from vitlib.train.recipe import Engine, Recipe
from vitlib.train.recipes import RECIPES, Digits
from vitlib.train.stopping import Interrupted

__all__ = [
    "RECIPES",
    "WEIGHTS",
    "Digits",
    "Engine",
    "Evaluation",
    "Interrupted",
    "Recipe",
    "Run",
    "Tested",
    "draw_sheet",
    "evaluate",
    "evaluate_saved",
    "export",
    "train",
    "trained_model",
]
