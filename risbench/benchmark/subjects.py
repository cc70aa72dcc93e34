"""What a benchmark is run on: models, models with switches changed, baselines, and the paper's tables of ablations by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from risbench.benchmark.eval.baseline_names import BASELINES
from risbench.benchmark.models.known import MODELS
from risbench.core.errors import OptionError

# What a benchmark is run on where nothing is said: what knows nothing, then every model but those that are asked for by name.
DEFAULT: Final = "empty,full,centre,largest,lavt,caris,crobim"
_COMMA: Final = re.compile(r",(?![^\[]*\])")


@dataclass(frozen=True)
class Subject:
    """One row of a benchmark's table: a model and what is changed of it, or a baseline."""

    name: str
    model: str
    changes: tuple[str, ...] = ()

    @property
    def is_trained(self) -> bool:
        """Whether it has to be trained."""
        return self.model in MODELS.names()

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return re.sub(r"[^A-Za-z0-9.=+-]+", "-", self.name).strip("-")


def ablations() -> dict[str, tuple[str, ...]]:
    """Return the groups of rows that the models bring, by name."""
    return {name: rows for kind in MODELS.all().values() for name, rows in kind.ablations.items()}


def subjects(text: str) -> list[Subject]:
    """Return the subjects of a list such as `centre,lavt,crobim,crobim:mid.attention=pwam,table6`.

    Commas between brackets belong to a value; several changes of one model are joined with `+`. Tables of ablations bring the whole model
    with them, which their rows are compared with.

    Raises:
        OptionError: a name is not known, or stands twice.
    """
    made: list[Subject] = []
    trained, groups = MODELS.names(), ablations()
    parts = [piece.strip() for piece in _COMMA.split(text)]
    for part in parts:
        for one in groups.get(part, (part,)):
            model, _, changes = one.partition(":")
            if model not in (*trained, *BASELINES):
                known = ", ".join((*trained, *BASELINES, *groups))
                raise OptionError(f"--models {one}: there is no such model; name some of {known}, a model's changes behind a colon")
            if changes and model not in trained:
                raise OptionError(f"--models {one}: {model} is not trained and has no settings to change")
            made.append(Subject(one, model, tuple(changes.split("+")) if changes else ()))
    whole = [groups[part][0].partition(":")[0] for part in parts if part in groups]
    made[:0] = [Subject(name, name) for name in dict.fromkeys(whole) if all(subject.name != name for subject in made)]
    twice = next((subject.name for subject in made if [other.name for other in made].count(subject.name) > 1), None)
    if twice is not None:
        raise OptionError(f"--models: {twice} stands twice")
    return made
