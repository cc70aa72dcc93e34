"""Settings of a model, read from a bundled configuration or a TOML file, with changes of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from risbench.benchmark.models.known import model_kind
from risbench.benchmark.settings import Settings
from risbench.core.errors import InputError, OptionError
from risbench.core.reading import parse_toml


def load_settings(config: str, model: str = "crobim", changes: Sequence[str] = ()) -> Settings:
    """Return the settings of a bundled configuration or a TOML file, as a model needs them, with `section.name=value` changes.

    Raises:
        OptionError: there is no such model or configuration, or a change cannot be read.
        InputError: the file is no TOML or holds an unknown name or a value out of bounds.
    """
    kind = model_kind(model)
    values, where = _read(config)
    for section, fields in values.items():
        if section in kind.settings.model_fields and section != "side" and not isinstance(fields, dict):
            raise InputError(f"{where}: {section} = {fields!r}: must be a section, [{section}]")
    _merge(values, kind.changes(values))
    for change in changes:
        _change(values, change)
    try:
        made = kind.settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(piece) for piece in first["loc"])
        value = f"{field} = {first['input']!r}: " if field else ""  # what concerns several sections names them itself
        raise InputError(f"{where}: {value}{first['msg'].removeprefix('Value error, ')}") from None
    kind.check(made)
    return made


def need_release(release: Path | str) -> None:
    """Check that a release is there; here, where it takes no heavy import.

    Raises:
        InputError: it is not.
    """
    if not Path(release).exists():
        raise InputError(f"{release}: there is no such release; `risbench export --split` makes one")


def bundled() -> list[str]:
    """Return the names of the configurations that come with risbench."""
    return sorted(file.name.removesuffix(".toml") for file in resources.files("risbench.benchmark").joinpath("configs").iterdir())


def _read(config: str) -> tuple[dict[str, Any], str]:
    if config in bundled():
        text, where = resources.files("risbench.benchmark").joinpath(f"configs/{config}.toml").read_text(encoding="utf-8"), config
    else:
        path = Path(config)
        if path.suffix != ".toml" or not path.is_file():
            raise OptionError(f"--config {config}: is none of {', '.join(bundled())}, nor a TOML file")
        try:
            text, where = path.read_text(encoding="utf-8"), str(path)
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    try:
        return parse_toml(text), where
    except ValueError as error:
        raise InputError(f"{where}: is no TOML ({error})") from None


def _merge(values: dict[str, Any], more: dict[str, dict[str, Any]]) -> None:
    for section, fields in more.items():
        values[section] = {**values.get(section, {}), **fields}


def _change(values: dict[str, Any], change: str) -> None:
    name, equals, value = change.partition("=")
    section, dot, field = name.strip().partition(".")
    if not equals or not section:
        raise OptionError(f"--set {change}: write it as section.name=value, such as mid.attention=pwam")
    try:
        read = parse_toml(f"value = {value}")["value"]
    except ValueError:
        read = value.strip()
    if dot:
        if section == "side":
            raise OptionError(f"--set {change}: side has no parts; write side={value}")
        values[section] = {**values.get(section, {}), field: read}
    else:
        values[section] = read
