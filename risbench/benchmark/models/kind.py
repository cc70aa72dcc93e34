"""What is known of a model before PyTorch is imported: its name, its settings, what it is compared on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from risbench.benchmark.settings import Section, Settings

if TYPE_CHECKING:
    from torch import nn


def _nothing(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {}


def _fits(settings: Settings) -> None:
    return None


@dataclass(frozen=True)
class ModelKind:
    """One model that is trained on releases; docs/architecture.md says how to add one.

    `build` makes it from settings and the number of word pieces, and imports PyTorch only then. `sections` are the sections of settings
    that shape it besides `backbone` and `text`; `section` is one of its own, of the model's name. `changes` returns what the model
    changes of a configuration's values, section by section; `check` refuses settings that it cannot be made with (OptionError).
    `ablations` are named groups of rows for `benchmark --models`, each `NAME:section.field=value`.
    """

    name: str
    summary: str
    build: Callable[[Settings, int], nn.Module]
    rank: int = 100
    sections: tuple[str, ...] = ()
    section: type[Section] | None = None
    changes: Callable[[Mapping[str, Any]], dict[str, dict[str, Any]]] = _nothing
    check: Callable[[Settings], None] = _fits
    ablations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def settings(self) -> type[Settings]:
        """The model's settings: the common ones, and its own section where it brings one."""
        if self.section is None:
            return Settings
        return create_model("Settings", __base__=Settings, **{self.name: (self.section, self.section())})  # type: ignore[call-overload,no-any-return]

    @property
    def shaped_by(self) -> tuple[str, ...]:
        """The sections that a run must share with one that begins with its weights."""
        return ("backbone", "text", *self.sections, *((self.name,) if self.section is not None else ()))
