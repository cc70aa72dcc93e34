"""Rows of the one table that everything ends in, and what a bench is told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.trials import Failure


@dataclass(frozen=True)
class Options:
    """What the command line says: every how many points, how long, and which experiments."""

    every: int
    seconds: float
    only: tuple[str, ...]
    jobs: int
    seed: int
    scratch: Path

    def wants(self, name: str) -> bool:
        """Return whether an experiment is asked for."""
        return not self.only or any(word in name or name in word for word in self.only)


@dataclass(frozen=True)
class Row:
    """One experiment: how many points were tried, and what went wrong at which."""

    experiment: str
    tried: int
    failures: Sequence[Failure]
    note: str = ""

    def what_fails(self) -> str:
        """Return the kinds of failures with their counts, most often first."""
        counts = Counter(failure.kind for failure in self.failures).most_common()
        return "; ".join(f"{count} {kind}" for kind, count in counts) or self.note


def print_row(row: Row, detailed: int = 3) -> None:
    """Print a row of the table as soon as it is there, and below it an example of each kind of failure."""
    print(f"| {row.experiment} | {row.tried:,} | {len(row.failures)} | {row.what_fails()} |", flush=True)
    for failure in examples(row.failures, detailed):
        print(f"    {failure.kind}: {failure.point}: {failure.detail}", flush=True)


def examples(failures: Iterable[Failure], most: int) -> list[Failure]:
    """Return a few failures of each kind, those that happened elsewhere first."""
    chosen: dict[tuple[str, str], Failure] = {}
    for failure in failures:
        chosen.setdefault((failure.kind, re.sub(r"\d+", "#", failure.detail)), failure)
    counts: Counter[str] = Counter()
    found = []
    for failure in chosen.values():
        counts[failure.kind] += 1
        if counts[failure.kind] <= most:
            found.append(failure)
    return found


def print_head() -> None:
    """Print the table's head."""
    print("| experiment | points tried | failures | what fails |\n| --- | ---: | ---: | --- |", flush=True)
