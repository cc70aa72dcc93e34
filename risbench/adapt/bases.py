"""What can be adapted: the built-in model, another compact SAM, or a SAM of whole images, whose embeddings are made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from torch import distributed, nn

from risbench.adapt.adapter_data import Boxes, Known, TrueObject
from risbench.adapt.sources import CropSource, WholeSource
from risbench.adapt.train_adapter import AdapterRecipe
from risbench.adapt.whole_data import Embeddings
from risbench.core.errors import InputError, OptionError
from risbench.core.record import Record
from risbench.core.workspace import ADAPTERS
from risbench.learn.device import dtype_of, fast_precision, joined, keep_freed_memory, ranks
from risbench.sam.adapter_file import load_adapted, load_whole_adapted
from risbench.sam.builtin import load_builtin
from risbench.sam.compact.model import CompactSam
from risbench.sam.compact.predictor import CompactPredictor
from risbench.sam.compact.weights import is_compact, load_compact
from risbench.sam.pasam.predictor import PaSam, PasamPredictor, load_pasam
from risbench.sam.predictor import Predictor
from risbench.sam.vit import fused

_ORIENTED_SHARE: Final = 0.25


@dataclass(frozen=True)
class Base:
    """A model to adapt, its file (None: the built-in one) and that file's sha256."""

    path: Path | None
    model: CompactSam | PaSam
    sha256: str

    @property
    def whole(self) -> bool:
        """Whether it looks at whole images."""
        return isinstance(self.model, PaSam)


def load_base(path: Path | None) -> Base:
    """Return a model to adapt.

    Raises:
        InputError: the file cannot be used.
    """
    if path is None:
        return Base(None, *load_builtin())
    try:
        return Base(path, *(load_compact(path) if is_compact(path) else load_pasam(path, fresh=True)))
    except InputError as error:
        raise InputError(str(error).replace("--checkpoint", "--base", 1)) from None


def recipe_for(base: Base, recipe: AdapterRecipe) -> AdapterRecipe:
    """Return a recipe with what it leaves to the base decided.

    Raises:
        OptionError: the base cannot be trained so.
    """
    if base.whole and recipe.encoder:
        raise OptionError("--encoder: the encoder of a SAM of whole images stays as it is; leave the option out")
    if not base.whole and recipe.prompts != "box":
        raise OptionError(
            f"--prompts {recipe.prompts}: a compact SAM is always prompted with a box; give a SAM of whole images with --base"
        )
    return replace(recipe, encoder=not base.whole if recipe.encoder is None else recipe.encoder)


def oriented_share(base: Base, records: Sequence[Record]) -> float:
    """Return how many prompts are oriented boxes: a quarter where the workspace has some; PA-SAM on whole images has no such prompt."""
    has = any(target.oriented_box is not None for record in records for target in record.targets)
    return _ORIENTED_SHARE if has and not base.whole else 0.0


def source_for(
    base: Base,
    root: Path,
    records: Sequence[Record],
    known: Known,
    learn: Sequence[TrueObject],
    check: Sequence[TrueObject],
    boxes: Boxes,
    *,
    device: str,
    quiet: bool,
) -> CropSource | WholeSource:
    """Return where the batches come from; a SAM of whole images encodes them first, and leaves its encoder behind.

    The embeddings stay in `adapters/embeddings` for the next training; they can be removed at any time.

    Raises:
        MissingRequirementError: the disk has no room for the embeddings.
    """
    model = base.model
    if isinstance(model, CompactSam):
        return CropSource(root, learn, check, boxes, model.settings.side_px)
    device = joined(device)
    if device == "cpu":
        keep_freed_memory()
    precision = fast_precision(device)
    digests = {record.image.path: record.image.sha256 for record in records}
    embeddings = Embeddings(root / ADAPTERS / "embeddings" / f"{base.sha256[:12]}-{model.side}-{precision}", digests)
    rank, together = ranks()
    model.image_encoder = fused(model.to(device).image_encoder, dtype_of(precision))
    embeddings.fill(model, [item.image for item in known.objects], root, device=device, mine=slice(rank, None, together), quiet=quiet)
    model.image_encoder = nn.Identity()
    if together > 1:
        distributed.barrier()
    return WholeSource(root, learn, check, boxes, model.side, embeddings)


def predictors(adapter: Path, base: Base, device: str) -> tuple[Predictor, Predictor]:
    """Return the base as it was before, and with an adapter's file on it."""
    if not base.whole:
        plain = (load_builtin(device) if base.path is None else load_compact(base.path, device))[0]
        return CompactPredictor(plain), CompactPredictor(load_adapted(adapter, device, base.path)[0])
    assert base.path is not None, "only a file is a SAM of whole images"
    dtype = dtype_of(fast_precision(device))
    before, after = load_pasam(base.path, device=device, fresh=True)[0], load_whole_adapted(adapter, base.path, device)[0]
    for model in (before, after):
        model.image_encoder = fused(model.image_encoder, dtype)
    return PasamPredictor(before, adapter=not before.is_new), PasamPredictor(after)
