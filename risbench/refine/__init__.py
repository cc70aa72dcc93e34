"""Stage 2: a mask for every record from its box, image by image."""

from risbench.refine.run import refine_masks

__all__ = ["refine_masks"]
