"""A model of the SAM family and a predictor on it, whichever kind its file is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from risbench.sam.adapter_file import COMPACT_BASE, base_beside, is_adapter, load_adapted, load_whole_adapted, read_adapter
from risbench.sam.builtin import load_builtin
from risbench.sam.compact.model import CompactSam
from risbench.sam.compact.predictor import VIEWS, CompactPredictor
from risbench.sam.compact.weights import is_compact, load_compact
from risbench.sam.pasam.predictor import PaSam, PasamPredictor
from risbench.sam.predictor import BoxPredictor, Predictor
from risbench.sam.weights import load_sam

AnySam = CompactSam | PaSam | Any  # segment-anything's Sam, which has no types


def open_model(path: Path | None, device: str = "cpu") -> tuple[AnySam, str]:
    """Return a model and its weights' sha256: the built-in one, an adapter on its base, a compact SAM, or Meta's SAM or MobileSAM.

    Raises:
        InputError: the file is damaged or of none of these kinds.
    """
    if path is None:
        return load_builtin(device)
    if not is_adapter(path):
        return load_compact(path, device) if is_compact(path) else load_sam(path, device)
    if read_adapter(path)[0].whole:
        return load_whole_adapted(path, base_beside(path), device)
    own = path.parent / COMPACT_BASE
    return load_adapted(path, device, own if own.is_file() else None)


def predictor_on(model: AnySam, views: int = VIEWS) -> Predictor:
    """Return a predictor on a model; `views` are those that a compact one looks at a crop in."""
    if isinstance(model, CompactSam):
        return CompactPredictor(model, views=views)
    return PasamPredictor(model) if isinstance(model, PaSam) else BoxPredictor(model)
