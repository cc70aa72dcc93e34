"""Projects on the server: made, checked, and brought to hold exactly what they are to hold."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from risbench.core.errors import BusyError, InputError
from risbench.core.progress import Progress
from risbench.core.storage import write_durably
from risbench.core.workspace import Workspace
from risbench.review.labelstudio.client import NotThere, OutcomeUnknownError
from risbench.review.labelstudio.page import FIELDS, VERIFY, guidelines, is_earlier_page, is_ours, page_config, project_title, same_page
from risbench.review.labelstudio.studio import Studio, Task
from risbench.review.rules.plan import Item
from risbench.review.store.review_store import Annotator, ReviewStore

CHUNK: Final = 250
_TRIES: Final = 8
_SETTLE_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)


class Pusher:
    """One project and what it is to hold."""

    def __init__(
        self,
        desk: ReviewStore,
        studio: Studio,
        project: int,
        make_task: Callable[[Item], dict[str, Any]],
        progress: Progress,
        *,
        shows_masks: bool = True,
    ) -> None:
        self._desk, self._studio, self._project, self._make_task, self._progress = desk, studio, project, make_task, progress
        self._shows = shows_masks

    def bring(self, wanted: Sequence[Item], answered: set[str]) -> dict[str, int]:
        """Send what is missing and remove what is too much, until the server has what is wanted; what was answered is not asked again.

        A server that is busy may store tasks and not the masks that came with them, and say that all is well: those are sent again.
        """
        counts = {"sent": 0, "removed": 0, "found_twice": 0, "without_mask": 0, "tasks": len(wanted)}
        keys = {item.key for item in wanted}
        for attempt in range(_TRIES):
            there = self._studio.keys(self._project, drafts=True)
            if attempt and self._blank(there, keys):
                time.sleep(_SETTLE_S[attempt - 1])  # its count of predictions may come late
                there = self._studio.keys(self._project, drafts=True)
            blank = self._blank(there, keys)
            surplus = [*blank, *_surplus([task for task in there if task not in blank], keys)]
            missing = _missing(there, [item for item in wanted if item.key not in answered])
            if attempt == 0:
                self._progress.advance(len(wanted) - len(missing))
            if not surplus and not missing:
                return counts
            twice = [task for task in surplus if task.key in keys and task not in blank]
            try:
                if surplus:
                    self._note("remove", [task.key for task in surplus])
                    self._studio.delete_tasks(self._project, [task.id for task in surplus])
                    counts["removed"] += len(surplus) - len(twice) - len(blank)
                    counts["without_mask"] += len(blank)
                    counts["found_twice"] += len(twice)
                for start in range(0, len(missing), CHUNK):
                    self._send(missing[start : start + CHUNK], counts)
            except (OutcomeUnknownError, BusyError) as error:
                self._note("unknown", [], said=str(error))
                if attempt + 1 == _TRIES:
                    raise
                time.sleep(_SETTLE_S[attempt])  # a server that was slow may still be storing what it was sent
        raise BusyError(f"{self._studio.url}: project {self._project} does not come to hold what it is sent; run the same command again")

    def _blank(self, there: Sequence[Task], wanted: set[str]) -> list[Task]:
        """Return the tasks of the plan that show no mask and that nobody has begun; of the audit sample none is to show one."""
        if not self._shows:
            return []
        return [task for task in there if task.key in wanted and not (task.shown or task.annotations or task.drafted)]

    def _send(self, chunk: Sequence[Item], counts: dict[str, int]) -> None:
        tasks = [self._make_task(item) for item in chunk]
        self._note("send", [item.key for item in chunk])
        ids = self._studio.add_tasks(self._project, tasks)
        self._note("sent", [item.key for item in chunk], ids=ids)
        counts["sent"] += len(chunk)
        self._progress.advance(len(chunk))

    def _note(self, what: str, keys: Sequence[str], **more: Any) -> None:
        """Write down what is about to be sent, or what came of it, so that it survives us."""
        self._desk.note("journal.jsonl", {"what": what, "project": self._project, "keys": list(keys), **more})


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


def ensure_project(desk: ReviewStore, studio: Studio, person: Annotator, page: str = VERIFY) -> int:
    """Return the number of a person's project for a page, made where there is none yet.

    Raises:
        InputError: it was deleted on the server, or its labelling page was changed there.
    """
    config, field, title = page_config(page), FIELDS[page][0], project_title(desk, person, page)
    number: int | None = getattr(person, field)
    if number is None:
        # a run that was cut off after this call and before the next left a project of this title
        known = studio.projects_named(title)
        number = known[0] if known else _make_project(studio, title, config)
        desk.change_annotator(person.name, **{field: number})
    else:
        try:
            found = studio.project(number)
        except NotThere:
            found = {"title": None}
        if not is_ours(found, title):
            raise InputError(
                f"{studio.url}: project {number} of annotator {person.name} is gone from the server; what was pulled is kept. "
                f"Give them a new one with `risbench review annotators renew {person.name}`"
            )
        if is_earlier_page(found["label_config"]):
            studio.change("PATCH", f"/api/projects/{number}/", {"label_config": config, "expert_instruction": guidelines()})
        elif not same_page(found["label_config"], config):
            raise InputError(
                f"{studio.url}: project {number} of annotator {person.name}: its labelling page is not annotator_ui/{page} any more; "
                f"put it back with `risbench review annotators renew {person.name}`"
            )
    _ensure_images(desk, studio, number)
    return number


def renew_project(name: str, *, workspace: Path | str = ".") -> dict[str, Any]:
    """Put a person's labelling pages back where they were changed; where a project is gone, the next push makes a new one.

    Raises:
        InputError: there is no such person, or the server refuses the page.
    """
    desk = ReviewStore(Workspace.open(workspace))
    with desk.workspace.lock("review annotators"):
        studio, person, said = Studio.of(desk), desk.annotator(name), []
        for page, (field, _) in FIELDS.items():
            number: int | None = getattr(person, field)
            if number is None:
                continue
            try:
                ours = is_ours(studio.project(number), project_title(desk, person, page))
            except NotThere:
                ours = False
            if ours:
                studio.change("PATCH", f"/api/projects/{number}/", {"label_config": page_config(page), "expert_instruction": guidelines()})
                said.append(f"project {number} of {name} has its labelling page again")
            else:
                _set_aside(desk, number)
                desk.change_annotator(name, **{field: None})
                said.append(f"project {number} of {name} is gone; the next push makes a new one")
    told = "; ".join(said) or f"{name} has no project yet; `risbench review push` makes it"
    return {"added": [], "annotators": [one.name for one in desk.annotators()], "said": told}


def _set_aside(desk: ReviewStore, number: int) -> None:
    """Keep a lost project's answers under a name that no new project of that number takes."""
    folder, unusable = desk.root / "answers", desk.root / "quarantine.jsonl"
    if unusable.exists():
        kept = [line for line in unusable.read_text(encoding="utf-8").splitlines(keepends=True) if json.loads(line)["project"] != number]
        write_durably(unusable, "".join(kept).encode())
    (folder / f"{number}.cursor.json").unlink(missing_ok=True)
    if (folder / f"{number}.jsonl").exists():
        free = next(path for k in range(1, 10_000) if not (path := folder / f"{number}.gone-{k}.jsonl").exists())
        (folder / f"{number}.jsonl").rename(free)


def _make_project(studio: Studio, title: str, config: str) -> int:
    return studio.make_project(
        {
            "title": title,
            "description": title,
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


def _ensure_images(desk: ReviewStore, studio: Studio, project: int) -> None:
    """Let the project show the workspace's images: the server serves no local file that no storage of the project names."""
    root = Path(desk.connection().get("images") or (desk.workspace.root / "images").resolve())
    have = studio.storages(project)
    for folder in sorted(path for path in (desk.workspace.root / "images").iterdir() if path.is_dir()):
        path = str(root / folder.name)
        if path not in have:
            body = {"project": project, "path": path, "title": folder.name, "use_blob_urls": False}
            try:
                studio.change("POST", "/api/storages/localfiles/", body)
            except InputError as error:
                if not studio.remote:
                    raise
                raise InputError(
                    f"{error}; the server is to see the workspace's images there: "
                    f"`risbench review connect {studio.url} --images FOLDER` names the folder as the server has it"
                ) from None
