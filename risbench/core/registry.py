"""One registry for each kind of extension: built-in objects, each in its own module, and those of other packages by entry points."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Final, Generic, Protocol, TypeVar

_LOG: Final = logging.getLogger("risbench")


class Named(Protocol):
    """What a registry holds: an object with a name that users type, and a rank that orders the names."""

    @property
    def name(self) -> str:
        """The name that users type."""

    @property
    def rank(self) -> int:
        """The place among the others; the lowest comes first."""


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """The objects of one kind, by name.

    Built-in ones are the values of `attribute` (one object or a tuple) in the modules of `package`: a new module needs no further edit.
    Other packages add one by an entry point of the group `group` that leads to such an object. One that cannot be loaded, is of
    another type or has a name that is taken is named once on standard error and left out; the rest works.
    """

    def __init__(self, kind: type[T], group: str, package: str, attribute: str) -> None:
        self._kind, self.group, self._package, self._attribute = kind, group, package, attribute
        self._found: dict[str, T] | None = None
        self.origins: dict[str, str] = {}
        self.broken: list[str] = []

    def all(self) -> dict[str, T]:
        """Return the objects by name: by rank, then by name."""
        if self._found is None:
            found = {one.name: one for one in self._built_in()}
            self.broken = []
            self.origins = {}
            for point in sorted(entry_points(group=self.group), key=lambda point: (_distribution(point), point.name)):
                self._add(point, found)
            self._found = dict(sorted(found.items(), key=lambda item: (item[1].rank, item[0])))
        return self._found

    def names(self) -> tuple[str, ...]:
        """Return the names, in order."""
        return tuple(self.all())

    def get(self, name: str) -> T | None:
        """Return the object of a name, None where there is none."""
        return self.all().get(name)

    def forget(self) -> None:
        """Look again at the next use: packages may have been added."""
        self._found = None

    def _built_in(self) -> Iterator[T]:
        package = import_module(self._package)
        for module in sorted(info.name for info in iter_modules(package.__path__)):
            value = getattr(import_module(f"{self._package}.{module}"), self._attribute, ())
            yield from (value,) if isinstance(value, self._kind) else value

    def _add(self, point: EntryPoint, found: dict[str, T]) -> None:
        where = f"entry point {point.name} of {self.group}, from {_distribution(point)}"
        try:
            value = point.load()
        except Exception as error:  # noqa: BLE001 (another package's code may fail in any way; it is named, and the rest works)
            self._leave_out(f"{where}: cannot be loaded ({type(error).__name__}: {error})")
            return
        if not isinstance(value, self._kind):
            self._leave_out(f"{where}: is a {type(value).__name__}; it must be a {self._kind.__module__}.{self._kind.__name__}")
        elif value.name in found:
            owner = self.origins.get(value.name, "risbench")
            self._leave_out(f"{where}: its name {value.name} is taken by {owner}")
        else:
            found[value.name] = value
            self.origins[value.name] = _distribution(point)

    def _leave_out(self, reason: str) -> None:
        self.broken.append(reason)
        _LOG.warning("risbench: %s; the rest works without it", reason)


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown package"
