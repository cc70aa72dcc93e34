"""The server's life: started by the command, ended by Ctrl-C, gone when its starter is killed; silent and private meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from risbench.core.errors import OptionError
from risbench.review.labelstudio.environment import REQUIREMENTS
from risbench.review.labelstudio.server import KEYS, running
from risbench.review.verbs.backup import backup, restore
from tests.conftest import cli


@pytest.fixture
def made(host: Path, server: str, lab: Callable[..., Path], tmp_path: Path) -> Path:
    """A workspace whose server has been started once before: half a minute of migrations less."""
    workspace = lab()
    backup(tmp_path / "host.zip", workspace=host)
    restore(tmp_path / "host.zip", workspace=workspace, replace=True)
    return workspace


@contextlib.contextmanager
def serve(workspace: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run the command and yield it with what it printed."""
    command = [sys.executable, "-m", "risbench", "review", "serve", "-w", str(workspace), "--json", *words]
    environment = {**os.environ, "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            text += line
        yield process, json.loads(text)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def gone(pid: int) -> bool:
    """Return whether a process ends within some seconds."""
    for _ in range(100):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_it_says_where_it_is_is_private_and_ends_when_told(made: Path) -> None:
    with serve(made) as (process, said):
        assert requests.get(f"{said['url']}/health", timeout=30).ok
        pid = json.loads((made / "review" / "connection.json").read_text())["pid"]
        token = (made / "review" / "token").read_text().strip()
        password = (made / "review" / "password").read_text().strip()
        for number in (pid, process.pid):
            words = Path(f"/proc/{number}/cmdline").read_bytes().decode()
            assert token not in words
            assert password not in words
        second = cli("review", "serve", "-w", made)
        assert second.returncode == 75
        assert "in use by pid" in second.stderr
        os.kill(pid, signal.SIGKILL)  # as the system does when memory runs out
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "Label Studio ended by itself (exit -9); it is started again in 1 s (its last words are in " in line
        fresh = pid
        for _ in range(600):
            fresh = json.loads((made / "review" / "connection.json").read_text())["pid"]
            if fresh != pid:
                break
            time.sleep(0.1)
        assert fresh != pid
        assert requests.get(f"{said['url']}/health", timeout=30).ok  # at the same address
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        lines = [line for line in errors.splitlines() if not line.startswith("starting Label Studio")]
        assert (process.returncode, lines) == (0, ["stopped"])
        assert gone(fresh)
    data = made / "review" / "server"
    assert data.stat().st_mode & 0o077 == 0
    assert (data / "server.log").stat().st_mode & 0o077 == 0
    log = (data / "server.log").read_text()
    assert token not in log
    assert password not in log


def test_it_does_not_outlive_a_starter_that_is_killed(made: Path) -> None:
    with serve(made) as (process, _):
        pid = json.loads((made / "review" / "connection.json").read_text())["pid"]
        process.kill()
        process.wait()
        assert gone(pid)


def test_a_port_that_another_server_took_meanwhile_is_left_to_it(
    lab: Callable[..., Path], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import risbench.review.labelstudio.server as module

    workspace = lab()
    for name in ("token", "connection.json"):
        (workspace / "review" / name).unlink()
    taken, real, asked = int(server.rsplit(":", 1)[1]), module._port, []

    def first_the_taken_one(host: str, port: int | None, last: int | None) -> int:
        asked.append(last)
        return taken if len(asked) == 1 else real(host, port, last)

    monkeypatch.setattr(module, "_port", first_the_taken_one)
    with running(workspace) as ours:
        assert ours.url != server
        assert len(asked) == 2
        assert json.loads((workspace / "review" / "connection.json").read_text())["url"] == ours.url


def test_options_that_cannot_be_are_one_line_each(made: Path, lab: Callable[..., Path]) -> None:
    for words, said in (
        ({"port": 70000}, "--port 70000: must lie between 1 and 65535"),
        ({"postgres": "postgresql://u:pa/ss@h/db"}, "the server's data lie in its SQLite file"),
    ):
        with pytest.raises(OptionError, match=said), running(made, **words):  # type: ignore[arg-type]
            pass
    fresh = lab("fresh")
    (fresh / "review" / "connection.json").unlink()
    for url, said in (
        ("postgresql://u:pa/ss@h/db", "--postgres: is no URL"),
        ("mysql://u@h/db", "must look like postgresql://"),
    ):
        with pytest.raises(OptionError, match=said) as caught, running(fresh, postgres=url):
            pass
        assert "pa/ss" not in str(caught.value)


def test_containers_have_the_same_keys_and_version_as_serve() -> None:
    root = Path(__file__).parents[2]
    compose = (root / "annotator_ui" / "compose.yaml").read_text()
    [line] = [line for line in compose.splitlines() if "EDITOR_KEYMAP" in line]
    there = json.loads(line.partition("'")[2].rstrip("'"))
    assert {name: keys["key"] for name, keys in there.items()} == {name: keys["key"] for name, keys in KEYS.items()}
    [version] = [line for line in REQUIREMENTS.read_text().splitlines() if line.startswith("label-studio==")]
    assert f"label-studio:{version.partition('==')[2]}" in compose
