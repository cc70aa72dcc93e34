"""The lists of what was refused and set aside: one line a row, bounded where one fault recurs in very many rows of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from risbench.core.errors import InputError, InvalidRowError, printable
from risbench.core.storage import sha256_of, write_durably
from risbench.core.unexpected import ERRORS_LOG, READER_ERROR, Unexpected
from risbench.formats.source.rows import SetAside

# Of one code in one file: so many lines are whole, so many more say which row it is, and all others are counted on one line.
WHOLE_LINES: Final = 1000
LINES: Final = 100_000
_CODES_SAID: Final = 4
# What lets rows through that a rule set aside.
_OPTIONS: Final = {
    "multi_target": "--multi-target keep reads them",
    "uninformative_empty": "--uninformative keep reads them",
    "uninformative_flagged": "--uninformative keep reads them",
    "uninformative_class_only": "--uninformative keep reads them",
    "uninformative_not_unique": "--uninformative keep reads them",
    "cut_by_window": "--fit pad or --fit keep shows them whole",
}
Line = dict[str, Any]


def quarantine_line(file: str, source_key: str, locator: str, reason: InvalidRowError, raw: str) -> Line:
    """Return the quarantine entry of a refused row: place, field, value, bound, and the raw row's sha256."""
    return {
        "file": printable(file, 300),
        "source_key": printable(source_key, 300),
        "record": locator,
        "code": reason.code,
        "field": reason.field,
        "value": printable(reason.value),
        "bound": printable(reason.bound, 400),
        "raw_sha256": sha256_of(raw.encode("utf-8", "surrogatepass")),
    }


def filter_line(aside: SetAside) -> Line:
    """Return the entry of a row that a rule set aside."""
    return {
        "file": aside.file,
        "source_key": printable(aside.source_key, 300),
        "record": aside.locator,
        "code": aside.code,
        "detail": printable(aside.detail, 300),
    }


def rows_of(lines: Iterable[Mapping[str, Any]]) -> int:
    """Return how many rows some lines stand for."""
    return sum(line.get("rows", 1) for line in lines)


def count_codes(lines: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many rows some lines stand for, by code."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts[line["code"]] += line.get("rows", 1)
    return dict(sorted(counts.items()))


@dataclass
class Refusals:
    """Collects refused rows as lines, and by its name the traceback of each fault of the program."""

    lines: list[Line] = field(default_factory=list)
    traces: dict[str, str] = field(default_factory=dict)
    _seen: Counter[tuple[str, ...]] = field(default_factory=Counter)
    _rest: dict[tuple[str, ...], Line] = field(default_factory=dict)

    def add(self, file: str, source_key: str, locator: str, reason: InvalidRowError, raw: str, rows: int = 1) -> None:
        """Add a refused row, or `rows` that are one item of the reader; every one is counted, whatever its line holds."""
        if isinstance(reason, Unexpected):
            self.traces.setdefault(reason.trace_id, reason.trace)
        fault = {"trace": reason.trace_id} if isinstance(reason, Unexpected) else {}
        key = (file, reason.code, *fault.values())
        self._seen[key] += 1
        if rows > 1:
            self.lines.append({**quarantine_line(file, source_key, locator, reason, raw), "rows": rows})
        elif self._seen[key] <= WHOLE_LINES:
            self.lines.append(quarantine_line(file, source_key, locator, reason, raw))
        elif self._seen[key] <= LINES:
            self.lines.append(
                {"file": printable(file, 300), "record": locator, "source_key": printable(source_key, 300), "code": reason.code, **fault}
            )
        elif key in self._rest:
            self._rest[key]["rows"] += 1
            self._rest[key]["last_record"] = locator
        else:
            self._rest[key] = {
                "file": printable(file, 300),
                "record": locator,
                "last_record": locator,
                "code": reason.code,
                "rows": 1,
                **fault,
            }
            self.lines.append(self._rest[key])


def write_errors_log(folder: Path, quarantine: Sequence[Line], traces: Mapping[str, str]) -> None:
    """Write the tracebacks of a run's reader errors to errors.log, each once with its rows; without any, the log of before goes."""
    path = folder / ERRORS_LOG
    if not traces:
        path.unlink(missing_ok=True)
        return
    rows = [line for line in quarantine if line["code"] == READER_ERROR]
    text = [
        f"{rows_of(rows):,} rows could not be read by a fault of risbench ({READER_ERROR} in quarantine.jsonl); please report what follows"
    ]
    for name, trace in sorted(traces.items()):
        of_it = [line for line in rows if name in (line.get("trace"), *line.get("bound", "").split())]
        places = "; ".join(f"{line['file']} {line['record']}" for line in of_it[:5])
        text.append(f"\n[{name}] {rows_of(of_it):,} rows, such as {places}\n{trace}")
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(path, ("\n".join(text) + "\n").encode("utf-8", "backslashreplace"))


class NothingRead(InputError):
    """A source of which no record came (exit 3): success is never nothing."""


def nothing_read(
    source: Path, seen: int, quarantine: Sequence[Line], filtered: Sequence[Line], more: str, errors_log: Path | None
) -> NothingRead:
    """Return the error of a source that gives no record: counts by code, and of each of the likeliest the first row with what to do."""
    counted = Counter({**count_codes(quarantine), **count_codes(filtered)})
    said = [_first_of(code, count, quarantine, filtered) for code, count in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]
    rest = f"; and {len(said) - _CODES_SAID} more reasons" if len(said) > _CODES_SAID else ""
    log = f"; the tracebacks are in {errors_log}" if errors_log is not None else ""
    rows = f"none of its {seen:,} rows became a record" if seen else "its annotation files hold no row"
    reasons = f": {'; '.join(said[:_CODES_SAID])}{rest}" if said else ""
    return NothingRead(f"{source}: {rows}{reasons}{more}{log}")


def _first_of(code: str, count: int, quarantine: Sequence[Line], filtered: Sequence[Line]) -> str:
    line = next(line for line in (*quarantine, *filtered) if line["code"] == code)
    place = line["file"] if line["record"] in ("file", line["file"]) else f"{line['file']}, {line['record']}"
    if "detail" in line:
        hint = f"; {_OPTIONS[code]}" if code in _OPTIONS else ""
        return f"{count:,} set aside as {code} (first: {place}: {line['detail']}{hint})"
    value = f"{line['field']} = {line['value'][:100]}; " if line.get("value") not in (None, "None", line["file"]) else ""
    return f"{count:,} {code} (first: {place}: {value}{line['bound']})"
