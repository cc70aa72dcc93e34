"""A small release of generated referring scenes, through the real stages, and a model trained on it for a few steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import pytest

if util.find_spec("transformers"):
    from risbench.benchmark.data.cache import Cache, open_cache
    from risbench.benchmark.train.run import train
else:
    Cache = Any  # the test modules are skipped, with the reason

from risbench.export import export
from risbench.ingest import ingest
from risbench.refine import refine_masks
from risbench.scenes.referring import write_referring

FORMATS = ("risbench", "refer", "parquet", "webdataset")
FEW_STEPS = ("recipe.steps=6", "recipe.looks=2", "recipe.batch=8", "recipe.warm_up=2", "recipe.per_image=2", "recipe.coarse_side=64")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with forty scenes, split and released in each format."""
    root = tmp_path_factory.mktemp("benchmark")
    write_referring(root / "source", 3, 40, side=192)
    made = root / "w"
    ingest(root / "source", workspace=made, format="coco", fit="keep", uninformative="keep", quiet=True)
    refine_masks(workspace=made, engine="box", quiet=True)
    for name in FORMATS:
        export(workspace=made, split=".6,.15,.25", include_unreviewed=True, formats=(name,), name=name, quiet=True)
    return made


@pytest.fixture(scope="session")
def release(workspace: Path) -> Path:
    """The release in Parquet."""
    return workspace / "4-export" / "parquet"


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for caches that the tests share."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="session")
def cache(release: Path, caches: Path) -> Cache:
    """The release at the tiny configuration's side."""
    return open_cache(release, 96, caches, quiet=True)


@pytest.fixture(scope="session")
def run(release: Path, caches: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CroBIM after six steps."""
    out = tmp_path_factory.mktemp("run") / "crobim"
    train("crobim", release, out=out, config="tiny", changes=FEW_STEPS, cache=caches, quiet=True)
    return out


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds, two minutes at most."""
    for _ in range(1200):
        if holds():
            return
        time.sleep(0.1)
    pytest.fail(f"not within two minutes: {what}")
