"""The network: one concept a file, each with its forward and its derived backward pass."""
