"""Predictions, their scores, and what they look like."""
