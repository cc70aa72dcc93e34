"""`risbench review serve`: a Label Studio of the workspace's own, in its own environment: silent, hardened, rooted at the images."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

import requests

from risbench.core.errors import BusyError, InputError, MissingRequirementError, OptionError
from risbench.core.processes import dying_with_parent
from risbench.core.progress import Progress
from risbench.core.storage import locked
from risbench.core.workspace import Workspace
from risbench.review.labelstudio.client import check_token, check_url
from risbench.review.labelstudio.database import database_settings, has_password
from risbench.review.labelstudio.environment import server_python
from risbench.review.labelstudio.studio import Studio
from risbench.review.store.review_store import ReviewStore, write_private
from risbench.review.store.stored import read_text

ADMIN: Final = "admin@risbench.invalid"
DATABASE: Final = "label_studio.sqlite3"
_START_S: Final = 300.0
_STOP_S: Final = 20.0
_TRIES: Final = 3
# A server that ends by itself is started again: after 1, 2, 4 ... seconds, and not for ever, unless it has run well for ten minutes.
_RESTARTS: Final = 6
_LONGEST_PAUSE_S: Final = 30.0
_WELL_S: Final = 600.0
# The labelling page has u and m for verdicts, where the editor has them for what follows.
KEYS: Final = {
    "region:unselect": {"key": "shift+u", "description": "Unselect region"},
    "tool:auto-detect": {"key": "s", "description": "Ask the assistant for a mask"},
}
_ELSEWHERE: Final = {
    "sqlite": "the server's data lie in its SQLite file: start it without --postgres (and $RISBENCH_POSTGRES)",
    "postgres": "the server's data lie in PostgreSQL: start it with --postgres as before",
    "remote": "work is out on a server that `risbench review connect` named",
    "serve": "work is out on this workspace's own server, `risbench review serve`",
}
# An address of the loopback network that nothing else listens at.
ASSIST_HOST: Final = "127.0.0.77"
_BANNED: Final = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24"),
    *("192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "233.252.0.0/24", "240.0.0.0/4"),
    *("255.255.255.255/32", "::/128", "::1/128", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64"),
    *("2001:0000::/32", "2001:20::/28", "2001:db8::/32", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8"),
)


def serve(
    *,
    workspace: Path | str = ".",
    host: str = "127.0.0.1",
    port: int | None = None,
    public_url: str | None = None,
    postgres: str | None = None,
    environment: Path | str | None = None,
    quiet: bool = False,
) -> Iterator[dict[str, Any]]:
    """Start the server, yield where it is once it answers, and wait until the caller ends; a server that dies is started again.

    Of each such start one line, `restarted`, is yielded. The environment is made where it is missing. On the first start the admin's
    account and token are made; later ones keep them.
    `postgres` is a URL (postgresql://user@host:port/name), by default $RISBENCH_POSTGRES; its password is the URL's, $PGPASSWORD or that of
    the password file ($PGPASSFILE, ~/.pgpass). Without a URL the data lie in a SQLite file.

    Raises:
        OptionError: an option's value cannot be used.
        MissingRequirementError: the environment cannot be made, or the server does not come up.
        BusyError: another one serves this workspace, or the port is taken.
    """
    with running(workspace, host=host, port=port, public_url=public_url, postgres=postgres, environment=environment, quiet=quiet) as server:
        warnings = list(server.warnings)
        if host not in ("127.0.0.1", "localhost", "::1") and public_url is None:
            warnings.append("people's cards will say this machine's own address: give --public-url, the one that they use")
        if postgres and has_password(postgres):
            told = "put the URL into $RISBENCH_POSTGRES, or leave the password to $PGPASSFILE"
            warnings.append(f"--postgres: everybody on this machine can read its password (ps); {told}")
        yield {
            "url": server.url,
            "login": ADMIN,
            "password_file": str(server.password_file),
            "data": str(server.data),
            "warnings": warnings,
        }
        yield from _keep_up(server)


def _keep_up(server: Running) -> Iterator[dict[str, Any]]:
    """Wait for the server's end and start it again, for as long as that helps; yield a line of each time.

    Raises:
        MissingRequirementError: it has ended too often.
    """
    failures = 0
    while True:
        began = time.monotonic()
        code = server.process.wait()
        why = f"Label Studio ended by itself (exit {code})"
        failures = 1 if time.monotonic() - began > _WELL_S else failures + 1
        while True:
            if failures > _RESTARTS:
                raise MissingRequirementError(f"{why}, for the {failures}th time; its last words are in {server.log}")
            pause = min(2.0 ** (failures - 1), _LONGEST_PAUSE_S)
            yield {"restarted": f"{why}; it is started again in {pause:g} s (its last words are in {server.log})"}
            time.sleep(pause)
            try:
                server.process = server.start()
                break
            except (MissingRequirementError, BusyError) as error:
                why, failures = str(error), failures + 1


def connect(url: str, *, workspace: Path | str = ".", images: str | None = None, public_url: str | None = None) -> dict[str, Any]:
    """Use a server that somebody else runs; the token is $RISBENCH_LABEL_STUDIO_TOKEN, or the one stored before.

    Of a server that it knows it changes only what is given.

    Raises:
        OptionError: the URL is none, there is no token, or the workspace has a server of its own.
        MissingRequirementError: the server refuses the token.
        BusyError: the server does not answer.
    """
    for address in (url, public_url):
        if address is not None:
            check_url(address)
    desk = ReviewStore(Workspace.open(workspace))
    before = desk.connection()
    if before.get("database") in ("sqlite", "postgres"):
        raise OptionError(f"{desk.root}: {_ELSEWHERE['serve']}; to begin anew, move that folder away first")
    if before.get("url") == url.rstrip("/"):  # what was said of it before still holds
        images, public_url = images or before.get("images"), public_url or before.get("public_url")
    given, path = os.environ.get("RISBENCH_LABEL_STUDIO_TOKEN"), desk.root / "token"
    if given is None and not path.exists():
        raise OptionError("set RISBENCH_LABEL_STUDIO_TOKEN to the access token of the server's admin; it is never given as an option")
    with desk.workspace.lock("review connect"):
        if given is not None:
            check_token(given, "RISBENCH_LABEL_STUDIO_TOKEN")
        studio = Studio(url, given or desk.token(), remote=True)
        version = studio.version()
        studio.get("/api/projects/", page_size=1)
        if given:
            write_private(path, given)
        where = images or str((desk.workspace.root / "images").resolve())
        desk.save_connection(url=studio.url, public_url=public_url, images=where, pid=None, database="remote")
    return {"url": studio.url, "version": version, "images": where}


@dataclass
class Running:
    """A server that answers at `url`; `start` starts it once more at the same address and returns its process when it answers."""

    url: str
    process: subprocess.Popen[bytes]
    data: Path
    log: Path
    password_file: Path
    start: Callable[[], subprocess.Popen[bytes]]
    warnings: Sequence[str] = ()


@contextlib.contextmanager
def running(
    workspace: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    public_url: str | None = None,
    postgres: str | None = None,
    environment: Path | str | None = None,
    quiet: bool = True,
) -> Iterator[Running]:
    """Hold a server that answers for the time of a `with`, and end it cleanly."""
    opened = Workspace.open(workspace)
    desk = ReviewStore(opened)
    postgres = postgres or os.environ.get("RISBENCH_POSTGRES")
    database = "postgres" if postgres else "sqlite"
    if (before := desk.connection().get("database", database)) != database:
        raise OptionError(f"{desk.root}: {_ELSEWHERE[before]}; to begin anew, move that folder away first")
    if public_url is not None:
        check_url(public_url)
    python, warnings = server_python(environment, quiet=quiet)
    data = desk.root / "server"
    data.mkdir(mode=0o700, exist_ok=True)
    data.chmod(0o700)
    with locked(data, "review serve"):
        last, tries = desk.connection().get("port"), 1 if port is not None else _TRIES
        near = "127.0.0.1" if host == "0.0.0.0" else host

        def start(chosen: int) -> subprocess.Popen[bytes] | None:
            """Return a server that answers at a port; None where it is somebody else's that does."""
            process, ours, local = _start(desk, python, host, chosen, public_url, postgres), False, f"http://{near}:{chosen}"
            try:
                ours = _wait_until_it_answers(local, desk, process, quiet)
                if ours:
                    images, public = str((opened.root / "images").resolve()), public_url.rstrip("/") if public_url else local
                    desk.save_connection(url=local, public_url=public, port=chosen, pid=process.pid, images=images, database=database)
                return process if ours else None
            finally:
                if not ours:
                    _stop(process)

        def start_again(chosen: int) -> subprocess.Popen[bytes]:
            _port(host, chosen, None)
            if (process := start(chosen)) is None:
                raise BusyError(f"{near}:{chosen}: another server answers there now")
            return process

        for attempt in range(tries):
            chosen = _port(host, port, last if attempt == 0 else 0)
            if (process := start(chosen)) is not None:  # else somebody else took the port while ours was starting
                break
        else:
            raise BusyError(f"{near}:{chosen}: another server answers there; name another port with --port")
        log, password = data / "server.log", desk.root / "password"
        server = Running(f"http://{near}:{chosen}", process, data, log, password, partial(start_again, chosen), warnings)
        try:
            yield server
        finally:
            _stop(server.process)


def _port(host: str, asked: int | None, last: int | None) -> int:
    """Return a port that is free: the one asked for, else the one of last time, else any."""
    if asked is not None and not 1 <= asked <= 65535:
        raise OptionError(f"--port {asked}: must lie between 1 and 65535")
    for port in [asked] if asked is not None else [8080 if last is None else last, 0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if asked is not None or port == 0:
                    raise BusyError(f"{host}:{port}: {error.strerror or error}; name another with --host and --port") from None
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("one of the ports was bound or refused")


def _start(desk: ReviewStore, python: Path, host: str, port: int, public_url: str | None, postgres: str | None) -> subprocess.Popen[bytes]:
    data, images = desk.root / "server", desk.workspace.root / "images"
    if not images.is_dir():
        raise InputError(f"{images}: is missing; run `risbench ingest SOURCE -w {desk.workspace.root}` first")
    # nothing of the caller's own environment: no proxy, no token, no setting of another Label Studio
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(data.resolve()),
        "TMPDIR": str(_private(data / "tmp")),
        "BASE_DATA_DIR": str(data.resolve()),
        "USERNAME": ADMIN,
        "PASSWORD": _kept(desk.root / "password", secrets.token_urlsafe(18)),
        "USER_TOKEN": _kept(desk.root / "token", secrets.token_hex(20)),
        "DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LOCAL_FILES_SERVING_ENABLED": "true",
        "LOCAL_FILES_DOCUMENT_ROOT": str(images.resolve()),
        "COLLECT_ANALYTICS": "False",
        "LATEST_VERSION_CHECK": "False",
        "EDITOR_KEYMAP": json.dumps(KEYS),
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "CORS_ALLOW_ALL_ORIGINS": "False",
        "USE_DEFAULT_BANNED_SUBNETS": "False",
        "USER_ADDITIONAL_BANNED_SUBNETS": ",".join(banned_networks()),
        "DEBUG": "False",
        "HOST": public_url or "",
        "CSRF_TRUSTED_ORIGINS": public_url or "",
        **database_settings(postgres),
    }
    log = open(data / "server.log", "ab", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, 0o600))  # noqa: SIM115 (the server writes on)
    with log:
        return subprocess.Popen(
            [
                str(python.parent / "label-studio"),
                "start",
                "--no-browser",
                "--enable-legacy-api-token",
                "--internal-host",
                host,
                "-p",
                str(port),
            ],
            env=environment,
            cwd=data,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is ours; the server is ended in its own time
            preexec_fn=dying_with_parent(signal.SIGTERM),
        )


def banned_networks() -> list[str]:
    """Return the networks that the server may not call: those that Label Studio 1.23 bans, less the one address of `review assist`."""
    loopback = IPv4Network("127.0.0.0/8").address_exclude(IPv4Network(f"{ASSIST_HOST}/32"))
    return [*_BANNED, *(str(network) for network in sorted(loopback))]


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder.resolve()


def _kept(path: Path, fresh: str) -> str:
    """Return what a private file holds; it is made with `fresh` where it is missing."""
    if not path.exists():
        write_private(path, fresh)
    return read_text(path)


def _wait_until_it_answers(url: str, desk: ReviewStore, process: subprocess.Popen[bytes], quiet: bool) -> bool:
    """Wait until a server answers; return whether it is ours, which knows our token."""
    began, log = time.monotonic(), desk.root / "server" / "server.log"
    with Progress(f"starting Label Studio at {url}", 0, quiet=quiet), requests.Session() as session:
        session.trust_env = False  # no proxy stands between us and loopback
        session.headers["Authorization"] = f"Token {desk.token()}"
        while time.monotonic() - began < _START_S:
            if process.poll() is not None:
                said = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise MissingRequirementError(f"Label Studio did not start (exit {process.returncode}): {' '.join(said)}; see {log}")
            with contextlib.suppress(requests.RequestException):
                if session.get(f"{url}/health", timeout=5).ok:
                    return session.get(f"{url}/api/current-user/whoami", timeout=30).status_code == 200
            time.sleep(0.25)
    raise MissingRequirementError(f"Label Studio did not answer at {url} within {_START_S:.0f} s; see {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server: asked first, made to if it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
