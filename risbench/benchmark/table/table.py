"""A benchmark's table in text, Markdown, LaTeX and JSON: our rows, the differences with their intervals, the papers' rows apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from risbench.benchmark.table.published import SOURCE, WARNING
from risbench.core.storage import to_json, write_durably

METRICS: Final = ("mIoU", "oIoU", "Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9")
_HEADS: Final = ("model", "seeds", "M params", *METRICS, "mIoU 95 %", "against", "mIoU difference, 95 %")


def write_tables(folder: Path, result: dict[str, Any]) -> dict[str, str]:
    """Write table.txt, .md, .tex and .json; return their paths."""
    rows, theirs = our_rows(result), their_rows(result)
    texts = {"txt": as_text(result, rows, theirs), "md": as_markdown(result, rows, theirs), "tex": as_latex(result, rows, theirs)}
    for suffix, text in texts.items():
        write_durably(folder / f"table.{suffix}", text.encode())
    write_durably(folder / "table.json", to_json(result))
    return {suffix: str(folder / f"table.{suffix}") for suffix in (*texts, "json")}


def our_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return our rows as text, in percent."""
    made = []
    for row in result["rows"]:
        difference = row.get("difference")
        low, high = row["interval"]
        made.append(
            [
                row["name"],
                str(len(row["seeds"])) if row["seeds"] else "-",
                f"{row['parameters'] / 1e6:.1f}" if row["parameters"] else "-",
                *(f"{100 * row['figures'][name]:.2f}" for name in METRICS),
                f"[{100 * low:.2f}, {100 * high:.2f}]",
                difference["against"] if difference else "",
                f"{100 * difference['value']:+.2f} [{100 * difference['interval'][0]:+.2f}, {100 * difference['interval'][1]:+.2f}]"
                if difference
                else "",
            ]
        )
    return made


def their_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the papers' rows as text."""
    return [
        [f"{row['model']} ({row['backbone']})", *(f"{row[name]:.2f}" if name in row else "-" for name in METRICS)]
        for row in result["published"]
    ]


def caption(result: dict[str, Any]) -> str:
    """Return what was measured on what."""
    budget = f"; every model {result['steps']} steps of {result['batch']} samples" if result["steps"] else ""
    changed = "".join(f", {change}" for change in result["changes"] if ".weights=" not in change and not change.startswith("recipe.steps="))
    begun = f"Begun with {'; '.join(result['begun']) or 'nothing that is learnt'}"
    tried = f", the best of {len(result['rates'])} learning rates by val" if len(result["rates"]) > 1 else ""
    return (
        f"{result['release']}, {result['split']}: {result['n']:,} samples on {result['images']:,} images, "
        f"{result['reviewed']:,} of their masks reviewed by people, {result['protocol']} protocol, "
        f"configuration {result['config']}{changed}{budget}{tried}{_losses(result)}. {begun}. "
        + (f"Boxes are given to {result['sam']}. " if result["sam"] else "")
        + f"Figures in percent, means over seeds; intervals draw images"
        f"{' and seeds' if any(len(row['seeds']) > 1 for row in result['rows']) else ''}."
        + _compared(result)
        + (f" Left out: {', '.join(f'{count:,} {code}' for code, count in result['left_out'].items())}." if result["left_out"] else "")
    )


def _losses(result: dict[str, Any]) -> str:
    """Return what the models lessen, where they do not all lessen the same."""
    kinds: dict[str, list[str]] = {}
    for name, loss in result["losses"].items():
        kinds.setdefault(loss, []).append(name)
    return "; trained for " + ", ".join(f"{loss} ({', '.join(names)})" for loss, names in kinds.items()) if len(kinds) > 1 else ""


def _compared(result: dict[str, Any]) -> str:
    """Return a warning where the papers' rows are of other samples than ours."""
    wanted = result["published_n"]
    if wanted is None or abs(wanted - result["n"]) <= 1:
        return ""
    return f" {result['published_on']} has {wanted:,} samples in its {result['split']} split, and these are {result['n']:,}: not the same."


def as_text(result: dict[str, Any], rows: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> str:
    """Return the table in columns."""
    parts = [caption(result), "", _columns([_HEADS, *rows])]
    if theirs:
        parts += ["", f"Published, on {result['published_on']} ({SOURCE}):", _columns([("method", *METRICS), *theirs]), "", WARNING]
    return "\n".join(parts) + "\n"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def as_markdown(result: dict[str, Any], rows: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> str:
    """Return the table in Markdown."""
    parts = [caption(result), "", *_pipes(_HEADS, rows)]
    if theirs:
        parts += ["", f"Published, on {result['published_on']} ({SOURCE}):", "", *_pipes(("method", *METRICS), theirs), "", WARNING]
    return "\n".join(parts) + "\n"


def _pipes(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in heads[1:])]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (heads, rule, *escaped)]


def as_latex(result: dict[str, Any], rows: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> str:
    """Return a tabular that a paper takes as it is (booktabs)."""
    wanted = [0, *range(3, 4 + len(METRICS)), len(_HEADS) - 1]
    against = sorted({row["difference"]["against"] for row in result["rows"] if "difference" in row})
    heads = [*(_HEADS[place] for place in wanted[:-1]), f"mIoU difference from {against[0]}, 95 %" if against else _HEADS[-1]]
    lines = [r"\begin{tabular}{l" + "r" * (len(wanted) - 1) + "}", r"\toprule", _latex_row(heads), r"\midrule"]
    lines += [_latex_row([row[place] for place in wanted]) for row in rows]
    if theirs:
        head = _latex(f"Published, on {result['published_on']} ({SOURCE})")
        lines += [r"\midrule", rf"\multicolumn{{{len(wanted)}}}{{l}}{{{head}}} \\"]
        lines += [_latex_row([*row, "", ""]) for row in theirs]
        lines += [rf"\multicolumn{{{len(wanted)}}}{{p{{\linewidth}}}}{{\footnotesize {_latex(WARNING)}}} \\"]
    lines += [r"\bottomrule", rf"\multicolumn{{{len(wanted)}}}{{p{{\linewidth}}}}{{\footnotesize {_latex(caption(result))}}} \\"]
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_latex(cell) for cell in cells) + r" \\"


def _latex(text: str) -> str:
    return "".join(
        {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}.get(letter, letter) for letter in text
    )
