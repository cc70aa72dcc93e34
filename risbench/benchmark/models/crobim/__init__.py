"""CroBIM (arXiv 2410.08613), from its equations: no code of it was ever released."""
