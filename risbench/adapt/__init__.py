"""Training of masks: the built-in SAM and adapters to a user's own data."""
