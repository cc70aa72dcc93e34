"""The commands of the review, one module each."""
