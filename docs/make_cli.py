"""Write docs/cli.md from `--help` of every command; a test checks that it is up to date."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMANDS = (
    "",
    "ingest",
    "refine-masks",
    "export",
    "audit",
    "validate",
    "stats",
    "show",
    "weights",
    "weights list",
    "weights fetch",
    "weights verify",
    "truth",
    "truth link",
    "train-adapter",
    "train-builtin",
    "review",
    "review serve",
    "review connect",
    "review annotators",
    "review annotators add",
    "review annotators pause",
    "review annotators renew",
    "review push",
    "review pull",
    "review reassign",
    "review status",
    "review consensus",
    "review adjudicate",
    "review triage",
    "review assist",
    "review backup",
    "review restore",
    "doctor",
    "demo",
)


def page() -> str:
    """Return the page."""
    parts = ["# The command line\n\nMade by `make docs` from `risbench --help`; a test fails when it is out of date.\n"]
    env = {**os.environ, "COLUMNS": "110", "TERM": "dumb", "NO_COLOR": "1"}
    for command in COMMANDS:
        words = [sys.executable, "-m", "risbench", *command.split(), "--help"]
        text = subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout
        lines = "\n".join(line.rstrip() for line in text.replace("python -m risbench", "risbench").strip().splitlines())
        parts.append(f"## {('risbench ' + command).strip()}\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(page(), encoding="utf-8")
