"""What is rewritten for speed, each piece the twin of a readable one in `vitlib.nn`.

A derived function takes its fast twin wherever that fits: on a CPU, in float32 or float64, with
nothing frozen, for the usual options. Elsewhere, and within `readable()`, it is computed as its
chapter derives it. Either way it is the same function with the same gradients, up to rounding;
`tests/fast` compares them.
"""

from vitlib.fast.choice import fits, readable

__all__ = ["fits", "readable"]
