"""`risbench review push`: bring the server to the plan, whatever happened before."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from risbench.core.errors import InputError, OptionError
from risbench.core.masks import mask_digest, mask_of
from risbench.core.progress import Progress
from risbench.core.record import UNDECIDED, Record
from risbench.core.releasable import may_be_reviewed
from risbench.core.risk import risks
from risbench.core.storage import write_durably
from risbench.core.workspace import Workspace, read_records
from risbench.review.labelstudio.accounts import write_card
from risbench.review.labelstudio.page import task_of
from risbench.review.labelstudio.projects import Pusher, ensure_project
from risbench.review.labelstudio.studio import Studio
from risbench.review.rules.gold import corrupt, known_answer
from risbench.review.rules.plan import DOUBTED, SECONDS, SHARE_DRAWN, Item, Policy, Shown, moved, plan, projected_hours, served_order
from risbench.review.rules.plan import ReviewStore as Out
from risbench.review.store.answers import read_answers
from risbench.review.store.review_store import Annotator, ReviewStore
from risbench.review.store.triage_votes import read_triage_votes
from risbench.review.verbs.consensus import answers_by_record
from risbench.review.verbs.pull import pull_all, quarantine_rows

_ENOUGH_ANSWERS: Final = 30
# There while a plan is being brought to the server.
_UNFINISHED: Final = "push.unfinished"
# Who gets everything in a plan that is only looked at; no name has a space. Two of them, as second opinions need two.
_NOBODY: Final = ["nobody yet", "nobody else yet"]


def push(
    *,
    workspace: Path | str = ".",
    policy: Policy | None = None,
    dry_run: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Plan who sees what, store the plan, and bring the server to it; return what is out and the hours it will take.

    Run twice, killed half-way or failed by the network, it ends with exactly the planned tasks on the server: before anything is sent
    the server is asked what it has, and after every doubt again.

    Raises:
        OptionError: a value of the policy lies out of bounds.
        InputError: nobody to give work to, nothing to review, or a project was deleted or changed on the server.
        BusyError: the server does not answer; what is done is done, the same command goes on.
    """
    policy = policy or Policy()
    _check(policy)
    desk = ReviewStore(Workspace.open(workspace))
    with desk.workspace.lock("review push"):
        people = {person.name: person for person in desk.annotators()}
        working = [name for name, person in people.items() if not person.paused]
        if not working and dry_run:
            working = _NOBODY
        elif not working:
            raise InputError(f"{desk.root}: nobody to give work to; add people with `risbench review annotators add NAME ...`")
        records = {record.id: record for record in read_records(desk.workspace.latest())}
        before, unfinished = desk.queue(), desk.root / _UNFINISHED
        broken_off = unfinished.exists() and bool(policy.count)
        if broken_off:
            policy = replace(policy, count=0)  # what it had planned is finished; nothing more is planned on top
        if before and not dry_run:
            pull_all(desk, Studio.of(desk), quiet)  # what was answered since is not asked again
        items, known, stuck = _planned(desk, records, working, before, policy)
        out_before = {item.key for item in before if not item.withdrawn}
        new = [item for item in items if not item.withdrawn and item.key not in out_before]
        result: dict[str, Any] = {
            "planned": sum(not item.withdrawn for item in items),
            "new": len(new),
            "withdrawn": _newly_withdrawn(before, items),
            "hours": round(projected_hours(new, *_pace(desk)), 2),
            "by_annotator": _by_annotator(items),
            "warnings": _warnings(desk, items, working, policy, known, stuck),
        }
        if broken_off:
            result["warnings"].append("the push before was broken off: its plan is finished, and --count adds nothing; push again for more")
        if dry_run:
            return {**result, "state": "planned only"}
        write_durably(unfinished, b"")
        desk.save_queue(items)
        answered = {answer.key for answer in read_answers(desk)}
        result.update(_bring(desk, Studio.of(desk), records, items, people, answered, policy, quiet))
        unfinished.unlink()
    return {**result, "state": "pushed"}


def _newly_withdrawn(before: Iterable[Item], after: Iterable[Item]) -> int:
    """Return how many items were out and are no more; those that were withdrawn once and are out again count as new."""
    out = {item.key for item in before if not item.withdrawn}
    return len(out - {item.key for item in after if not item.withdrawn})


def _check(policy: Policy) -> None:
    for name in ("overlap", "gold"):
        if not 0 <= getattr(policy, name) <= 1:
            raise OptionError(f"--{name} {getattr(policy, name)}: must lie between 0 and 1")
    if policy.overlap_by not in ("share", "risk"):
        raise OptionError(f"--overlap-by {policy.overlap_by}: must be share or risk")
    if policy.count is not None and policy.count < 0:
        raise OptionError(f"--count {policy.count}: must not be negative")
    if policy.qualification < 0:
        raise OptionError(f"--qualification {policy.qualification}: must not be negative")


def _planned(
    desk: ReviewStore, records: Mapping[str, Record], working: list[str], before: list[Item], policy: Policy
) -> tuple[list[Item], int, int]:
    """Return all items, how many answers are known (gold), and how many records can be given to nobody, as everyone met them as gold."""
    risk, glances, recheck = risks(list(records.values())), read_triage_votes(desk), _to_recheck(desk)
    open_, gold, corrupted = [], [], {}
    for name, record in records.items():
        if record.mask is None:
            continue
        mask = mask_of(record.mask)
        shown = Shown(name, mask_digest(mask), record.mask.round, risk[name], record.category.name)
        if known_answer(record, trust_source=policy.trust_source):
            gold.append(shown)
            if (wrong := corrupt(mask, name)) is not None:
                corrupted[name] = mask_digest(wrong)
        elif may_be_reviewed(record) and (record.review.status in UNDECIDED or name in recheck):
            glance = glances.get(name)
            seen = glance is not None and glance.mask == shown.mask and (glance.doubted or not policy.triaged_too)
            if not seen:
                open_.append(shown)
            elif glance is not None and glance.doubted:
                open_.append(replace(shown, risk=DOUBTED))
    if not open_ and not before:
        raise InputError(f"{desk.workspace.root}: nothing to review: no undecided record has a mask; run `risbench refine-masks` first")
    answers = read_answers(desk)
    out = Out(before, {answer.key for answer in answers}, {answer.record for answer in answers if answer.verdict == "unsure"}, recheck)
    items = plan(desk.secret(), working, open_, gold, out, policy, corrupted)
    met: dict[str, set[str]] = defaultdict(set)
    asked = set()
    for item in items:
        if not item.withdrawn and item.kind == "gold":
            met[item.record].add(item.annotator)
        elif not item.withdrawn:
            asked.add(item.record)
    return items, len(gold), sum(shown.record not in asked and met[shown.record] >= set(working) for shown in open_)


def _to_recheck(desk: ReviewStore) -> set[str]:
    """Return the records that one person alone answered whose answers are to be looked at again."""
    doubted = {person.name for person in desk.annotators() if person.recheck}
    return {name for name, group in answers_by_record(desk).items() if len(group) == 1 and group[0].annotator in doubted}


def _by_annotator(items: Iterable[Item]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for item in items:
        if not item.withdrawn:
            found[item.annotator] += 1
    return dict(sorted(found.items()))


def _pace(desk: ReviewStore) -> tuple[float, dict[str, float]]:
    """Return the share of masks that people draw anew and how long each kind of answer takes; built-in guesses before thirty."""
    answers = [answer for answer in read_answers(desk) if answer.lead_time_s is not None]
    drawn = [answer.lead_time_s or 0.0 for answer in answers if answer.changed]
    kept = [answer.lead_time_s or 0.0 for answer in answers if not answer.changed]
    if len(answers) < _ENOUGH_ANSWERS or not drawn or not kept:
        return SHARE_DRAWN, dict(SECONDS)
    # medians: somebody's lunch is nobody's pace
    return len(drawn) / len(answers), {"redraw": median(drawn), "accept": median(kept)}


def _warnings(desk: ReviewStore, items: Sequence[Item], working: Sequence[str], policy: Policy, known: int, stuck: int) -> list[str]:
    said = []
    if stuck:
        said.append(f"{stuck} records are given to nobody: all have met them as gold; push with --trust-source as before, or add people")
    if (policy.gold or policy.qualification) and not any(item.kind == "gold" and not item.withdrawn for item in items):
        if known:
            said.append(
                f"no gold yet: {known:,} answers are known, but {policy.gold:.1%} of a person's tasks is under one, or they met them all; "
                "a larger --gold, or --qualification, gives some"
            )
        else:
            said.append("no gold: no answer is known yet (an expert's, of three who agree, or the source's own with --trust-source)")
    if policy.overlap and len(working) < 2:
        said.append("no second opinions: there is one annotator")
    if rows := quarantine_rows(desk):
        first = f"such as annotation {rows[0]['annotation']}: {rows[0]['reason']}"
        said.append(f"{len(rows)} answers on the server cannot be used, {first}; `risbench review reask` asks for them again")
    return said


def _bring(
    desk: ReviewStore,
    studio: Studio,
    records: Mapping[str, Record],
    items: Sequence[Item],
    people: Mapping[str, Annotator],
    answered: set[str],
    policy: Policy,
    quiet: bool,
) -> dict[str, int]:
    """Bring every person's project to the plan; return how many tasks were sent, removed, and found twice."""
    done = {"sent": 0, "removed": 0, "found_twice": 0, "without_mask": 0, "tasks": 0}
    of: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.kind != "expert":
            of[item.annotator].append(item)
    with Progress("review push", sum(not item.withdrawn for item in items), quiet=quiet) as progress:
        for name in sorted(of):
            if name not in people:
                raise InputError(f"annotator {name}: the queue names them and annotators.json does not; restore the desk from a backup")
            project = ensure_project(desk, studio, people[name])
            write_card(desk, people[name], project)
            wanted = served_order(desk.secret(), [item for item in of[name] if not item.withdrawn], policy.qualification)
            counts = Pusher(desk, studio, project, lambda item: _task(records, item), progress).bring(wanted, answered)
            for key, value in counts.items():
                done[key] += value
    return done


def _task(records: Mapping[str, Record], item: Item) -> dict[str, Any]:
    record = records[item.record]
    assert record.mask is not None, "only records with a mask are planned"
    mask = mask_of(record.mask)
    shown = corrupt(mask, item.record) if item.wrong else mask
    assert shown is not None, "planned as corrupted"
    return task_of(record, shown, item.key)


def _opinions(items: Iterable[Item]) -> Counter[str]:
    """Return how many opinions are out on each record."""
    return Counter(item.record for item in items if item.kind in ("task", "second") and not item.withdrawn)


def reassign(source: str, target: str, *, workspace: Path | str = ".") -> dict[str, Any]:
    """Plan one person's unanswered tasks for another; the next push brings the server there.

    Raises:
        InputError: one of the two is not known, they are one, or the target is paused.
        BusyError: the server does not answer.
    """
    if source == target:
        raise OptionError(f"annotator {source}: FROM and TO are the same person")
    desk = ReviewStore(Workspace.open(workspace))
    with desk.workspace.lock("review reassign"):
        desk.annotator(source)
        if refused := desk.annotator(target).gets_no_work:
            raise InputError(refused)
        pull_all(desk, Studio.of(desk), quiet=True)  # what was answered since stays with who answered it
        before = desk.queue()
        others = [person.name for person in desk.annotators() if not person.paused and person.name not in (source, target)]
        items = moved(desk.secret(), before, {answer.key for answer in read_answers(desk)}, source, target, others)
        desk.save_queue(items)
    keys = {item.key for item in before if not item.withdrawn}
    new = [item for item in items if not item.withdrawn and item.key not in keys]
    withdrawn = _newly_withdrawn(before, items)
    elsewhere = sum(item.annotator != target for item in new)
    asked, asked_before = _opinions(items), _opinions(before)
    unasked = len(asked_before.keys() - asked.keys())
    lost = asked_before.total() - asked.total() - unasked
    warnings = [f"{elsewhere} tasks go to others: {target} has seen these records"] if elsewhere else []
    if lost:
        warnings.append(f"{lost} second opinions fall away: everyone has seen these records")
    if unasked:
        warnings.append(f"{unasked} records are asked of nobody now: everyone has seen them, as gold; the next push tries again")
    return {
        "planned": sum(not item.withdrawn for item in items),
        "new": len(new),
        "withdrawn": withdrawn,
        "hours": round(projected_hours(new, *_pace(desk)), 2),
        "by_annotator": _by_annotator(items),
        "warnings": warnings,
        "state": "planned; run `risbench review push` to bring the server there",
    }
