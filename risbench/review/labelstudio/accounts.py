"""`risbench review annotators`: accounts that work, one person at a time, through the server's own sign-up page.

The API's way of making users leaves them without an organisation, and they cannot log in.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from risbench.core.errors import BusyError, InputError, OptionError, printable
from risbench.core.workspace import Workspace
from risbench.review.labelstudio.page import FIELDS, project_title
from risbench.review.labelstudio.studio import Studio
from risbench.review.store.review_store import Annotator, ReviewStore, pseudonym, write_private
from risbench.review.store.stored import damaged, read_bytes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


def add_annotators(names: Sequence[str], *, workspace: Path | str = ".", expert: bool = False) -> dict[str, Any]:
    """Make an account for every name that has none, and return where each one's card (address, login, password) lies.

    An `expert` is paused from the start: `push` gives them nothing, `adjudicate` what is left open.

    Raises:
        OptionError: a name cannot be used, or an expert's is that of somebody who gets tasks.
        InputError: the server refuses an account.
        BusyError: the server does not answer.
    """
    wrong = next((name for name in names if not _NAME.fullmatch(name)), None)
    if wrong is not None:
        raise OptionError(f"annotator {printable(wrong)}: use 1 to 40 letters, digits, dots, hyphens and underscores")
    desk = ReviewStore(Workspace.open(workspace))
    lower = {name.lower(): name for name in [*names, *(person.name for person in desk.annotators())]}
    alike = next((name for name in names if lower[name.lower()] != name), None)
    if alike is not None:
        raise OptionError(f"annotator {alike}: differs from {lower[alike.lower()]} in capitals alone")
    with desk.workspace.lock("review annotators"):
        studio = Studio.of(desk)
        people = {person.name: person for person in desk.annotators()}
        there = [name for name in dict.fromkeys(names) if name in people]
        if expert and (works := [name for name in there if not people[name].paused]):
            raise OptionError(f"annotator {works[0]}: gets tasks already; `risbench review annotators pause {works[0]}` ends that")
        folder = desk.root / "accounts"
        folder.mkdir(mode=0o700, exist_ok=True)
        added = []
        for name in dict.fromkeys(names):
            if name in people:
                continue
            # not the name itself: whoever sees another one's work on the server need not know whose it is
            email = f"{pseudonym(desk, name)}@annotators.risbench.invalid"
            password = secrets.token_urlsafe(12)
            _sign_up(desk, studio, Annotator(name, email), password)
            address = desk.connection().get("public_url") or studio.url
            write_private(folder / f"{name}.txt", f"address   {address}/user/login\nlogin     {email}\npassword  {password}")
            people[name] = Annotator(name, email, paused=expert, expert=expert)
            desk.save_annotators(people.values())
            added.append(name)
    said = f"{', '.join(there)}: already here, nothing changed" if there else ""
    return {"added": added, "annotators": sorted(people), "cards": str(folder), "said": said}


def write_card(desk: ReviewStore, person: Annotator, project: int) -> None:
    """Write the address of a person's project on their card, where there is a card without it."""
    path = desk.root / "accounts" / f"{person.name}.txt"
    if path.exists():
        text = read_bytes(path, b"").decode("utf-8", "replace")
        lines = [line for line in text.splitlines() if not line.startswith("work ")]
        first = lines[0].split() if lines else []
        if len(first) != 2 or first[0] != "address" or (not text.isprintable() and not text.replace("\n", "").isprintable()):
            raise damaged(path, 1, "`address URL` was expected", "restore the desk from a backup, or remove the card")
        base = first[1].removesuffix("/user/login")
        write_private(path, "\n".join([*lines, f"work      {base}/projects/{project}/data"]))


def pause_annotator(name: str, *, workspace: Path | str = ".", paused: bool = True, recheck: bool = False) -> dict[str, Any]:
    """Give a person no new work, or give it again; with `recheck`, the next push asks others what this person alone answered.

    Raises:
        InputError: there is no such person.
    """
    desk = ReviewStore(Workspace.open(workspace))
    with desk.workspace.lock("review annotators"):
        person = desk.annotator(name)
        desk.change_annotator(name, paused=paused, recheck=recheck, expert=person.is_expert and paused)
    said = f"{name} gets no new work; `risbench review reassign {name} OTHER` moves what they have" if paused else f"{name} gets work again"
    if recheck:
        said += "; the next push asks others, too, of what they alone answered"
    return {"added": [], "annotators": [person.name for person in desk.annotators()], "said": said}


def _sign_up(desk: ReviewStore, studio: Studio, person: Annotator, password: str) -> None:
    """Fill in the sign-up form behind the organisation's invitation; an account without work that a broken run left behind is made anew."""
    email = person.email
    token = studio.invitation()
    form_url = f"{studio.url}/user/signup/"
    session = requests.Session()
    session.trust_env = False
    try:
        session.get(form_url, params={"token": token}, timeout=30).raise_for_status()
        form = {
            "csrfmiddlewaretoken": session.cookies.get("csrftoken", ""),
            "email": email,
            "password": password,
            "allow_newsletters": "false",
        }
        answer = session.post(
            form_url, params={"token": token}, data=form, headers={"Referer": form_url}, timeout=60, allow_redirects=False
        )
    except requests.RequestException as error:
        raise BusyError(f"{studio.url}: the sign-up page does not answer ({type(error).__name__}); run the same command again") from None
    if answer.status_code == 302:
        return
    left_behind = studio.users().get(email)
    if left_behind is not None:
        # a project means work, and the server forgets whose it is when its account goes
        if any(studio.projects_named(project_title(desk, person, page)) for page in FIELDS):
            raise InputError(
                f"annotator {person.name}: has an account and work on the server that this desk does not know; restore it from a backup"
            )
        studio.change("DELETE", f"/api/users/{left_behind}/")
        _sign_up(desk, studio, person, password)
        return
    said = re.findall(r'class="(?:ls-error|error|field_errors)[^>]*>\s*([^<]+)', answer.text)
    raise InputError(f"{studio.url}: the server refuses the account {email} ({answer.status_code}): {printable(' '.join(said), 200)}")
