"""`risbench review backup` and `restore`: all that people's work consists of, in one private file, and back."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import lzma
import os
import shutil
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from risbench.core.errors import BusyError, InputError, MissingRequirementError, RisbenchError, printable
from risbench.core.reading import open_to_read
from risbench.core.storage import create_new, explain_os_error, locked, sync_folder
from risbench.core.workspace import Workspace
from risbench.review.labelstudio.server import DATABASE
from risbench.review.store.review_store import DESK, ReviewStore
from risbench.review.store.stored import RESTORE
from risbench.review.verbs.check import check_desk

_MANIFEST: Final = "backup.json"
_FORMAT: Final = 1
_LARGEST_BYTES: Final = 64 << 30
# Of the server's folder: its database, its secret key, what was uploaded. Logs and temporary files stay behind.
_SERVER_KEPT: Final = (".env", "media")


def backup(file: Path | str, *, workspace: Path | str = ".", desk_only: bool = False) -> dict[str, Any]:
    """Write desk and server data into a zip that only its owner can read; the server may run meanwhile.

    Raises:
        InputError: the file exists already, or the server's data lie elsewhere and it is not `desk_only`.
        MissingRequirementError: the disk is full.
    """
    desk, target = ReviewStore(Workspace.open(workspace)), Path(file)
    if target.exists():
        raise InputError(f"{target}: exists already; a backup replaces nothing")
    kind = desk.connection().get("database", "sqlite")
    if kind != "sqlite" and not desk_only:
        where = "in PostgreSQL: pg_dump them" if kind == "postgres" else "on a server that somebody else runs: ask them"
        raise InputError(f"{desk.root}: the server's data lie {where}, and add --desk-only for the rest")
    temporary = target.with_name(f".tmp.{target.name}")
    with desk.workspace.lock("review backup"):
        try:
            with _scratch(desk) as scratch:
                files = _files(desk, scratch)
                with os.fdopen(create_new(temporary, 0o600), "wb") as out:
                    digests = {}
                    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
                        for name, path in sorted(files.items()):
                            digests[name] = _add(archive, path, name)
                        archive.writestr(_MANIFEST, json.dumps({"format": _FORMAT, "files": digests}, sort_keys=True, indent=1))
                    out.flush()
                    os.fsync(out.fileno())
            os.replace(temporary, target)  # last, when nothing is left on the desk
            sync_folder(target.resolve().parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise explain_os_error(error, target) from error
    return {"file": str(target), "files": len(files), "bytes": target.stat().st_size, "warnings": _warnings(desk)}


@contextlib.contextmanager
def _scratch(desk: ReviewStore) -> Iterator[Path]:
    """A private folder on the desk for the time of a `with`; what a killed backup left in it, a copy of the database, goes first."""
    folder = desk.root / ".tmp.backup"
    try:
        if folder.is_symlink():  # laid out beforehand: never followed
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise explain_os_error(error, folder) from error
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder)


def _warnings(desk: ReviewStore) -> list[str]:
    """Return what is damaged in a desk: it is kept as it is, and restore would refuse it."""
    try:
        check_desk(desk.workspace, desk.root.name)
    except RisbenchError as error:
        return [f"{error}; the backup holds it as it is"]
    return []


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> str:
    """Add a file and return the sha256 of what was added: somebody may write to the file meanwhile."""
    digest = hashlib.sha256()
    with open(path, "rb") as file, archive.open(name, "w", force_zip64=True) as out:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()


def _files(desk: ReviewStore, scratch: Path) -> dict[str, Path]:
    """Return what goes into a backup, by name; of a SQLite file a copy that is whole whatever the server does meanwhile."""
    server = desk.root / "server"
    found = {}
    for path in desk.root.rglob("*"):
        name = path.relative_to(desk.root)
        outside = name.parts[0] == "server" and (len(name.parts) < 2 or name.parts[1] not in _SERVER_KEPT)
        if path.is_file() and not outside and not any(part.startswith((".tmp", ".lock")) for part in name.parts):
            found[name.as_posix()] = path
    if (server / DATABASE).exists():
        copy = scratch / DATABASE
        try:
            with contextlib.closing(sqlite3.connect(server / DATABASE)) as live, contextlib.closing(sqlite3.connect(copy)) as kept:
                live.backup(kept)
        except sqlite3.Error as error:
            raise _not_copied(server / DATABASE, error) from error
        found[f"server/{DATABASE}"] = copy
    return found


def _not_copied(database: Path, error: sqlite3.Error) -> RisbenchError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_NOTADB) & 0xFF  # the rest of the code says more of the same
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return InputError(f"{database}: is damaged ({error}); restore the desk from a backup")
    return MissingRequirementError(f"{database}: cannot be copied: {error}; mend that, then run the same command again")


def restore(file: Path | str, *, workspace: Path | str = ".", replace: bool = False) -> dict[str, Any]:
    """Put a backup back: the whole of it or nothing. With `replace` the desk that is there is moved aside, not deleted.

    Raises:
        InputError: the file is no backup, is damaged, or there is a desk already.
        BusyError: the server of this workspace runs.
    """
    opened, source = Workspace.open(workspace), Path(file)
    target = opened.root / DESK
    with opened.lock("review restore"), contextlib.ExitStack() as held:
        if (target / "server").is_dir():
            try:
                held.enter_context(locked(target / "server", "review restore"))
            except BusyError as error:
                raise BusyError(f"{error}; stop `risbench review serve` first") from None
        if target.exists() and any(target.iterdir()) and not replace:
            raise InputError(f"{target}: there is a desk already; --replace moves it aside")
        fresh = target.with_name(f".tmp.{DESK}")
        if fresh.is_symlink():  # laid out beforehand: never written through
            fresh.unlink()
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            count = _unpack(source, fresh)
            _check(opened, source, fresh)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)  # it holds secrets
            raise
        aside = None
        if target.exists():
            aside = next(path for number in range(1, 10_000) if not (path := target.with_name(f"{DESK}.before-restore-{number}")).exists())
            os.rename(target, aside)
        os.rename(fresh, target)
        sync_folder(opened.root)
    return {"files": count, "desk": str(target), "moved_aside": str(aside) if aside else None}


def _check(workspace: Workspace, source: Path, fresh: Path) -> None:
    """Read every file of a desk that is about to take the place of another.

    Raises:
        InputError: one is damaged.
    """
    try:
        check_desk(workspace, fresh.name)
    except MissingRequirementError:
        raise  # the machine failed, which says nothing about the backup
    except RisbenchError as error:
        raise InputError(f"{source}: {str(error).replace(f'{fresh}/', '').removesuffix(f'; {RESTORE}')}; take another backup") from None


def _no_backup(source: Path, error: Exception) -> InputError:
    return InputError(f"{source}: is no backup, or a damaged one ({type(error).__name__}: {printable(str(error))})")


def _unpack(source: Path, folder: Path) -> int:
    """Unpack a checked backup into a new private folder; return how many files it held."""
    try:
        # zipfile takes a read that fails for "no zip"; ours says that it failed
        with open_to_read(source) as file, zipfile.ZipFile(file) as archive:
            manifest = json.loads(archive.read(_MANIFEST))
            if manifest.get("format") != _FORMAT:
                raise InputError(f"{source}: a backup of format {manifest.get('format')}; this risbench reads {_FORMAT}")
            folder.mkdir(mode=0o700)
            if (total := sum(entry.file_size for entry in archive.infolist())) > _LARGEST_BYTES:
                raise InputError(f"{source}: unpacks to {total:,} bytes; {_LARGEST_BYTES:,} are believed at most")
            for name, digest in manifest["files"].items():
                path = PurePosixPath(name)
                if path.is_absolute() or ".." in path.parts or "\\" in name:
                    raise InputError(f"{source}: {name}: leads out of the desk; this is no backup of ours")
                data = archive.read(name)
                if hashlib.sha256(data).hexdigest() != digest:
                    raise InputError(f"{source}: {name}: is not what was written (sha256 differs); take another backup")
                (folder / path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                with open(folder / path, "wb", opener=lambda where, flags: os.open(where, flags, 0o600)) as out:
                    out.write(data)
                    os.fsync(out.fileno())
    except FileNotFoundError:
        raise InputError(f"{source}: there is no such file") from None
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # a place before the file's beginning
            raise _no_backup(source, error) from None
        raise explain_os_error(error, source if error.filename in (None, str(source)) else folder) from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        RuntimeError,
        LookupError,
        ValueError,
        AttributeError,
        TypeError,
    ) as error:
        raise _no_backup(source, error) from None
    return len(manifest["files"])
