"""`risbench review triage`: masks of low risk, twenty on a screen; those not clicked are accepted together, the others go to the editor.

A triaged mask is not a verified one: its status is kept apart, and only training scenes are triaged.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from risbench.core.workspace import Workspace
from risbench.review.pages.triage_sheets import Triage
from risbench.review.pages.web import need_web, serving
from risbench.review.store.review_store import ReviewStore


@contextlib.contextmanager
def triaging(
    person: str, *, split: Path | str, share: float = 0.3, workspace: Path | str = ".", host: str = "127.0.0.1", port: int = 0
) -> Iterator[dict[str, Any]]:
    """Hold the triage page for the time of a `with`; yield its address and how much there is.

    Raises:
        OptionError: an option's value cannot be used.
        InputError: there is no such person or split list, or nothing is left to look at.
        MissingRequirementError: the review extra is not installed.
    """
    need_web()
    from risbench.review.pages.triage_app import application

    triage, secret = Triage(ReviewStore(Workspace.open(workspace)), person, Path(split), share), secrets.token_urlsafe(12)
    masks = sum(map(len, triage.sheets))
    with serving(application(triage, secret), host, port) as url:
        yield {"url": f"{url}/{secret}/", "masks": masks, "sheets": len(triage.sheets)}
