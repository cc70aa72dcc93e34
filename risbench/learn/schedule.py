"""How the learning rate goes over a training: the same way for the built-in model and for adapters."""

from __future__ import annotations

import math
from typing import Protocol


class Schedule(Protocol):
    """What of a recipe the rate depends on: steps in all, steps of warm-up, and the peak."""

    @property
    def steps(self) -> int: ...

    @property
    def warm_up(self) -> int: ...

    @property
    def learning_rate(self) -> float: ...


def learning_rate_at(step: int, recipe: Schedule) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine to 1 % of the peak."""
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    share = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))
