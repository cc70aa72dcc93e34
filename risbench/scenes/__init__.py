"""Generated overhead scenes with exact masks, from a seed: used by the demo and the tests."""
