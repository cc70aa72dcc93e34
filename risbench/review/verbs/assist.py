"""`risbench review assist`: a box or point drawn on the labelling page comes back as a mask of the workspace's model.

Label Studio calls it as a machine-learning backend: /health, /setup, /predict, with basic authentication.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from risbench.core.errors import BusyError, InputError, MissingRequirementError
from risbench.core.extras import need_packages
from risbench.core.storage import locked
from risbench.core.workspace import Workspace
from risbench.review.labelstudio.client import NotThere
from risbench.review.labelstudio.page import VERIFY, is_ours, project_title
from risbench.review.labelstudio.server import ASSIST_HOST
from risbench.review.labelstudio.studio import Studio
from risbench.review.pages.assist_model import USER, Helper
from risbench.review.pages.web import need_web, serving
from risbench.review.store.review_store import ReviewStore

_TITLE: Final = "risbench assist"
# How often it is looked whether a push has made further projects.
_LOOK_AGAIN_S: Final = 20.0


@contextlib.contextmanager
def assisting(workspace: Path | str = ".", *, host: str = ASSIST_HOST, port: int = 0) -> Iterator[dict[str, Any]]:
    """Hold the backend for the time of a `with`, connected to every annotator's project, those that come meanwhile included.

    Raises:
        MissingRequirementError: the review or sam extra is not installed, or the server refuses the backend.
        InputError: no server is known, or nobody has a project yet.
        OptionError: the address cannot be used.
        BusyError: another assistant serves this workspace, or the server does not answer.
    """
    need_web()
    need_packages("sam")
    from risbench.review.pages.assist_app import application

    desk = ReviewStore(Workspace.open(workspace))
    studio = Studio.of(desk)
    place = desk.root / "assist"
    place.mkdir(exist_ok=True)
    with locked(place, "review assist"):
        projects, warnings = _projects(desk, studio)
        secret, helper = secrets.token_urlsafe(24), Helper(desk)
        with serving(application(helper, secret), host, port) as url:
            connected: list[int] = []
            end = threading.Event()
            follower = threading.Thread(target=_follow, args=(desk, studio, connected, url, secret, end), daemon=True)
            try:
                for project in projects:
                    _connect(studio, project, url, secret)
                    connected.append(project)
                follower.start()
                yield {"url": url, "model": helper.name, "projects": projects, "warnings": warnings}
            finally:
                end.set()
                if follower.is_alive():
                    follower.join()
                for project in connected:
                    # the server or the project is gone already: the next run takes back what is left
                    with contextlib.suppress(BusyError, InputError):
                        _disconnect(studio, project)


def _follow(desk: ReviewStore, studio: Studio, connected: list[int], url: str, secret: str, end: threading.Event) -> None:
    """Connect the projects that a push makes while the assistant runs; a server that does not answer is asked again."""
    while not end.wait(_LOOK_AGAIN_S):
        with contextlib.suppress(BusyError, InputError, MissingRequirementError):
            for project in _projects(desk, studio)[0]:
                if project not in connected:
                    _connect(studio, project, url, secret)
                    connected.append(project)


def _projects(desk: ReviewStore, studio: Studio) -> tuple[list[int], list[str]]:
    """Return the annotators' projects that are there, and what to say of those that are not."""
    found, warnings = [], []
    for person in desk.annotators():
        if person.project is None:
            continue
        try:
            ours = is_ours(studio.project(person.project), project_title(desk, person, VERIFY))
        except NotThere:
            ours = False
        if ours:
            found.append(person.project)
        else:
            warnings.append(
                f"project {person.project} of {person.name} is gone from the server; `risbench review annotators renew {person.name}`"
            )
    if not found:
        raise InputError(f"{desk.root}: nobody has a project yet; run `risbench review push` first")
    return sorted(found), warnings


def _connect(studio: Studio, project: int, url: str, secret: str) -> None:
    _disconnect(studio, project)
    body = {
        "project": project,
        "url": url,
        "title": _TITLE,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": USER,
        "basic_auth_pass": secret,
    }
    studio.change("POST", "/api/ml/", {**body, "is_interactive": True})


def _disconnect(studio: Studio, project: int) -> None:
    """Take back what an earlier run left."""
    for row in studio.get("/api/ml/", project=project):
        if row["title"] == _TITLE:
            studio.change("DELETE", f"/api/ml/{row['id']}")
