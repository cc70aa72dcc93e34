"""`python -m risbench`."""

from risbench.cli.app import main

main()
