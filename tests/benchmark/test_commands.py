"""The commands as a user types them: what they print, where they write, how they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the train extra is not installed")

from click.testing import Result
from typer.testing import CliRunner

from risbench.cli.app import app
from tests.benchmark.conftest import FEW_STEPS
from tests.conftest import cli

TINY = ["--config", "tiny", *(word for change in FEW_STEPS for word in ("--set", change))]


def typed(*words: object) -> Result:
    """Run a command that must succeed in this process: one that starts anew spends ten seconds on importing PyTorch."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, (done.stderr, done.exception)
    return done


@pytest.mark.slow
def test_train_evaluate_and_benchmark_follow_one_another(release: Path, tmp_path: Path) -> None:
    trained = cli("train", "crobim", release, "-w", tmp_path, *TINY)
    assert trained.returncode == 0, trained.stderr
    run = tmp_path / "5-benchmark" / "crobim-tiny-seed0"
    assert f"score it: risbench evaluate {run} {release}" in trained.stdout.replace("\n", " ").replace("  ", " ")
    again = typed("train", "crobim", release, "-w", tmp_path, *TINY, "--json")
    assert json.loads(again.stdout)["seconds_a_step"] == 0.0, "it was done"

    evaluated = typed("evaluate", run, release, "--shuffle", "--protocol", "native", "--json")
    told = json.loads(evaluated.stdout)
    assert told["shuffled"]
    assert Path(told["path"]).name == f"{release.name}-test-native-shuffled.json"
    assert Path(told["sheet"]).is_file()

    models = ["--models", "empty,largest,crobim", "--seeds", "1", "--against", "largest", "--published", "RISBench"]
    compared = typed("benchmark", release, "-w", tmp_path, *TINY, *models)
    tables = tmp_path / "5-benchmark" / "benchmark"
    assert "CroBIM" in (tables / "table.md").read_text()
    assert {path.suffix for path in tables.glob("table.*")} == {".txt", ".md", ".tex", ".json"}
    assert "largest" in compared.stdout


@pytest.mark.parametrize(("words", "said"), [
    (["train", "crobin", "RELEASE", *TINY], "there is no such model"),
    (["train", "crobim", "nowhere", *TINY], "nowhere: there is no such release"),
    (["train", "crobim", "RELEASE", "--set", "mid.heads=7"], "must be divisible by heads 7"),
    (["evaluate", "5-benchmark/crobim", "RELEASE"], "neither a run's folder nor a baseline"),
    (["benchmark", "--compare", "a", "b", "--published", "RISBench"], "takes no RELEASE"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_no_traceback(words: list[str], said: str, release: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*(str(release) if word == "RELEASE" else word for word in words), "-w", str(tmp_path)])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (2, 3)
    assert said in " ".join(done.stderr.replace("│", " ").split())
