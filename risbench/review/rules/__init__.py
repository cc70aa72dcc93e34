"""Decisions without input or output: who sees what, agreement, consensus masks, gold items."""
