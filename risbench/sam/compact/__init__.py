"""The built-in compact SAM: its network, predictor and weights."""
