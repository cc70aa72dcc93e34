"""`risbench review push`: bring the server to the plan, whatever happened before."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InputError, OptionError, TryAgainLater
from risbench.core.masks import mask_of
from risbench.core.progress import Progress
from risbench.core.record import Record
from risbench.core.workspace import Workspace, read_records
from risbench.review.accounts import pseudonym
from risbench.review.answers import read_answers
from risbench.review.desk import Annotator, Desk
from risbench.review.gold import known_answer, spoil
from risbench.review.page import guidelines, page_config, task_of
from risbench.review.plan import Desk as Out
from risbench.review.plan import Item, Policy, Shown, moved, plan, projected_hours, served_order
from risbench.review.risk import risks
from risbench.review.studio import NotThere, Studio, Task, Unknown

CHUNK: Final = 250
_UNDECIDED: Final = ("unreviewed", "triaged")
_TRIES: Final = 8
_SETTLE_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)


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
        TryAgainLater: the server does not answer; what is done is done, the same command goes on.
    """
    policy = policy or Policy()
    _check(policy)
    desk = Desk(Workspace.open(workspace))
    with desk.workspace.lock("review push"):
        people = {person.name: person for person in desk.annotators()}
        working = [name for name, person in people.items() if not person.paused]
        if not working:
            raise InputError(f"{desk.root}: nobody to give work to; add people with `risbench review annotators add NAME ...`")
        records = {record.id: record for record in read_records(desk.workspace.latest())}
        before = desk.queue()
        items = _planned(desk, records, working, before, policy)
        new = [item for item in items if not item.withdrawn and item.key not in {old.key for old in before if not old.withdrawn}]
        result: dict[str, Any] = {
            "planned": sum(not item.withdrawn for item in items),
            "new": len(new),
            "withdrawn": sum(item.withdrawn for item in items) - sum(item.withdrawn for item in before),
            "hours": round(projected_hours(new), 2),
            "by_annotator": _by_annotator(items),
            "warnings": _warnings(items, working, policy),
        }
        if dry_run:
            return {**result, "state": "planned only"}
        desk.save_queue(items)
        answered = {answer.key for answer in read_answers(desk)}
        result.update(_bring(desk, Studio.of(desk), records, items, people, answered, policy, quiet))
    return {**result, "state": "pushed"}


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


def mask_digest(mask: NDArray[np.bool_]) -> str:
    """Return what tells one mask from another in keys."""
    return hashlib.sha256(np.packbits(mask).tobytes() + repr(mask.shape).encode()).hexdigest()[:16]


def _planned(desk: Desk, records: Mapping[str, Record], working: list[str], before: list[Item], policy: Policy) -> list[Item]:
    risk = risks(list(records.values()))
    open_, gold, spoilt = [], [], {}
    for name, record in records.items():
        if record.mask is None:
            continue
        mask = mask_of(record.mask)
        shown = Shown(name, mask_digest(mask), record.mask.round, risk[name])
        if known_answer(record):
            gold.append(shown)
            if (wrong := spoil(mask, name)) is not None:
                spoilt[name] = mask_digest(wrong)
        elif not record.problems and record.expression is not None and record.review.status in _UNDECIDED:
            open_.append(shown)
    if not open_ and not before:
        raise InputError(f"{desk.workspace.root}: nothing to review: no undecided record has a mask; run `risbench refine-masks` first")
    answers = read_answers(desk)
    out = Out(before, {answer.key for answer in answers}, {answer.record for answer in answers if answer.verdict == "unsure"})
    return plan(desk.secret(), working, open_, gold, out, policy, spoilt)


def _by_annotator(items: Iterable[Item]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for item in items:
        if not item.withdrawn:
            found[item.annotator] += 1
    return dict(sorted(found.items()))


def _warnings(items: Sequence[Item], working: Sequence[str], policy: Policy) -> list[str]:
    said = []
    if (policy.gold or policy.qualification) and not any(item.kind == "gold" and not item.withdrawn for item in items):
        said.append("no gold: no record has an answer that is known (the source's own mask, an expert's, three who agree)")
    if policy.overlap and len(working) < 2:
        said.append("no second opinions: there is one annotator")
    return said


def _bring(
    desk: Desk,
    studio: Studio,
    records: Mapping[str, Record],
    items: Sequence[Item],
    people: Mapping[str, Annotator],
    answered: set[str],
    policy: Policy,
    quiet: bool,
) -> dict[str, int]:
    """Bring every person's project to the plan; return how many tasks were sent, removed, and found twice."""
    done = {"sent": 0, "removed": 0, "found_twice": 0, "tasks": 0}
    of: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        of[item.annotator].append(item)
    with Progress("review push", sum(not item.withdrawn for item in items), quiet=quiet) as progress:
        for name in sorted(of):
            if name not in people:
                raise InputError(f"annotator {name}: the queue names them and annotators.json does not; restore the desk from a backup")
            project = ensure_project(desk, studio, people[name])
            wanted = served_order(desk.secret(), [item for item in of[name] if not item.withdrawn], policy.qualification)
            counts = _Pusher(desk, studio, project, records, progress).bring(wanted, answered)
            for key, value in counts.items():
                done[key] += value
    return done


class _Pusher:
    """One project and what it is to hold."""

    def __init__(self, desk: Desk, studio: Studio, project: int, records: Mapping[str, Record], progress: Progress) -> None:
        self._desk, self._studio, self._project, self._records, self._progress = desk, studio, project, records, progress

    def bring(self, wanted: Sequence[Item], answered: set[str]) -> dict[str, int]:
        """Send what is missing and remove what is too much, until the server has what is wanted; what was answered is not asked again."""
        counts = {"sent": 0, "removed": 0, "found_twice": 0, "tasks": len(wanted)}
        keys = {item.key for item in wanted}
        for attempt in range(_TRIES):
            there = self._studio.keys(self._project)
            surplus = _surplus(there, keys)
            missing = _missing(there, [item for item in wanted if item.key not in answered])
            if attempt == 0:
                self._progress.advance(len(wanted) - len(missing))
            if not surplus and not missing:
                return counts
            twice = [task for task in surplus if task.key in keys]
            try:
                if surplus:
                    self._note("remove", [task.key for task in surplus])
                    self._studio.delete_tasks(self._project, [task.id for task in surplus])
                    counts["removed"] += len(surplus) - len(twice)
                    counts["found_twice"] += len(twice)
                for start in range(0, len(missing), CHUNK):
                    self._send(missing[start : start + CHUNK], counts)
            except (Unknown, TryAgainLater) as error:
                self._note("unknown", [], said=str(error))
                if attempt + 1 == _TRIES:
                    raise
                time.sleep(_SETTLE_S[attempt])  # a server that was slow may still be storing what it was sent
        raise TryAgainLater(
            f"{self._studio.url}: project {self._project} does not come to hold what it is sent; run the same command again"
        )

    def _send(self, chunk: Sequence[Item], counts: dict[str, int]) -> None:
        tasks = [task_of(self._records[item.record], self._mask(item), item.key) for item in chunk]
        self._note("send", [item.key for item in chunk])
        ids = self._studio.add_tasks(self._project, tasks)
        self._note("sent", [item.key for item in chunk], ids=ids)
        counts["sent"] += len(chunk)
        self._progress.advance(len(chunk))

    def _mask(self, item: Item) -> NDArray[np.bool_]:
        record = self._records[item.record]
        assert record.mask is not None, "only records with a mask are planned"
        mask = mask_of(record.mask)
        if item.wrong:
            spoilt = spoil(mask, item.record)
            assert spoilt is not None, "planned as spoilt"
            return spoilt
        return mask

    def _note(self, what: str, keys: Sequence[str], **more: Any) -> None:
        """Write down what is about to be sent, or what came of it, so that it survives us."""
        line = json.dumps({"what": what, "project": self._project, "keys": list(keys), **more}, sort_keys=True) + "\n"
        with open(self._desk.root / "journal.jsonl", "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _surplus(there: Sequence[Task], wanted: set[str]) -> list[Task]:
    """Return tasks to remove: unanswered ones that are not wanted, and copies of which another stays. Nobody's work is removed."""
    copies: dict[str, list[Task]] = defaultdict(list)
    for task in there:
        copies[task.key].append(task)
    surplus = []
    for key, tasks in copies.items():
        untouched = [task for task in tasks if not task.annotations and not task.drafted]
        if key not in wanted:
            surplus += untouched
        elif len(tasks) > 1:
            surplus += untouched if len(untouched) < len(tasks) else untouched[1:]
    return surplus


def _missing(there: Sequence[Task], wanted: Sequence[Item]) -> list[Item]:
    have = {task.key for task in there}
    return [item for item in wanted if item.key not in have]


def ensure_project(desk: Desk, studio: Studio, person: Annotator) -> int:
    """Return the number of a person's project, made where there is none yet.

    Raises:
        InputError: it was deleted on the server, or its labelling page was changed there.
    """
    config = page_config()
    if person.project is not None:
        try:
            found = studio.project(person.project)
        except NotThere:
            raise InputError(
                f"{studio.url}: project {person.project} of annotator {person.name} is gone from the server; what was pulled is kept. "
                f"Give them a new one with `risbench review annotators renew {person.name}`"
            ) from None
        if _plain(found["label_config"]) != _plain(config):
            raise InputError(
                f"{studio.url}: project {person.project} of annotator {person.name}: its labelling page is not {VERIFY_NAME} any more; "
                f"put it back with `risbench review annotators renew {person.name}`, or update the page"
            )
        number = person.project
    else:
        title = f"Verify {pseudonym(desk, person.name)}"
        # a run that was cut off after this call and before the next left a project of this title
        known = studio.projects_named(title)
        number = known[0] if known else _make_project(studio, title, config)
        desk.change_annotator(person.name, project=number)
    _ensure_images(desk, studio, number)
    return number


VERIFY_NAME: Final = "annotator_ui/verify.xml"


def _plain(config: str) -> str:
    return "".join(config.split())


def _make_project(studio: Studio, title: str, config: str) -> int:
    made = studio.change(
        "POST",
        "/api/projects/",
        {
            "title": title,
            "label_config": config,
            "expert_instruction": guidelines(),
            "show_instruction": False,
            "sampling": "Sequential sampling",
            "maximum_annotations": 1,
            "show_skip_button": False,
            "enable_empty_annotation": False,
            "show_collab_predictions": True,
        },
    )
    return int(made["id"])


def _ensure_images(desk: Desk, studio: Studio, project: int) -> None:
    """Let the project show the workspace's images: the server serves no local file that no storage of the project names."""
    root = Path(desk.connection().get("images") or (desk.workspace.root / "images").resolve())
    have = {row["path"] for row in studio.get("/api/storages/localfiles/", project=project)}
    for folder in sorted(path for path in (desk.workspace.root / "images").iterdir() if path.is_dir()):
        path = str(root / folder.name)
        if path not in have:
            body = {"project": project, "path": path, "title": folder.name, "use_blob_urls": False}
            studio.change("POST", "/api/storages/localfiles/", body)


def renew_project(name: str, *, workspace: Path | str = ".") -> dict[str, Any]:
    """Put a person's labelling page back where it was changed; where their project is gone, the next push makes a new one.

    Raises:
        InputError: there is no such person, or the server refuses the page.
    """
    desk = Desk(Workspace.open(workspace))
    with desk.workspace.lock("review annotators"):
        studio, person = Studio.of(desk), desk.change_annotator(name)
        if person.project is None:
            said = f"{name} has no project yet; `risbench review push` makes it"
        else:
            try:
                studio.project(person.project)
                studio.change("PATCH", f"/api/projects/{person.project}/", {"label_config": page_config()})
                said = f"project {person.project} of {name} has its labelling page again"
            except NotThere:
                desk.change_annotator(name, project=None)
                said = f"project {person.project} of {name} is gone; `risbench review push` makes a new one"
    return {"added": [], "annotators": [one.name for one in desk.annotators()], "said": said}


def reassign(source: str, target: str, *, workspace: Path | str = ".") -> dict[str, Any]:
    """Plan one person's unanswered tasks for another; the next push brings the server there.

    Raises:
        InputError: one of the two is not known.
    """
    desk = Desk(Workspace.open(workspace))
    with desk.workspace.lock("review reassign"):
        for name in (source, target):
            desk.change_annotator(name)
        before = desk.queue()
        items = moved(desk.secret(), before, {answer.key for answer in read_answers(desk)}, source, target)
        desk.save_queue(items)
    keys = {item.key for item in before if not item.withdrawn}
    new = [item for item in items if not item.withdrawn and item.key not in keys]
    return {
        "planned": sum(not item.withdrawn for item in items),
        "new": len(new),
        "withdrawn": sum(item.withdrawn for item in items) - sum(item.withdrawn for item in before),
        "hours": round(projected_hours(new), 2),
        "by_annotator": _by_annotator(items),
        "warnings": [],
        "state": "planned; run `risbench review pull`, then `risbench review push`",
    }
