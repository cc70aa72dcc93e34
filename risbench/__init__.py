"""risbench: boxes and sentences on overhead images in, reviewed and split segmentation triplets out."""

__version__ = "0.2.0"
