"""`python -m risbench`."""

from risbench.cli import main

main()
