"""How the review commands' results look on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from risbench.cli.text import say, table


def print_serve(result: dict[str, Any]) -> None:
    """Print where the server is."""
    say(f"Label Studio answers at {result['url']}")
    say(f"admin: {result['login']}, password in {result['password_file']}; data in {result['data']}")
    for warning in result["warnings"]:
        say(warning)
    say("Ctrl-C ends it")


def print_connected(result: dict[str, Any]) -> None:
    """Print which server is used from now on."""
    say(f"Label Studio {result['version']} at {result['url']}; it finds the images at {result['images']}")


def print_annotators(result: dict[str, Any]) -> None:
    """Print who there is, and where the cards of new people lie."""
    if result.get("added"):
        say(f"added {', '.join(result['added'])}; hand them their cards (address, login, password) in {result['cards']}")
    if result.get("said"):
        say(result["said"])
    say(f"annotators: {', '.join(result['annotators']) or 'nobody yet'}")


def print_plan(result: dict[str, Any]) -> None:
    """Print what goes out, to whom, and how long it will take."""
    said = f"{_many(result['planned'], 'task')} planned, {result['new']:,} of them new ({result['hours']} hours of work)"
    say(f"{said}, {result['withdrawn']:,} withdrawn")
    table("tasks by annotator", ["annotator", "tasks"], [[name, count] for name, count in result["by_annotator"].items()])
    for warning in result["warnings"]:
        say(warning)
    say(result["state"])


def print_push(result: dict[str, Any]) -> None:
    """Print what came of a plan that was printed before."""
    said = f"sent {result['sent']:,}, removed {result['removed']:,}, found twice and removed {result['found_twice']:,}"
    say(f"{said}; out now: {_many(result['planned'], 'task')}")
    if result["without_mask"]:
        say(f"sent again, as the server had stored them without their mask: {_many(result['without_mask'], 'task')}")
    for warning in result["warnings"]:  # what was pulled meanwhile may have brought more than the plan said
        say(warning)


def print_pull(result: dict[str, Any]) -> None:
    """Print what came back."""
    counts = ", ".join(f"{result[name]:,} {name}" for name in ("new", "changed", "deleted", "unchanged"))
    say(f"{_many(result['answers'], 'answer')}: {counts}")
    table("answers by annotator", ["annotator", "answers"], [[name, count] for name, count in result["by_annotator"].items()])
    if result["quarantined"]:
        told = f"see {result['quarantine']} (risbench review reask asks again)"
        say(f"{_many(result['quarantined'], 'annotation')} that cannot be used; {told}")
    if result["not_ours"]:
        say(f"left alone: {_many(result['not_ours'], 'annotation')} of tasks that no plan knows")
    for warning in result["warnings"]:
        say(warning)


_LEFT: Final = {
    "not_theirs": "answers that somebody else gave in a person's project; delete them on the server if they should not be there",
    "mask_unknown": "the mask that was shown is in no round any more; restore the round",
}


def print_reask(result: dict[str, Any]) -> None:
    """Print what is asked again, and of whom."""
    said = ", ".join(f"{code} {count:,}" for code, count in result["reasons"].items())
    say(f"{_many(result['reasked'], 'answer')} asked again" + (f" ({said}); they are kept in {result['kept']}" if said else ""))
    for name, count in result["by_annotator"].items():
        say(f"{count:,} of {name}: the page hands them out again")
    for code, count in result["left"].items():
        why = _LEFT.get(code, f"{code}; the server does not let go of them, delete their tasks there")
        say(f"{count:,} left as they are: {why}")
    for warning in result["warnings"]:
        say(warning)


def print_consensus(result: dict[str, Any]) -> None:
    """Print what was decided and what is open."""
    table("records by status", ["status", "records"], [[name, count] for name, count in result["status"].items()])
    for why, count in result["to_adjudicate"].items():
        say(f"{count:,} for an expert: {why}")
    if result["waiting"]:
        told = "`risbench review push` asks for those that nobody is asked for yet"
        say(f"waiting for further opinions: {_many(result['waiting'], 'record')}; {told}")
    if result["answers_to_unknown_records"]:
        say(f"answered, and not in the workspace any more: {_many(result['answers_to_unknown_records'], 'record')}; the answers are kept")
    say(result["state"])


def print_adjudicate(result: dict[str, Any]) -> None:
    """Print what went before the expert."""
    for why, count in result["open"].items():
        say(f"{count:,} open: {why}")
    for why, count in result["skipped"].items():
        if count:
            say(f"{count:,} left out: {why}")
    say(f"{_many(result['tasks'], 'task')} for {result['expert']}: sent {result['sent']:,}, removed {result['removed']:,}")


def print_status(result: dict[str, Any]) -> None:
    """Print progress, agreement and score cards."""
    say(f"{result['answered']:,} of {_many(result['planned'], 'task')} answered, on {_many(result['records'], 'record')}")
    say(f"last pulled {_ago(result['pulled'])}" if result["pulled"] else "never pulled: run `risbench review pull`")
    say(f"{result['hours_spent']} hours spent, {result['hours_left']} to go")
    for name in ("verdicts", "sentences", "to_adjudicate"):
        if result[name]:
            say(f"{name.replace('_', ' ')}: " + ", ".join(f"{key} {count:,}" for key, count in result[name].items()))
    if result["quarantined"]:
        say(f"{_many(result['quarantined'], 'answer')} on the server that cannot be used (review/quarantine.jsonl); risbench review reask")
    found = result["agreement"]
    if found["records"]:
        said = ", ".join(f"{key.replace('_', ' ')} {found[key]}" for key in ("iou", "boundary_iou", "pixel_alpha", "verdict_alpha"))
        say(f"agreement on {_many(found['records'], 'record')} that several answered: {said}")
        for names, value in found["verdict_kappa"].items():
            if value is not None:  # of a pair that answered too little in common, or always the same
                say(f"  kappa of {names}: {value}")
    for name, seen in result["triage"].items():
        say(f"triage by {name}: {seen['passed']:,} passed, {seen['doubted']:,} to the editor, {seen['seconds_each']} s each")
    if result["gold_lost"]:
        say(f"not scored: {_many(result['gold_lost'], 'gold answer')}, of which the round that held the known one is gone")
    cards = result["annotators"]
    pace = {
        "answered": "answered",
        "of": "planned",
        "a day": "answers_a_day",
        "seconds each": "seconds_each",
        "hours left": "hours_left",
        "sentences judged": "share_judged",
    }
    table("pace", ["annotator", *pace], [[name, *_cells(card, pace.values())] for name, card in cards.items()])
    marks = {
        "corrected": "share_corrected",
        "rejected": "share_rejected",
        "unsure": "share_unsure",
        "gold": "gold",
        "right": "gold_right",
        "missed": "wrong_masks_missed",
        "sensitivity": "sensitivity",
        "specificity": "specificity",
    }
    rows = [[name, *_cells(card, marks.values()), _standing(card)] for name, card in cards.items()]
    table("score cards", ["annotator", *marks, ""], rows)
    for name in result["pause"]:
        say(f"{name} misses too much gold; talk to them, and: risbench review annotators pause {name}")


def _standing(card: Mapping[str, Any]) -> str:
    if card["pause"]:
        return "PAUSE"
    return "expert" if card["expert"] else "paused" if card["paused"] else ""


def _ago(moment: str) -> str:
    """Return how long ago a moment was, and when."""
    then = datetime.fromisoformat(moment)
    minutes = max(0, int((datetime.now(UTC) - then).total_seconds() // 60))
    count, unit = (minutes, "minute") if minutes < 120 else (minutes // 60, "hour") if minutes < 2880 else (minutes // 1440, "day")
    return f"{_many(count, unit)} ago ({then:%Y-%m-%d %H:%M} UTC)"


def _many(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural but for one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _cells(card: Mapping[str, Any], names: Iterable[str]) -> list[Any]:
    return ["-" if card[name] is None else card[name] for name in names]


def print_backup(result: dict[str, Any]) -> None:
    """Print where the backup lies."""
    size = f"{_many(result['files'], 'file')}, {result['bytes'] / 1e6:.1f} MB"
    say(f"{size}: {result['file']} (it holds passwords and the token: keep it private)")
    for warning in result["warnings"]:
        say(f"warning: {warning}")


def print_restore(result: dict[str, Any]) -> None:
    """Print what was put back."""
    say(f"{_many(result['files'], 'file')} put back into {result['desk']}")
    if result["moved_aside"]:
        say(f"the desk that was there is now {result['moved_aside']}")


def print_assist(result: dict[str, Any]) -> None:
    """Print who answers, and for whom."""
    for warning in result["warnings"]:
        say(warning)
    say(f"{result['model']} answers at {result['url']} for projects {', '.join(map(str, result['projects']))}; Ctrl-C ends it")


def print_triage(result: dict[str, Any]) -> None:
    """Print where the page is and how much there is."""
    say(f"{_many(result['masks'], 'mask')} on {_many(result['sheets'], 'sheet')}: {result['url']}")
    say("Ctrl-C ends it; what was answered is kept")


def print_audit_sample(result: dict[str, Any]) -> None:
    """Print how far the sample is, and what it says."""
    for warning in result["warnings"]:
        say(f"warning: {warning}")
    say(
        f"{result['drawn']:,} of {result['sample']:,} drawn, a sample of {result['population']:,}; {_many(result['sent'], 'task')} sent now"
    )
    for name, count in result["waiting"].items():
        say(f"  {name}: {count:,} to draw")
    if result["left_out_as_seen"]:
        say(f"left out: {_many(result['left_out_as_seen'], 'record')} that all of these people have seen")
    if result["unusable"]:
        say(f"{_many(result['unusable'], 'answer')} that cannot be used")
    found = result["result"]
    if found is None:
        return
    low, high = found["interval"]
    said = ", ".join(f"{name} {count:,}" for name, count in found["outcomes"].items())
    say(f"defects: {found['defects']:,} of {found['audited']:,}, {found['share']:.1%} [{low:.1%}, {high:.1%}]: {said}")
    if found["mean_iou"] is not None:
        say(f"mean IoU of what was drawn with the masks: {found['mean_iou']:.3f}")
    for title, name in (("by size", "by_size"), ("by review status", "by_status")):
        rows = [
            [key, row["audited"], row["defects"], f"{row['interval'][0]:.1%} - {row['interval'][1]:.1%}"]
            for key, row in found[name].items()
        ]
        table(title, ["", "drawn", "defects", "interval"], rows)
