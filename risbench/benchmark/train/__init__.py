"""Training of a reference model."""
