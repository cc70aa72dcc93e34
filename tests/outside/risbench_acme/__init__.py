"""A package of somebody else, which adds one of each kind to risbench."""
