"""The server on PostgreSQL, as a team runs it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from risbench.core.errors import InputError, OptionError
from risbench.review.labelstudio.server import running
from risbench.review.rules.plan import Policy
from risbench.review.verbs.backup import backup
from risbench.review.verbs.pull import pull
from risbench.review.verbs.push import push
from tests.review.lab import ACCEPT, people

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
INITDB = BINARIES[-1] if BINARIES else shutil.which("initdb")
PASSWORD = "p:/@ss#1"
pytestmark = pytest.mark.skipif(INITDB is None, reason="PostgreSQL is not installed (.ci/run installs Debian's)")


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty database of a PostgreSQL of its own, on a free loopback port."""
    assert INITDB is not None
    tools = Path(INITDB).parent
    # PostgreSQL refuses to run as root
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(subprocess.run([*as_user, "mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def call(tool: str, *words: str | Path) -> None:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PGPASSWORD": PASSWORD}
        subprocess.run([*as_user, str(tools / tool), *map(str, words)], env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    try:
        subprocess.run([*as_user, "tee", folder / "password"], input=PASSWORD, text=True, check=True, stdout=subprocess.DEVNULL)
        call("initdb", "-D", folder / "data", "-U", "studio", "-A", "scram-sha-256", "--pwfile", folder / "password")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        call("pg_ctl", "-D", folder / "data", "-o", options, "-l", folder / "log", "-w", "start")
        try:
            call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "studio", "labels")
            yield f"postgresql://studio:p%3A%2F%40ss%231@127.0.0.1:{port}/labels"
        finally:
            call("pg_ctl", "-D", folder / "data", "-m", "fast", "-w", "stop")
    finally:
        shutil.rmtree(folder)


def test_work_goes_through_postgresql_and_is_there_after_a_restart(host: Path, database: str, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    shutil.copytree(host, workspace, ignore=shutil.ignore_patterns("review", "3-review", ".lock"))
    with running(workspace, postgres=database):
        crew = people(workspace, "ana", "ben")
        push(workspace=workspace, policy=Policy(count=6, overlap=0, gold=0), quiet=True)
        assert [person.work(lambda task: (ACCEPT, {}), most=2) for person in crew.values()] == [2, 2]
    assert not (workspace / "review" / "server" / "label_studio.sqlite3").exists()
    with pytest.raises(OptionError, match="PostgreSQL"), running(workspace):
        pass
    with pytest.raises(InputError, match="in PostgreSQL: pg_dump them"):
        backup(tmp_path / "all.zip", workspace=workspace)
    with running(workspace, postgres=database):
        assert pull(workspace=workspace, quiet=True)["new"] == 4
        assert push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)["sent"] == 0
    for path in (workspace / "review").rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path
