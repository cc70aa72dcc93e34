"""How results look on a terminal. No logic: what is printed is what the functions returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from risbench.core.errors import printable
from risbench.core.record import SPLITS

_CONSOLE = Console(highlight=False, soft_wrap=True)


def say(line: str = "") -> None:
    """Print one line, made safe for a terminal."""
    _CONSOLE.print(printable(line, 5000), markup=False)


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table; its first column is text, the others stand right."""
    shown = Table(title=escape(title), title_justify="left", title_style="bold", pad_edge=False, box=None)
    for index, column in enumerate(columns):
        shown.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(escape(f"{cell:,}" if isinstance(cell, int) else printable(str(cell), 500)) for cell in row))
    _CONSOLE.print(shown)


def _reconciliation(result: Mapping[str, Any]) -> None:
    counts = result["counts"]
    rows: list[list[Any]] = [["rows in", counts["in"], ""]]
    rows += [["  set aside", number, code] for code, number in result.get("filtered_by_code", {}).items()]
    rows += [["  quarantined", number, code] for code, number in result.get("quarantined_by_code", {}).items()]
    rows += [["records out", counts["out"], ""]]
    rows += [["  with problem", number, code] for code, number in result.get("problems_by_code", {}).items()]
    rows += [["  note", number, code] for code, number in result.get("notes", {}).items()]
    table("reconciliation (in = out + quarantined + set aside)", ["", "rows", "reason"], rows)


def print_explained(result: dict[str, Any]) -> None:
    """Print a line a format."""
    for name, line in result["formats"].items():
        say(f"{name}: {line}")
    for reason in result["left_out"]:
        say(f"left out: {reason}")


def print_ingest(result: dict[str, Any]) -> None:
    """Print what was guessed and what became of every row."""
    say(result["said"])
    for line in result["boxes"]:
        say(line)
    if result["scene"] is not None:
        say(result["scene"]["said"])
    for unread in result["unread_sentences"]:
        where = f"{unread['rows']:,} rows of {unread['file']} have a field {unread['field']!r} that seems to hold their sentence"
        say(f"warning: {where}, and it is NOT READ; COCO and GeoJSON are read with their sentence in a field `expression`")
    _reconciliation(result)
    passed_over = result["passed_over"]
    if forks := passed_over.get("resource_fork", 0):
        say(f"{forks:,} resource forks of macOS (._*, __MACOSX) were passed over")
    if links := passed_over.get("link_inside", 0):
        say(f"{links:,} links lead to folders of the source itself and were passed over: these are read where they lie")
    if "images" in result:
        copies = result["duplicate_images"]
        shared = copies.get("overlapping_pairs_of_different_scenes", "unknown")  # the stage of an older version says nothing
        say(
            f"{result['images']:,} images of {result['scenes']:,} scenes; {copies['exact']} exact copies, {copies['near_pairs']} near pairs"
        )
        say(f"pairs of images of different scenes that show the same ground: {shared}")
    unused = result.get("images_without_rows", {"count": 0, "first": []})
    if unused["count"]:
        say(f"{unused['count']:,} images of the source have no row and were left: {', '.join(unused['first'][:3])} ...")
    _state(result)


def _state(result: Mapping[str, Any]) -> None:
    say(f"{result['state']}" + (f" in {result['seconds']} s" if result["state"] == "done" else ""))


def print_refine(result: dict[str, Any]) -> None:
    """Print the round's counts."""
    if "said" in result:
        say(result["said"])
    say(f"round {result['round']}, engine {result['options']['engine']}")
    _reconciliation(result)
    _state(result)


def print_export(result: dict[str, Any]) -> None:
    """Print splits, what was left out, and the overlap matrix."""
    splits = result["splits"]
    table(
        f"split by {result['split_rule']} (seed {result['seed']})",
        ["split", "triplets", "wanted", "scenes", "images"],
        [[name, *(splits[name][key] for key in ("triplets", "wanted", "scenes", "images"))] for name in SPLITS],
    )
    _print_overlap(result)
    if result["left_out"]:
        table("left out", ["reason", "records"], [[code, number] for code, number in result["left_out"].items()])
    for name, found in result.get("written", {}).items():  # a release of an older version says nothing
        if "lossy" in found:
            say(f"{name} holds less: {found['lossy']} (mean IoU {found['mean_iou']}, lowest {found['lowest_iou']})")
    for warning in result["warnings"]:
        say(f"warning: {warning}")
    say(f"{result['state']}: {result['path']}")


def _print_overlap(result: Mapping[str, Any]) -> None:
    for title, key in (
        ("shared scenes", "scenes"),
        ("near-duplicate image pairs", "near_duplicates"),
        ("pairs of images of different scenes that show the same ground", "overlapping"),
    ):
        if key in result["overlap"]:  # a release of an older version has less
            matrix = result["overlap"][key]
            table(title, ["", *SPLITS], [[row, *(matrix[row][column] for column in SPLITS)] for row in SPLITS])
    if "leaked" not in result:
        return
    for of in (result, result["beside"]):
        if of:
            rule = of.get("rule", result["split_rule"])
            of_test, of_val = (f"{of['leaked'][split]:,} of {of['splits'][split]['triplets']:,}" for split in ("test", "val"))
            say(f"split {rule}: triplets on ground that train shows: {of_test} in test, {of_val} in val")
    worst = max(result["evenness"].values(), key=lambda row: float(row["largest_difference"]))
    say(f"largest difference of a share: {100 * worst['largest_difference']:.2f} points ({worst['of']}, {worst['in']})")


def print_audit(result: dict[str, Any]) -> None:
    """Print the scores and their breakdowns."""
    low, high = result["mean_iou_interval"]
    say(
        f"{result['n']:,} records scored; mean IoU {result['mean_iou']:.3f} [{low:.3f}, {high:.3f}], "
        f"boundary IoU {result['boundary_iou']:.3f} [{result['boundary_iou_interval'][0]:.3f}, {result['boundary_iou_interval'][1]:.3f}]"
    )
    shares = result["share"]
    table(
        "share of masks with IoU of at least",
        ["IoU", "share", "95 % interval"],
        [[key, f"{shares[key]:.3f}", "[{:.3f}, {:.3f}]".format(*result["share_interval"][key])] for key in shares],
    )
    for name, groups in result["by"].items():
        table(
            f"by {name}",
            [name, "n", "mean IoU", ">= .8"],
            [[key, row["n"], f"{row['mean_iou']:.3f}", f"{row['share_0.8']:.3f}"] for key, row in groups.items()],
        )
    for code, number in result["not_scored"].items():
        say(f"not scored, {code}: {number:,}")
    for line in result["sizes"]:
        say(line)
    if result["ambiguous"]:
        say(f"ambiguous matches, not scored: {len(result['ambiguous']):,}, such as {result['ambiguous'][0]}")
    if result["sheet"]:
        say(f"worst cases: {result['sheet']}")


def print_verify(result: dict[str, Any]) -> None:
    """Print what is wrong with a release, or that nothing is."""
    for fault in result["faults"][:50]:
        say(f"fault: {fault}")
    if len(result["faults"]) > 50:
        say(f"... and {len(result['faults']) - 50:,} more (--json lists all)")
    for name in result.get("not_looked_into", ()):
        say(f"{name}: is of a package that is not installed here; its files are compared with their sums, and not looked into")
    said = f"{result['files']:,} files, {result['bytes'] / 1e6:,.1f} MB"
    if result["faults"]:
        say(f"{said}: {len(result['faults']):,} faults")
    else:
        say(f"{said}, {result['triplets']:,} triplets as {', '.join(result['formats'])}: all as released")


def print_validate(result: dict[str, Any]) -> None:
    """Print what was checked and every fault."""
    for fault in result["faults"][:50]:
        say(f"fault: {fault}")
    if len(result["faults"]) > 50:
        say(f"... and {len(result['faults']) - 50:,} more (--json lists all)")
    where = f"{result['records']:,} records in {len(result['stages'])} stages, {result['images']:,} images"
    say(f"checked {where}: {len(result['faults'])} faults")
    for code, number in result["problems"].items():
        say(f"records held back by a stage, {code}: {number:,}")
    for line in result["held_back"][:20]:
        say(f"to be settled in review: {line}")
    if len(result["held_back"]) > 20:
        say(f"... and {len(result['held_back']) - 20:,} more (--json lists all)")


def print_report(result: dict[str, Any]) -> None:
    """Print where the page is."""
    say(f"{result['records']:,} records on {result['images']:,} images")
    if result["missing_images"]:
        say(f"warning: the images of {result['missing_images']:,} records cannot be shown")
    say(f"{result['state']}: {result['path']} (open it in a browser)")


def print_stats(result: dict[str, Any]) -> None:
    """Print the Table I row and where the figures are."""
    row = result["table_1"]
    table("Table I", list(row), [list(row.values())])
    table("sentences", ["figure", "value", "paper"], [[name, *pair] for name, pair in result["sentences"].items()])
    for path in result["figures"]:
        say(f"figure: {path}")


def print_show(result: dict[str, Any]) -> None:
    """Print the record's history."""
    for line in result["history"]:
        say(line)
    say(f"picture: {result['picture']}")


def print_doctor(result: dict[str, Any]) -> None:
    """Print the findings."""
    for group, found in result.items():
        table(group, ["", "found"], [[name, value] for name, value in found.items()])


def print_weights(result: dict[str, Any]) -> None:
    """Print the manifest as a table."""
    rows = [
        [row["name"], f"{row['bytes'] / 1e6:,.1f} MB" if row["bytes"] else "not stated", row["state"], row["licence"], row["use"]]
        for row in result["weights"]
    ]
    table(f"weights in {result['folder']}", ["name", "size", "state", "licence", "for"], rows)


def print_fetched(result: dict[str, Any]) -> None:
    """Print what became of each file."""
    if not result["weights"]:
        say(f"no weights in {result['folder']}")
    for row in result["weights"]:
        say(f"{row['name']}: {row['state']}, {row['path']}" + (f" (sha256 {row['sha256']})" if row["sha256"] else ""))


def print_linked(result: dict[str, Any]) -> None:
    """Print how many instances were found and linked, and why others were not."""
    say(f"{result['instances']:,} instances in {result['images']:,} images; {result['linked']:,} records linked to theirs")
    for code, number in result["counts"].items():
        say(f"  not linked: {number:,} {code}")
    say(f"now: risbench train-adapter --truth {result['truth']}, risbench audit --truth {result['truth']} --links {result['links']}")


def print_adapter(result: dict[str, Any]) -> None:
    """Print what was learnt from, how wrong the boxes are, and what it gave on scenes of its own."""
    known = result["known"]
    say(f"{known['objects']:,} true objects in {known['images']:,} images; {known['boxes_compared']:,} boxes compared with them")
    for line in known["sizes"]:
        say(line)
    for tier, row in (result["box_noise"] or {}).items():
        edges = ", ".join(f"{value:+.1f}" for value in row["edges_px"]["x_min"])
        say(f"boxes of tier {tier}: mean IoU {row['mean_iou']:.3f} with the true box; left edge {edges} px (5, 50, 95 %)")
    rows = [[row["step"], f"{row['mean_iou']:.4f}", f"{row['boundary_iou']:.4f}"] for row in result["looks"]]
    table("on scenes that were kept aside", ["step", "mean IoU", "boundary IoU"], rows)
    for line in result["said"]:
        say(line)
    say(f"adapter {result['adapter']} ({result['state']}); before and after: {result['picture']}")


def print_trained(result: dict[str, Any]) -> None:
    """Print where the trained weights are."""
    say(f"{result['steps']} steps, {result['parameters'] / 1e6:.1f} M parameters: {result['weights']} (sha256 {result['sha256']})")
    say(f"use them: risbench refine-masks --engine builtin --checkpoint {result['weights']}")


def print_demo(result: dict[str, Any]) -> None:
    """Print where the demo's results are."""
    for line in result["summary"]:
        say(line)
