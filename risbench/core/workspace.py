"""The workspace folder: settings, the lock, and where each stage's output lies."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from risbench.core.errors import InputError, printable
from risbench.core.imagery import Pixels
from risbench.core.images import read_image
from risbench.core.reading import open_to_read, parse_toml, read_file
from risbench.core.record import Record
from risbench.core.storage import digest_of, explain_os_error, locked, read_summary, sha256_of_file, write_durably

SETTINGS_FILE = "risbench.toml"
ADAPTERS = "adapters"
INGEST, REFINE, REVIEW, EXPORT, BENCHMARK = "1-ingest", "2-refine", "3-review", "4-export", "5-benchmark"


class Settings(BaseModel):
    """What `risbench.toml` may hold; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    seed: int = 0
    engine: str = "auto"
    split_rule: str = "scene"
    adapter: str = Field(default="", pattern="^([0-9a-f]{12})?$")


class Workspace:
    """One data set in one folder."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings

    @classmethod
    def open(cls, root: Path | str) -> Workspace:
        """Open an existing workspace.

        Raises:
            InputError: the folder is not a workspace, or its settings have an unknown key or a bad value.
        """
        root = Path(root)
        path = root / SETTINGS_FILE
        try:
            values = parse_toml(read_file(path).decode("utf-8"))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise InputError(
                f"{root}: no {SETTINGS_FILE} here, so this is not a workspace; make one with "
                "`risbench ingest SOURCE -w FOLDER`, or name an existing one with -w"
            ) from None
        except ValueError as error:  # of TOML, or of UTF-8
            raise InputError(f"{path}: not valid TOML: {printable(str(error), 200)}") from None
        try:
            return cls(root, Settings.model_validate(values))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{path}: {field} = {printable(first['input'])}: {first['msg']}") from None

    @classmethod
    def create(cls, root: Path | str, settings: Settings) -> Workspace:
        """Open the workspace, making folder and settings file where they are missing; existing settings stay."""
        root = Path(root)
        if not (root / SETTINGS_FILE).exists():
            try:
                root.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise InputError(f"{root}: is a file; a workspace is a folder, name another with -w") from None
            except OSError as error:
                raise explain_os_error(error, root) from error
            lines = [f"{key} = {json.dumps(value)}" for key, value in settings.model_dump().items()]
            with cls(root, settings).lock("ingest"):
                if not (root / SETTINGS_FILE).exists():
                    write_durably(root / SETTINGS_FILE, ("\n".join(lines) + "\n").encode())
        return cls.open(root)

    @contextlib.contextmanager
    def lock(self, command: str) -> Iterator[None]:
        """Hold the workspace for writing.

        Raises:
            BusyError: another process holds it; the message names it.
        """
        with locked(self.root, command):
            yield

    def set_adapter(self, name: str) -> None:
        """Name the adapter that `refine-masks` uses from now on; the rest of the settings file stays as people wrote it.

        Raises:
            InputError: the file says `adapter` in a way that cannot be changed in place.
        """
        path = self.root / SETTINGS_FILE
        text, value = read_file(path).decode("utf-8"), json.dumps(name)
        changed, count = re.subn(r"""(?m)^([ \t]*(["']?)adapter\2[ \t]*=[ \t]*)("[^"\r\n]*"|'[^'\r\n]*')""", rf"\g<1>{value}", text)
        changed = changed if count else f"{text.rstrip()}\nadapter = {value}\n"
        try:
            right = parse_toml(changed).get("adapter") == name
        except ValueError:
            right = False
        if not right:
            raise InputError(f"{path}: its line for adapter cannot be changed; write adapter = {value} yourself")
        write_durably(path, changed.encode())
        self.settings = self.settings.model_copy(update={"adapter": name})

    def adapter(self) -> Path | None:
        """Return the file of the current adapter, or None where the settings name none.

        Raises:
            InputError: the settings name one that is not there.
        """
        if not self.settings.adapter:
            return None
        path = self.root / ADAPTERS / self.settings.adapter / "adapter.safetensors"
        if not path.is_file():
            raise InputError(
                f"{self.root / SETTINGS_FILE}: adapter = {json.dumps(self.settings.adapter)}: {path} is not there; "
                'train one with `risbench train-adapter`, or set adapter = ""'
            )
        return path

    def stage(self, name: str) -> Path:
        """Return the folder of a stage."""
        return self.root / name

    def rounds(self) -> list[Path]:
        """Return the folders of all refine rounds, oldest first, finished or not."""
        folders = [path for path in (self.root / REFINE).glob("round-*") if path.name[6:].isdigit()]
        return sorted(folders, key=lambda path: int(path.name[6:]))

    def finished_rounds(self) -> list[Path]:
        """Return the folders of the finished refine rounds, oldest first."""
        return [path for path in self.rounds() if (path / "run.json").exists()]

    def latest(self) -> Path:
        """Return the folder with the newest finished records: a refine round made from the review, else the review, a round, ingest.

        Raises:
            InputError: nothing has been ingested to the end.
        """
        rounds, review = self.finished_rounds(), self.root / REVIEW
        if rounds and (review / "run.json").exists():
            # a round that began from this review holds all that it decided, and newer masks for the rest
            begun_from = read_summary(rounds[-1]).get("inputs", {}).get("records")
            if begun_from == digest_of(read_summary(review)["parts"]):
                return rounds[-1]
        for folder in (review, *reversed(rounds), self.root / INGEST):
            if (folder / "run.json").exists():
                return folder
        raise InputError(f"{self.root}: no finished ingest here; run `risbench ingest SOURCE -w {self.root}` first")

    def read_image(self, record: Record) -> Pixels:
        """Return the pixels (height, width, 3) of a record's image, 8-bit RGB; its sha256 is checked.

        Raises:
            UnusableImage: it is gone, is not the image that was ingested, or cannot be decoded.
            MissingRequirementError: the system fails to read it.
        """
        return read_image(self.root, record.image)


def read_records(folder: Path) -> Iterator[Record]:
    """Yield the records of a finished stage in their order.

    Raises:
        InputError: a part is missing or is not what was written, or a line is not a record of this schema version.
    """
    for name, expected in _listed_parts(folder):
        part = folder / name
        if not part.is_file():
            raise InputError(f"{part}: is missing; run.json lists it. Run `risbench validate`, then the stage again in a new workspace")
        if sha256_of_file(part) != expected:
            raise InputError(f"{part}: is not what was written (sha256 differs from run.json); run `risbench validate`")
        with open_to_read(part) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield Record.model_validate_json(line)
                except ValidationError as error:
                    first = error.errors()[0]
                    field = ".".join(str(piece) for piece in first["loc"])
                    raise InputError(
                        f"{part}: line {number}{_named(line)}: {field} = {printable(first['input'])}: {first['msg']}; "
                        "run the stage again, or use the risbench version that wrote it"
                    ) from None


def _named(line: bytes) -> str:
    """Return how a line that is no record calls itself, to find it by."""
    try:
        name = json.loads(line)["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return f": record {printable(name)}"


def _listed_parts(folder: Path) -> list[tuple[str, str]]:
    """Return (name, sha256) of a stage's parts as its run.json lists them."""
    return [(part["name"], part["sha256"]) for part in read_summary(folder)["parts"]]


def part_files(folder: Path) -> list[Path]:
    """Return the parts that lie in a stage's folder, in order."""
    return sorted(folder.glob("part-*.jsonl"))
