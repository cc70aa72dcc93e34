"""Shared helpers: tiny sources that the tests draw themselves, and the real command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

# Test processes that stand side by side share the cores; threads that spin while they wait for others would take them from each other.
if beside := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // beside)))
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pytest
from hypothesis import settings

from risbench.core.imagery import encode_png

if util.find_spec("torch"):
    from risbench.learn.device import keep_freed_memory

    keep_freed_memory()  # as the commands do: a third of the time

settings.register_profile("no deadline", deadline=None)  # what a busy machine does slowly is right all the same
settings.load_profile("no deadline")

SHARED = Path(os.environ.get("RISBENCH_SHARED", Path(__file__).parents[1] / ".." / "shared"))
Row = dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take minutes: at the end one process would wait for the other."""
    items.sort(key=lambda item: "test_kill.py" not in item.nodeid)


_TOGETHER = ("tests/review/", "tests/benchmark/test_benchmark.py", "tests/inspect/test_report.py", "tests/test_faults.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Send tests that share what takes long to make to one process: a Label Studio, a table. (pytest 9 ignores the names that xdist_group makes.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((place for place in _TOGETHER if nodeid.startswith(place)), nodeid)

    return Together(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture
def shared() -> Path:
    """The real data, or a skip that says where it was looked for."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real data at {SHARED} (set RISBENCH_SHARED)")
    return SHARED / "data"


def picture(seed: int, height: int = 96, width: int = 96) -> np.ndarray:
    """Return an image with a bright rectangle on textured ground."""
    random = np.random.default_rng(seed)
    image = random.normal(90, 8, (height, width, 3))
    image[height // 4 : height // 2, width // 4 : width // 2] = random.normal(
        200, 8, (height // 2 - height // 4, width // 2 - width // 4, 3)
    )
    return image.clip(0, 255).astype(np.uint8)


def eval_row(
    image: str, key: int, tokens: str = "{<24><24><49><49>}", sentence: str | None = None, category: str = "vehicle", **more: Any
) -> Row:
    """Return one VRSBench EVAL row."""
    return {"image_id": image, "question": sentence or f"The bright vehicle number {chr(97 + key % 26)} {key}.", "ground_truth": tokens,
            "dataset": "RSBench", "question_id": key, "type": "ref", "obj_cls": category, "obj_ids": [0], **more}  # fmt: skip


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a VRSBench source of EVAL rows and images."""

    def make(rows: list[Any], images: int = 4, name: str = "source", side: int = 96) -> Path:
        folder = tmp_path / name
        (folder / "Images").mkdir(parents=True)
        for index in range(images):
            (folder / "Images" / f"S{index:04d}_0000.png").write_bytes(encode_png(picture(index, side, side)))
        (folder / "VRSBench_EVAL_referring.json").write_text(json.dumps(rows))
        return folder

    return make


def cli(
    *words: str | Path, cwd: Path | None = None, timeout: float = 300, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the real command line."""
    command = [sys.executable, "-m", "risbench", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}, check=False)


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a stage."""
    return [record for part in sorted(folder.glob("part-*.jsonl")) for record in lines(part)]


def tree_bytes(root: Path, skip: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Return every file below `root`; of run.json without `seconds`, the one thing that may differ."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not path.is_file() or name.startswith(skip or ("\0",)):
            continue
        data = path.read_bytes()
        if path.name == "run.json":
            value = json.loads(data)
            value.pop("seconds")
            data = json.dumps(value, sort_keys=True).encode()
        found[name] = data
    return found
