"""A workspace as tables of records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from risbench.api.tables import expressions_frame, objects_frame, triplets_frame
from risbench.core.imagery import Pixels
from risbench.core.record import Record
from risbench.core.workspace import Workspace, read_records


@dataclass(frozen=True)
class Table:
    """Records of a stage, read anew each time they are gone through."""

    stage: Path
    _frame: Callable[[Iterable[Record]], pd.DataFrame]

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in their order."""
        return read_records(self.stage)

    def to_pandas(self) -> pd.DataFrame:
        """Return the table."""
        return self._frame(self)


class Data:
    """A workspace: what the last finished stage holds, as records and as tables."""

    def __init__(self, root: Path | str) -> None:
        """Open the workspace in a folder.

        Raises:
            InputError: the folder is not a workspace.
        """
        self._workspace = Workspace.open(root)

    @property
    def root(self) -> Path:
        """The folder."""
        return self._workspace.root

    def __fspath__(self) -> str:
        """Return the folder, so that a workspace stands wherever a path may."""
        return str(self.root)

    def __repr__(self) -> str:
        """Return what it is of."""
        return f"<risbench workspace {self._workspace.settings.name!r} in {self.root}>"

    def triplets(self) -> Table:
        """Return the records: as a table a row per record.

        Raises:
            InputError: there is no finished ingest.
        """
        return Table(self._workspace.latest(), triplets_frame)

    def objects(self) -> Table:
        """Return the records: as a table a row per target.

        Raises:
            InputError: there is no finished ingest.
        """
        return Table(self._workspace.latest(), objects_frame)

    def expressions(self) -> Table:
        """Return the records: as a table a row per sentence.

        Raises:
            InputError: there is no finished ingest.
        """
        return Table(self._workspace.latest(), expressions_frame)

    def image(self, record: Record) -> Pixels:
        """Return the pixels (height, width, 3) of a record's image, 8-bit RGB.

        Raises:
            UnusableImage: it is gone, is not the one that was ingested, or cannot be decoded.
        """
        return self._workspace.read_image(record)


def open_workspace(root: Path | str) -> Data:
    """Open the workspace in a folder.

    Raises:
        InputError: the folder is not a workspace.
    """
    return Data(root)
