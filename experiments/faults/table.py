"""Rows of the one table that everything ends in, and what a bench is told."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from faults.trials import Failure

Point = TypeVar("Point")


@dataclass(frozen=True)
class Options:
    """What the command line says: every how many points, or how many; how long; which rows."""

    every: int
    points: int
    seconds: float
    only: tuple[str, ...]
    jobs: int
    seed: int
    scratch: Path

    def wants(self, name: str) -> bool:
        """Return whether a row is asked for."""
        return not self.only or any(name == word[:-1] if word.endswith("$") else word in name for word in self.only)

    def wants_any_of(self, kind: str) -> bool:
        """Return whether rows whose names begin so may be asked for."""
        return not self.only or any(word.startswith(kind) or word in kind for word in self.only)

    def some_of(self, points: Sequence[Point]) -> list[Point]:
        """Return the points to try."""
        if not self.points:
            return list(points[:: self.every])
        count = min(self.points, len(points))
        return [points[round(index * (len(points) - 1) / max(1, count - 1))] for index in range(count)]


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


class Table:
    """The table, printed as it grows: rows to read, or a JSON object each."""

    def __init__(self, as_json: bool) -> None:
        """Begin with nothing."""
        self._as_json = as_json
        self.tried = self.failures = 0

    def head(self, columns: str = "| experiment | points tried | failures | what fails |\n| --- | ---: | ---: | --- |") -> None:
        """Print the table's head."""
        if not self._as_json:
            print(columns, flush=True)

    def add(self, row: Row, most: int = 3) -> None:
        """Print a row as soon as it is there, and below it a few failures of each kind."""
        self.tried, self.failures = self.tried + row.tried, self.failures + len(row.failures)
        if self._as_json:
            print(json.dumps(asdict(row)), flush=True)
            return
        print(f"| {row.experiment} | {row.tried:,} | {len(row.failures)} | {row.what_fails()} |", flush=True)
        for failure in examples(row.failures, most):
            print(f"    {failure.kind}: {failure.point}: {failure.detail}", flush=True)

    def add_planted(self, what: str, row: Row) -> None:
        """Print whether a planted bug was caught."""
        if self._as_json:
            print(json.dumps({"planted": what, **asdict(row)}), flush=True)
            return
        print(f"| {what} | {row.experiment} | {row.tried:,} | {len(row.failures) or 'MISSED'} |", flush=True)

    def end(self, seconds: float) -> None:
        """Print what it comes to."""
        if not self._as_json:
            print(f"{self.tried:,} points, {self.failures} failures, {seconds / 60:.0f} minutes", flush=True)


def examples(failures: Iterable[Failure], most: int) -> list[Failure]:
    """Return a few failures of each kind, of those that say the same one."""
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
