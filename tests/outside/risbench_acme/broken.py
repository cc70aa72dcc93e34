"""A module that fails when it is imported."""

raise ImportError("libacme.so.3 is missing")
