"""Training: a recipe in, a tested model and its record out."""

from vitlib.train.augmented import draw_sheet, known_images, look_at_data
from vitlib.train.evaluate import Evaluation, evaluate
from vitlib.train.exporting import export, trained_model
from vitlib.train.folder import WEIGHTS
from vitlib.train.judge import evaluate_saved
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
    "draw_sheet",
    "evaluate",
    "evaluate_saved",
    "export",
    "known_images",
    "look_at_data",
    "train",
    "trained_model",
]
