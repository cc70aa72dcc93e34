"""The formats of a release, one module each: how it is written, checked and opened."""
