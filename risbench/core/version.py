"""The version of risbench."""

from typing import Final

VERSION: Final = "0.2.0"
