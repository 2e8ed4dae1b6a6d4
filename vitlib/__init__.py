"""The companion library of *The Vision Transformer, Derived*."""

from vitlib import fast
from vitlib.config import ViTConfig, list_models
from vitlib.nn.vit import VisionTransformer, create_model
from vitlib.weights import load_model, load_weights, save_weights

__all__ = [
    "ViTConfig",
    "VisionTransformer",
    "create_model",
    "fast",
    "list_models",
    "load_model",
    "load_weights",
    "save_weights",
]
