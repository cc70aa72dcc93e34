"""What a run's files must hold to be used: every value that is read back is checked here, also where the digests fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator
from torch import Tensor

from risbench.benchmark.eval.slices import FAILURE_KINDS, KINDS
from risbench.benchmark.models.known import MODELS
from risbench.core.errors import InputError, printable

_HEX: Final = r"^[0-9a-f]{64}$"
Count = Annotated[int, Field(ge=0, lt=2**53)]
Size = Annotated[int, Field(gt=0, le=1 << 20)]
Depth = Annotated[int, Field(gt=0, le=1000)]


class _Checked(BaseModel):
    """Base: numbers are numbers and texts are texts, and what a later version adds is no fault."""

    model_config = ConfigDict(strict=True, extra="allow")


class _BuiltBackbone(_Checked):
    """The sizes that an image encoder really has."""

    kind: Literal["swin", "convnext"]
    embed: Size
    depths: Annotated[list[Depth], Field(min_length=4, max_length=4)]
    heads: Annotated[list[Size], Field(min_length=4, max_length=4)] | None = None
    window: Size | None = None


class _BuiltText(_Checked):
    """The sizes that a text encoder really has."""

    width: Size
    layers: Depth
    heads: Size
    ffn: Size


class _Built(_Checked):
    """What a model is built with: the encoders, and how many word pieces there are."""

    backbone: _BuiltBackbone
    text: _BuiltText
    embedded: Annotated[int, Field(gt=0, le=10_000_000)]


class _Origin(_Checked):
    """What a part began with; `steps` is of a whole run."""

    origin: str = Field(alias="from")
    steps: Count | None = None
    weights: dict[str, dict[str, Any]] | None = None


class _Training(_Checked):
    """What a run learnt from."""

    samples: Count
    format: str
    digest: str


def _known(name: str) -> str:
    if name not in MODELS.names():
        raise ValueError(f"must be one of {', '.join(MODELS.names())}")
    return name


class About(_Checked):
    """A run's `model.json`."""

    format: str
    model: Annotated[str, AfterValidator(_known)]
    plan: str
    settings: dict[str, Any]
    built: _Built
    seed: Count
    precision: str
    step: Count
    steps: Count
    parameters: dict[str, Count]
    weights: dict[str, _Origin]
    sentences_cut: Count
    training: _Training
    classes: list[str]
    left_out: dict[str, Count]
    weights_file: str = Field(pattern=r"^best-[0-9]{7,}-[0-9a-f]{8}\.safetensors$")
    sha256: str = Field(pattern=_HEX)
    tokenizer_sha256: str = Field(pattern=_HEX)
    digest: str


class Look(_Checked):
    """What a validation said."""

    step: Count
    oIoU: FiniteFloat  # noqa: N815 - the field's name for it
    mIoU: FiniteFloat  # noqa: N815


class State(_Checked):
    """What is needed to go on with a training; of one that is done, that it is."""

    plan: str
    step: Count
    looks: list[Look]
    best: FiniteFloat
    model: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None


class _Figure(_Checked):
    """A metric with its interval."""

    value: FiniteFloat
    interval: Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]


class _Figures(_Checked):
    """The metrics of a set of samples."""

    mIoU: _Figure  # noqa: N815 - the field's name for it
    oIoU: _Figure  # noqa: N815
    precise_5: _Figure = Field(alias="Pr@0.5")
    precise_6: _Figure = Field(alias="Pr@0.6")
    precise_7: _Figure = Field(alias="Pr@0.7")
    precise_8: _Figure = Field(alias="Pr@0.8")
    precise_9: _Figure = Field(alias="Pr@0.9")


class _Slice(_Figures):
    """The metrics of a slice."""

    n: Count
    few: bool


class _Kind(_Checked):
    """How often a kind of failure is met."""

    failures: Count
    of_failures: FiniteFloat | None
    of_the_rest: FiniteFloat | None
    cannot_tell: Count


class _Failures(_Checked):
    """Failures by kind."""

    failures: Count
    of: Count
    nothing_found: Count
    wholly_elsewhere: Count
    kinds: dict[str, _Kind]

    @model_validator(mode="after")
    def _has_all(self) -> _Failures:
        if not set(FAILURE_KINDS) <= set(self.kinds):
            raise ValueError(f"kinds must be {', '.join(FAILURE_KINDS)}")
        return self


class Result(_Checked):
    """What an evaluation wrote beside its samples: all that is computed with or printed."""

    of: str
    data: str
    samples_sha256: str = Field(pattern=_HEX)
    subject: str
    release: str
    split: str
    protocol: str
    shuffled: bool
    sentences_changed: Count
    n: Annotated[int, Field(gt=0)]
    images: Annotated[int, Field(gt=0)]
    reviewed: Count
    figures: _Figures
    slices: dict[str, dict[str, _Slice]]
    failures: _Failures
    left_out: dict[str, Count]
    first_left_out: list[str]
    classes_read_off_sentences: bool = False
    sentences_cut: Count = 0
    unseen_classes: list[str] = []
    seed: Count = 0

    @model_validator(mode="after")
    def _has_all(self) -> Result:
        if not set(KINDS) <= set(self.slices):
            raise ValueError(f"slices must be by {', '.join(KINDS)}")
        return self


def checked(path: Path, kind: type[BaseModel], value: object, mend: str) -> None:
    """Check a value that was read from a file.

    Raises:
        InputError: a field is missing or of another kind; the message names file, field and value.
    """
    try:
        kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(piece) for piece in first["loc"])
        shown = f"{field} = {printable(first['input'], 80)}" if first["type"] != "missing" else field
        raise InputError(f"{path}: is damaged ({printable(shown, 200)}: {first['msg']}); {mend}") from None


def fitting(path: Path, found: dict[str, Tensor], expected: dict[str, Tensor], what: str) -> None:
    """Check that tensors are those of a model, all of them and of its shapes.

    Raises:
        InputError: they are not; the first that differs is named.
    """
    wrong = sorted(set(expected) ^ set(found)) or [
        name
        for name, value in expected.items()
        if not isinstance(found[name], Tensor) or found[name].shape != value.shape or found[name].dtype != value.dtype
    ]
    if wrong:
        raise InputError(
            f"{path}: is of another configuration: {printable(wrong[0], 120)} and {len(wrong) - 1} more tensors do not fit {what}"
        )
