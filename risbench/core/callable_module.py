"""Packages with the name of the function they are for: `risbench.ingest(...)` calls it, imported before or not."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A package that can be called: the call goes to the function of its name in its module `run`."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        return getattr(import_module(f"{self.__name__}.run"), self.__name__.rpartition(".")[2])(*args, **options)


def make_callable(name: str) -> None:
    """Let an imported package be called (https://docs.python.org/3/reference/datamodel.html#customizing-module-attribute-access)."""
    sys.modules[name].__class__ = CallableModule
