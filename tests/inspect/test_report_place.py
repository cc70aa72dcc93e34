"""A report is whole or absent, whatever ends the run that writes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from risbench.core.errors import InputError, MissingRequirementError
from risbench.inspect.report import report
from risbench.inspect.report_source import Source
from tests.conftest import tree_bytes
from tests.record import a_record, tiny_workspace

CHANGES = ("unlink", "rmdir", "rename", "replace", "mkdir")


class Killed(BaseException):
    """Stands for a kill: nothing of ours may catch it."""


def dies_before(number: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the process be killed before its `number`-th change of a folder; the function that is returned says how many came."""
    calls = []

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) >= number:  # a killed process does nothing more, also no cleaning up
                raise Killed
            return real(*args, **options)

        return call

    for name in CHANGES:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return lambda: len(calls)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return a workspace of two sheets; without sentences no figure is drawn."""
    return tiny_workspace(tmp_path / "w", [a_record(f"r{index:02d}").model_copy(update={"expression": None}) for index in range(18)])


@pytest.mark.parametrize("before", ["nothing", "an older report"])
def test_killed_before_any_change_of_a_folder_the_same_command_ends_with_the_same_bytes(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    if before == "an older report":
        report(workspace=workspace, quiet=True)
        shutil.copytree(workspace / "report", workspace / "older")
        records = [a_record(f"r{index:02d}").model_copy(update={"expression": None, "split": "val"}) for index in range(18)]
        shutil.rmtree(workspace / "1-ingest")
        tiny_workspace(workspace, records)
    report(workspace=workspace, output=workspace / "calm" / "report", quiet=True)
    calm = tree_bytes(workspace / "calm" / "report")
    number, killed = 1, True
    while killed:
        shutil.rmtree(workspace / "there", ignore_errors=True)
        (workspace / "there").mkdir()
        if before == "an older report":
            shutil.copytree(workspace / "older", workspace / "there" / "report")
        with monkeypatch.context() as patched:
            dies_before(number, patched)
            try:
                report(workspace=workspace, output=workspace / "there" / "report", quiet=True)
                killed = False
            except Killed:
                pass
        found = report(workspace=workspace, output=workspace / "there" / "report", quiet=True)
        assert tree_bytes(workspace / "there" / "report") == calm, number
        assert sorted(path.name for path in (workspace / "there").iterdir()) == [".lock-report", "report"], "nothing is left beside it"
        assert found["records"] == 18
        number += 1 if before == "nothing" else 4
    assert number > 15, "the run makes more changes than that"


def test_a_report_that_lacks_a_file_or_was_cut_short_is_not_up_to_date(workspace: Path) -> None:
    report(workspace=workspace, quiet=True)
    whole = tree_bytes(workspace / "report")
    for damage in (
        lambda: (workspace / "report/tiles/00001.jpg").unlink(),
        lambda: (workspace / "report/data/records.js").write_bytes(b""),
        lambda: (workspace / "report/report.json").write_text('{"plan": {}}'),
    ):
        damage()
        assert report(workspace=workspace, quiet=True)["state"] == "written"
        assert tree_bytes(workspace / "report") == whole


def test_a_passing_error_is_no_missing_image(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: Source, record: Any) -> Any:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Source, "pixels", fails)
        with pytest.raises(MissingRequirementError, match=r"images/r00.png: cannot be read: Input/output error"):
            report(workspace=workspace, quiet=True)
    assert report(workspace=workspace, quiet=True)["missing_images"] == 0


def test_deep_json_where_a_report_is_to_lie_is_no_report(workspace: Path) -> None:
    (workspace / "report").mkdir()
    (workspace / "report" / "report.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="is no report"):
        report(workspace=workspace, quiet=True)
