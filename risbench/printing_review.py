"""How the review commands' results look on a terminal."""

from __future__ import annotations

from typing import Any

from risbench.printing import say, table


def print_serve(result: dict[str, Any]) -> None:
    """Print where the server is."""
    say(f"Label Studio answers at {result['url']}")
    say(f"admin: {result['login']}, password in {result['password_file']}; data in {result['data']}")
    say("Ctrl-C ends it")


def print_annotators(result: dict[str, Any]) -> None:
    """Print who there is, and where the cards of new people lie."""
    if result.get("added"):
        say(f"added {', '.join(result['added'])}; hand them their cards (address, login, password) in {result['cards']}")
    if result.get("said"):
        say(result["said"])
    say(f"annotators: {', '.join(result['annotators']) or 'nobody yet'}")


def print_push(result: dict[str, Any]) -> None:
    """Print what goes out, to whom, and how long it will take."""
    said = f"{result['planned']:,} tasks planned, {result['new']:,} of them new ({result['hours']} hours of work)"
    say(f"{said}, {result['withdrawn']:,} withdrawn")
    table("tasks by annotator", ["annotator", "tasks"], [[name, count] for name, count in result["by_annotator"].items()])
    if "sent" in result:
        say(f"sent {result['sent']:,}, removed {result['removed']:,}, found twice and removed {result['found_twice']:,}")
    for warning in result["warnings"]:
        say(warning)
    say(result["state"])


def print_pull(result: dict[str, Any]) -> None:
    """Print what came back."""
    counts = ", ".join(f"{result[name]:,} {name}" for name in ("new", "changed", "deleted", "unchanged"))
    say(f"{result['answers']:,} answers: {counts}")
    table("answers by annotator", ["annotator", "answers"], [[name, count] for name, count in result["by_annotator"].items()])
    if result["quarantined"]:
        say(f"{result['quarantined']:,} annotations cannot be read; see {result['quarantine']}")
    if result["not_ours"]:
        say(f"{result['not_ours']:,} annotations are of tasks that no plan knows; they were left alone")
    for warning in result["warnings"]:
        say(warning)


def print_consensus(result: dict[str, Any]) -> None:
    """Print what was decided and what is open."""
    table("records by status", ["status", "records"], [[name, count] for name, count in result["status"].items()])
    for why, count in result["to_adjudicate"].items():
        say(f"{count:,} for an expert: {why}")
    if result["waiting"]:
        say(f"{result['waiting']:,} wait for further opinions")
    say(result["state"])
