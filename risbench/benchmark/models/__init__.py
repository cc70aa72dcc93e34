"""The reference models, and the registry that finds them."""
