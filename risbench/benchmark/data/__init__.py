"""Releases as training and test samples."""
