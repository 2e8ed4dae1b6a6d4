"""The companion library of *The Vision Transformer, Derived*."""
