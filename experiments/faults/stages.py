"""The commands that meet faults, and the small world they run in: six images, a few of them georeferenced, three sentences each."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import shutil
import sqlite3
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin
from typer.main import get_command

from faults.trials import fresh, run
from risbench.core.imagery import encode_png

SIDE: Final = 96
SPLIT: Final = ("--split", ".34,.33,.33", "--include-unreviewed")
_RUN: Final = "w/5-benchmark/lavt-tiny-seed0"
_TRAIN: Final = ("train", "lavt", "--config", "tiny", *(f"--set=recipe.{text}" for text in ("steps=4", "looks=2", "batch=4", "warm_up=1")))


@dataclass(frozen=True)
class Stage:
    """A command, the stages that come before it, and what prepares its folder besides.

    `describe` says in words what has to be the same where bytes may differ; `unstable` are the beginnings of the names of files that may.
    """

    name: str
    words: tuple[str, ...]
    after: tuple[str, ...] = ()
    prepare: Callable[[Path], None] | None = None
    describe: Callable[[Path], str] | None = None
    unstable: tuple[str, ...] = ()
    slow: bool = False


def picture(seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Return an image of one seed (side, side, 3): fields of colour, so that no two are alike, and a bright square."""
    draw = np.random.default_rng(seed)
    image = np.kron(draw.uniform(20, 230, (8, 8, 3)), np.ones((side // 8, side // 8, 1))) + draw.normal(0, 8, (side, side, 3))
    image[side // 4 : side // 2, side // 4 : side // 2] = 220
    return image.clip(0, 255).astype(np.uint8)


def row(image: str, number: int, tokens: str = "{<24><24><49><49>}", **more: Any) -> dict[str, Any]:
    """Return a row as VRSBench's evaluation file has it."""
    return {"image_id": image, "question": f"The bright vehicle number {number}.", "ground_truth": tokens, "dataset": "RSBench",
            "question_id": number, "type": "ref", "obj_cls": "vehicle", "obj_ids": [0], **more}  # fmt: skip


def write_geotiff(path: Path, image: NDArray[np.uint8], **profile: Any) -> None:
    """Write an image (h, w, 3) as a GeoTIFF in UTM, a metre a pixel, unless told otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    georeference = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 1, 1)} | profile
    shape = {"width": image.shape[1], "height": image.shape[0], "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **shape, **georeference) as file:
        file.write(image.transpose(2, 0, 1))


def write_source(folder: Path, images: int = 6) -> None:
    """Write the small source: `source` in a folder."""
    rows = []
    (folder / "source" / "Images").mkdir(parents=True)
    for index in range(images):
        georeferenced = index % 3 == 1
        name = f"S{index:04d}_0000.{'tif' if georeferenced else 'png'}"
        path = folder / "source" / "Images" / name
        if georeferenced:
            write_geotiff(path, picture(index), transform=from_origin(5e5 + 1000 * index, 5e6, 0.5, 0.5))
        else:
            path.write_bytes(encode_png(picture(index)))
        rows += [row(name, 3 * index + place, f"{{<{18 + 3 * place}><24><{47 + 2 * place}><49>}}") for place in range(3)]
    rows += [row("gone.png", 900), {"type": "vqa"}]
    (folder / "source" / "VRSBench_EVAL_referring.json").write_text(json.dumps(rows))


def make_desk(folder: Path) -> None:
    """Give the workspace a desk with work and a server's database, as `backup` finds them; no server runs."""
    from risbench.core.workspace import Workspace, read_records
    from risbench.review.rules.plan import Item
    from risbench.review.store.review_store import Annotator, ReviewStore, write_private

    workspace = Workspace.open(folder / "w")
    desk = ReviewStore(workspace)
    desk.secret()
    desk.save_annotators([Annotator("ana", "ana@lab", project=1)])
    desk.save_queue([Item(f"k{number}", record.id, "0" * 12, "ana", "task", 1, 0.5) for number, record in enumerate(read_records(workspace.latest()))])  # fmt: skip
    write_private(desk.root / "token", "0" * 40)
    desk.save_connection(url="http://127.0.0.1:9", public_url="http://127.0.0.1:9", database="sqlite", images="files")
    (desk.root / "server").mkdir(mode=0o700)
    with sqlite3.connect(desk.root / "server" / "label_studio.sqlite3") as database:
        database.execute("create table answers (id integer, body text)")
        database.executemany("insert into answers values (?, ?)", [(number, "x" * 300) for number in range(40)])
    database.close()


def make_backup(folder: Path) -> None:
    from risbench.review.verbs.backup import backup

    make_desk(folder)
    backup(folder / "desk.zip", workspace=folder / "w")


def _take_release(folder: Path) -> None:
    shutil.copytree(folder / "w" / "4-export" / "release", folder / "release")
    shutil.rmtree(folder / "w")


def _layers(folder: Path) -> str:
    """Return what a release's GeoPackages hold: tables that are announced, their rows, the tables of their indexes."""
    told = []
    for path in sorted(folder.glob("w/4-export/*/geo/*.gpkg")):
        layer = sqlite3.connect(path)
        tables = [name for (name,) in layer.execute("select table_name from gpkg_contents order by 1")]
        indexes = layer.execute("select count(*) from sqlite_master where name like 'rtree_%'").fetchone()[0]
        rows = [layer.execute(f'select count(*) from "{name}"').fetchone()[0] for name in tables]
        layer.close()
        told.append(f"{path.name}: {tables} with {rows} rows, {indexes} tables of indexes")
    return "; ".join(told)


def _desks(folder: Path) -> str:
    """Return whether a whole desk is there, and nothing half done beside it."""
    desks = [path for path in (folder / "w").glob("review*") if (path / "queue.jsonl").is_file() and (path / "secret").is_file()]
    loose = sorted(path.name for path in (folder / "w").rglob(".tmp*"))
    return f"a whole desk: {bool(desks)}; left over: {loose}"


def _backup(folder: Path) -> str:
    """Return whether a backup holds what it says, and what lies beside it."""
    try:
        with zipfile.ZipFile(folder / "new.zip") as archive:
            said = f"{len(archive.namelist())} files, damaged: {archive.testzip()}"
    except (OSError, zipfile.BadZipFile) as error:
        said = f"no backup ({type(error).__name__})"
    loose = sorted(path.name for path in folder.rglob("*") if path.name.startswith((".tmp", "tmp")))
    return f"{said}; left over: {loose}"


def _training(folder: Path) -> str:
    """Return a digest of the state from which a training goes on: all but the order in which it was pickled."""
    import torch

    data = (folder / _RUN / "last.pt").read_bytes().partition(b"\n")[2]
    digest = hashlib.sha256()
    for name, value in _leaves("", torch.load(io.BytesIO(data), weights_only=True)):
        digest.update(name.encode() + (value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()))
    return digest.hexdigest()


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(f"{name}.{key}", item)
    else:
        yield name, value


_BOX: Final = ("refine-masks", "--engine", "box", "--workers", "1", "-w", "w")
STAGES: Final = {
    stage.name: stage
    for stage in (
        Stage("ingest", ("ingest", "source", "-w", "w")),
        Stage("refine box", _BOX, ("ingest",)),
        Stage("refine grabcut", ("refine-masks", "--engine", "grabcut", "--workers", "1", "-w", "w"), ("ingest",)),
        Stage("export", ("export", *SPLIT, "--format", "risbench,coco,refer", "-w", "w"), ("ingest", "refine box")),
        Stage("export all", ("export", *SPLIT, "--format", "all", "-w", "w"), ("ingest", "refine box"), describe=_layers),
        Stage(
            "export --replace",
            ("export", *SPLIT, "--format", "risbench,coco", "--seed", "5", "--replace", "-w", "w"),
            ("ingest", "refine box", "export"),
        ),
        Stage("stats", ("stats", "-w", "w"), ("ingest", "refine box")),
        Stage("report", ("report", "-w", "w"), ("ingest", "refine box")),
        Stage("report of a release", ("report", "w/4-export/release", "-w", "w"), ("ingest", "refine box", "export")),
        Stage("validate", ("validate", "-w", "w"), ("ingest", "refine box")),
        Stage("verify", ("verify", "w/4-export/release"), ("ingest", "refine box", "export")),
        Stage("ingest of a release", ("ingest", "release", "-w", "w2"), ("ingest", "refine box", "export all"), _take_release),
        Stage(
            "review backup",
            ("review", "backup", "new.zip", "-w", "w"),
            ("ingest", "refine box"),
            make_desk,
            _backup,
            ("new.zip",),
        ),
        Stage(
            "review restore",
            ("review", "restore", "desk.zip", "-w", "w", "--replace"),
            ("ingest", "refine box"),
            make_backup,
            _desks,
            ("w/review.before-restore-",),
        ),
        Stage("train", (*_TRAIN, "-w", "w"), ("ingest", "refine box", "export"), None, _training, (f"{_RUN}/last.pt",), slow=True),
        Stage("evaluate", ("evaluate", _RUN, "-w", "w"), ("ingest", "refine box", "export", "train"), slow=True),
    )
}


def import_all() -> None:
    """Import what the commands would import, so that every fork starts at once; parts are made small, so that there are several."""
    for name in ("export.run", "export.verify", "inspect.report", "inspect.stats", "inspect.validate", "inspect.audit", "ingest.run",
                 "refine.run", "review.verbs.backup", "cli.app", "cli.text", "cli.text_review"):  # fmt: skip
        importlib.import_module(f"risbench.{name}")
    for name in ("matplotlib", "matplotlib.pyplot", "matplotlib.font_manager", "wordcloud", "pyogrio", "pyarrow.parquet", "PIL.Image"):
        importlib.import_module(name)
    modules: Any = sys.modules
    # the command line is put together once: that takes longer than what most of these runs do
    modules["risbench.cli.app"].app = get_command(modules["risbench.cli.app"].app)
    modules["matplotlib"].use("Agg")
    modules["risbench.ingest.run"].PART_RECORDS = 7
    modules["risbench.refine.run"].PART_RECORDS = 7


def import_torch() -> None:
    """Import what training needs, too: seconds, and memory that every fork shares."""
    import torch

    torch.set_num_threads(1)
    for name in ("benchmark.train.run", "benchmark.eval.evaluate", "cli.text_benchmark"):
        importlib.import_module(f"risbench.{name}")


def prepared(stage: Stage, folder: Path) -> Path:
    """Return a folder as the command finds it; what other stages need as well is made once."""
    base = folder / stage.name.replace(" ", "-")
    if base.exists():
        return base
    done = _after(stage.after, folder)
    fresh(done, base)
    if stage.prepare is not None:
        stage.prepare(base)
    return base


def _after(names: tuple[str, ...], folder: Path) -> Path:
    place = folder / f"after-{'-'.join(names).replace(' ', '-') or 'nothing'}"
    if place.exists():
        return place
    if not names:
        place.mkdir()
        write_source(place)
        return place
    fresh(_after(names[:-1], folder), place)
    outcome = run(STAGES[names[-1]].words, place, timeout_s=300)
    if outcome.code:
        raise RuntimeError(f"{names[-1]} ended with {outcome.code}: {outcome.stderr[-400:]}")
    return place
