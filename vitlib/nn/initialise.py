"""How weights start, as in timm.

Matrices and positions come from a normal distribution of standard deviation 0.02, cut off at ±2;
class token and registers likewise with 1e-6; biases are zero, gains one. The patch embedding keeps
the initialisation of a convolution.
"""

from torch import nn


def initialise(model: nn.Module) -> None:
    """Draw the weights of a `VisionTransformer` from the default generator."""
    for name, parameter in model.named_parameters(recurse=False):
        nn.init.trunc_normal_(parameter, std=0.02 if name == "pos_embed" else 1e-6)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            weight, *biases = module.parameters()
            nn.init.trunc_normal_(weight, std=0.02)
            for bias in biases:
                nn.init.zeros_(bias)
