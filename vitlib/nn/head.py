"""The classification head: from the pooled vector to one number a class.

    y (B, D)   W (D, K)   z (B, K)      z = y W + b

(Dosovitskiy et al. 2021, §3.1, as fine-tuned.) These are logits; the softmax belongs to the loss.
The head is a linear layer, and its backward pass that layer's.
"""

from vitlib.nn.linear import Linear, linear_backward, linear_forward

__all__ = ["Head", "head_backward", "head_forward"]

head_forward = linear_forward
head_backward = linear_backward
Head = Linear
