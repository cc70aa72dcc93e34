"""Write docs/cli.md from `--help` of every command; a test checks that it is up to date."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from typer.main import get_command

from risbench.cli.app import app


def commands(command: click.Command, name: str = "") -> Iterator[str]:
    """Yield the name of a command and of all below it that are not hidden, in the order of the help."""
    yield name
    for part, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from commands(below, f"{name} {part}".strip())


def page() -> str:
    """Return the page."""
    parts = ["# The command line\n\nMade by `make docs` from `risbench --help`; a test fails when it is out of date.\n"]
    env = {**os.environ, "COLUMNS": "110", "TERM": "dumb", "NO_COLOR": "1"}
    for command in commands(get_command(app)):
        words = [sys.executable, "-m", "risbench", *command.split(), "--help"]
        text = subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout
        lines = "\n".join(line.rstrip() for line in text.replace("python -m risbench", "risbench").strip().splitlines())
        parts.append(f"## {('risbench ' + command).strip()}\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(page(), encoding="utf-8")
