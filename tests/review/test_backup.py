from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from risbench.core.errors import BusyError, InputError
from risbench.core.workspace import Workspace
from risbench.review.labelstudio.server import DATABASE, running
from risbench.review.store.review_store import ReviewStore
from risbench.review.verbs.backup import backup, restore
from tests.conftest import tree_bytes
from tests.review.lab import Person


def test_a_backup_of_a_running_server_is_whole_and_serves_again_elsewhere(
    host: Path, server: str, lab: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from risbench.review.labelstudio.accounts import add_annotators

    workspace = lab()
    add_annotators(["ana"], workspace=workspace)
    # the desk of one workspace, the data of the host's server: as if it were this one's own
    (ReviewStore(Workspace.open(workspace)).root / "server").symlink_to(host / "review" / "server")
    (workspace / "review" / "password").write_text((host / "review" / "password").read_text())
    made = backup(tmp_path / "b.zip", workspace=workspace)
    assert (tmp_path / "b.zip").stat().st_mode & 0o077 == 0
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        names = set(archive.namelist())
    assert {"secret", "annotators.json", "token", "accounts/ana.txt"} <= names
    assert made["files"] == len(names) - 1
    with pytest.raises(InputError, match="exists already"):
        backup(tmp_path / "b.zip", workspace=workspace)
    with pytest.raises(BusyError, match="stop `risbench review serve` first"):
        restore(tmp_path / "b.zip", workspace=host, replace=True)
    with pytest.raises(InputError, match="there is a desk already"):
        restore(tmp_path / "b.zip", workspace=lab("third"))
    other = lab("other")
    back = restore(tmp_path / "b.zip", workspace=other, replace=True)
    assert back["moved_aside"].endswith("review.before-restore-1")
    same = tree_bytes(workspace / "review", skip=("server", ".lock"))
    assert {name: data for name, data in tree_bytes(other / "review", skip=("server", ".lock")).items() if name in same} == same
    assert (other / "review" / "server" / DATABASE).stat().st_mode & 0o077 == 0
    with running(other) as again:
        assert again.url != server
        card = other / "review" / "accounts" / "ana.txt"
        card.write_text(card.read_text().replace(server, again.url))
        assert Person(other, "ana").session.get(f"{again.url}/api/current-user/whoami", timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        (b"PK nonsense", "is no backup, or a damaged one"),
        ({"other.txt": b"x"}, "is no backup, or a damaged one"),
        ({"backup.json": b"[]"}, "is no backup, or a damaged one"),
        ({"backup.json": b'{"format": 7, "files": {}}'}, "a backup of format 7; this risbench reads 1"),
        ({"backup.json": json.dumps({"format": 1, "files": {"../x": "0"}}).encode(), "../x": b"x"}, "leads out of the desk"),
        ({"backup.json": json.dumps({"format": 1, "files": {"x": "0"}}).encode(), "x": b"x"}, "is not what was written"),
        ({"backup.json": json.dumps({"format": 1, "files": {"x": "0"}}).encode()}, "is no backup, or a damaged one"),
    ],
    ids=["gone", "no zip", "no manifest", "odd manifest", "newer", "zip slip", "changed", "missing"],
)
def test_what_is_no_backup_changes_nothing(host: Path, tmp_path: Path, content: bytes | dict[str, bytes] | None, said: str) -> None:
    workspace = tmp_path / "w"
    Workspace.create(workspace, Workspace.open(host).settings)
    file = tmp_path / "b.zip"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    with pytest.raises(InputError, match=said):
        restore(file, workspace=workspace)
    assert not (workspace / "review").exists()
    assert not (tmp_path / "x").exists()
