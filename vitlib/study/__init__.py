"""The experiments behind what the book says: commands whose results are stored."""
