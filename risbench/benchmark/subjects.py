"""What a benchmark is run on: models, models with switches changed, baselines, and the paper's tables of ablations by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from risbench.benchmark.eval.baselines import BOXES, TRIVIAL
from risbench.benchmark.settings import MODELS
from risbench.core.errors import OptionError

# CroBIM's Tables V to VII: what each row changes of the model as it is.
ABLATIONS: Final[dict[str, tuple[str, ...]]] = {
    "table5": (
        "crobim:capm.scales=[1,2,3]",
        "crobim:capm.scales=[1,2,4]",
        "crobim:capm.scales=[2,3,4]",
        "crobim:capm.pool=max",
        "crobim:capm.pool=avg",
    ),
    "table6": (
        "crobim:lgfa.deficit_stages=[]",
        "crobim:lgfa.deficit_stages=[4]",
        "crobim:lgfa.deficit_stages=[3,4]",
        "crobim:lgfa.deficit_stages=[2,3,4]",
    ),
    "table7": ("crobim:mid.attention=pwam", "crobim:mid.attention=wpa"),
}
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
        return self.model in MODELS

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return re.sub(r"[^A-Za-z0-9.=+-]+", "-", self.name).strip("-")


def subjects(text: str) -> list[Subject]:
    """Return the subjects of a list such as `centre,lavt,crobim,crobim:mid.attention=pwam,table6`.

    Commas between brackets belong to a value; several changes of one model are joined with `+`. Tables of ablations bring the whole model
    with them, which their rows are compared with.

    Raises:
        OptionError: a name is not known, or stands twice.
    """
    made: list[Subject] = []
    parts = [piece.strip() for piece in _COMMA.split(text)]
    for part in parts:
        for one in ABLATIONS.get(part, (part,)):
            model, _, changes = one.partition(":")
            if model not in (*MODELS, *TRIVIAL, *BOXES):
                known = ", ".join((*MODELS, *TRIVIAL, *BOXES, *ABLATIONS))
                raise OptionError(f"--models {one}: there is no such model; name some of {known}, a model's changes behind a colon")
            if changes and model not in MODELS:
                raise OptionError(f"--models {one}: {model} is not trained and has no settings to change")
            made.append(Subject(one, model, tuple(changes.split("+")) if changes else ()))
    if not ABLATIONS.keys().isdisjoint(parts) and all(subject.name != "crobim" for subject in made):
        made.insert(0, Subject("crobim", "crobim"))
    twice = next((subject.name for subject in made if [other.name for other in made].count(subject.name) > 1), None)
    if twice is not None:
        raise OptionError(f"--models: {twice} stands twice")
    return made
