"""Where Label Studio's data lie, SQLite or PostgreSQL, and where the password of the latter comes from."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from risbench.core.errors import MissingRequirementError, OptionError


def has_password(url: str) -> bool:
    """Return whether a database URL holds a password."""
    try:
        return bool(urlsplit(url).password)
    except ValueError:
        return "@" in url


def database_settings(url: str | None) -> dict[str, str]:
    """Return the variables that tell Label Studio where its data lie.

    Raises:
        OptionError: the URL is none of a database; no piece of it is repeated, as it may hold a password.
        MissingRequirementError: others can read the password file.
    """
    if url is None:
        return {"DJANGO_DB": "sqlite"}
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:  # its words may hold a piece of the password
        raise OptionError("--postgres: is no URL; write / : @ # of a password as %2F %3A %40 %23") from None
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname or not parts.path.strip("/"):
        raise OptionError("--postgres: must look like postgresql://user:password@host:5432/name")
    return {
        "DJANGO_DB": "default",
        "POSTGRE_HOST": parts.hostname,
        "POSTGRE_PORT": str(port),
        "POSTGRE_NAME": parts.path.strip("/"),
        "POSTGRE_USER": unquote(parts.username or "postgres"),
        "POSTGRE_PASSWORD": unquote(parts.password or ""),
        **({} if parts.password else _password_elsewhere()),
    }


def _password_elsewhere() -> dict[str, str]:
    """Return what tells the database's own library where the password is: the variable, or the file that only its owner may read."""
    if password := os.environ.get("PGPASSWORD"):
        return {"PGPASSWORD": password}
    given = os.environ.get("PGPASSFILE")
    path = Path(given) if given else Path.home() / ".pgpass"
    if not path.is_file():
        if given:
            raise MissingRequirementError(f"PGPASSFILE: {path}: there is no such file")
        return {}
    if path.stat().st_mode & 0o077:
        raise MissingRequirementError(f"{path}: others can read it, and PostgreSQL then ignores it; run chmod 600 {path}")
    return {"PGPASSFILE": str(path.resolve())}
