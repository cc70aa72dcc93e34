"""What a model and its training are made with: TOML files in configs/, one section a part, every switch of the paper's tables."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from risbench.core.errors import InputError, OptionError

MODELS: Final = ("crobim", "caris", "lavt")
Level = Literal[1, 2, 3, 4]


class Section(BaseModel):
    """Base of all sections: immutable, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneSettings(Section):
    """The image encoder. `weights` is a name on the hub, a folder, or a file with a state dict; empty means random ones."""

    kind: Literal["swin", "convnext"] = "swin"
    embed: int = Field(default=128, gt=0)
    depths: tuple[int, int, int, int] = (2, 2, 18, 2)
    heads: tuple[int, int, int, int] = (4, 8, 16, 32)
    window: int = Field(default=12, gt=0)
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    weights: str = ""


class TextSettings(Section):
    """The text encoder, a BERT. `vocabulary` is the size of the WordPiece one that is trained where no weights bring theirs."""

    width: int = Field(default=768, gt=0)
    layers: int = Field(default=12, gt=0)
    heads: int = Field(default=12, gt=0)
    ffn: int = Field(default=3072, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    max_tokens: int = Field(default=20, ge=4, le=480)
    vocabulary: int = Field(default=8000, ge=100)
    weights: str = ""


class CapmSettings(Section):
    """Table V: which scales, which pool. `context` off leaves prompts that never saw the image (CARIS's)."""

    prompts: int = Field(default=4, gt=0, le=32)
    scales: tuple[Level, ...] = (1, 2, 3, 4)
    pool: Literal["adaptive_avg", "max", "avg"] = "adaptive_avg"
    grid: int = Field(default=1, gt=0)
    scale_logits: bool = True
    residual: bool = False
    context: bool = True
    injection: Literal["embeds", "post_embedding"] = "embeds"


class LgfaSettings(Section):
    """Table VI: which scales the compensation writes to (none: off). `enabled` off hands the backbone's maps on."""

    enabled: bool = True
    deficit_stages: tuple[Level, ...] = (1, 2, 3, 4)
    regions: int = Field(default=32, gt=0)
    width: int = Field(default=256, gt=0)
    heads: int = Field(default=8, gt=0)
    residual: bool = False
    norm: Literal["none", "instance"] = "none"
    deficit: Literal["attention", "score"] = "attention"
    resample: Literal["area", "bilinear"] = "area"
    write_back: Literal["add", "replace"] = "add"
    region_tokens: Literal["patch", "pooled"] = "patch"


class MidSettings(Section):
    """Table VII: which attention. `pyramid` refines only the coarse `levels` and brings the finer ones in behind them (CARIS's)."""

    width: int = Field(default=256, gt=0)
    layers: int = Field(default=4, gt=0)
    heads: int = Field(default=8, gt=0)
    points: int = Field(default=4, gt=0)
    ffn: int = Field(default=1024, gt=0)
    levels: tuple[Level, ...] = (1, 2, 3, 4)
    pyramid: bool = False
    attention: Literal["cbam", "pwam", "wpa"] = "cbam"
    scale_logits: bool = True
    checkpoint: bool = False

    @model_validator(mode="after")
    def _levels_ascend(self) -> MidSettings:
        if not self.levels or list(self.levels) != sorted(set(self.levels)):
            raise ValueError("levels must name scales once each, finest first")
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} must be divisible by heads {self.heads} and by 4")
        return self


class LavtSettings(Section):
    """The LAVT-style baseline's decoder; 0 takes half of the coarsest map's channels."""

    width: int = Field(default=0, ge=0)


class Recipe(Section):
    """How a model is trained; defaults are the paper's (Section V-B). `steps`, where above 0, counts instead of `epochs`.

    `loss`: `crobim` is eq. 18 (cross-entropy and dice over one logit), `weighted` the peers' two-class cross-entropy with weights .9 and
    1.1, `rmsin` that with dice over the batch. `weight_decay` spares norms, biases, position tables and prompts.
    """

    epochs: int = Field(default=40, gt=0)
    steps: int = Field(default=0, ge=0)
    batch: int = Field(default=32, gt=0)
    learning_rate: float = Field(default=5e-5, gt=0)
    backbone_share: float = Field(default=1.0, ge=0)
    text_share: float = Field(default=1.0, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    power: float = Field(default=0.9, ge=0)
    warm_up: int = Field(default=0, ge=0)
    clip: float = Field(default=0.0, ge=0)
    loss: Literal["crobim", "weighted", "rmsin"] = "crobim"
    entropy_share: float = Field(default=0.9, ge=0, le=1)
    dice: Literal["linear", "squared"] = "linear"
    looks: int = Field(default=0, ge=0)


class Settings(Section):
    """All of it. `side` is that of the square images the model sees, in pixels; they need not be multiples of 32."""

    side: int = Field(default=480, ge=32, le=2048)
    backbone: BackboneSettings = BackboneSettings()
    text: TextSettings = TextSettings()
    capm: CapmSettings = CapmSettings()
    lgfa: LgfaSettings = LgfaSettings()
    mid: MidSettings = MidSettings()
    lavt: LavtSettings = LavtSettings()
    recipe: Recipe = Recipe()


# What makes CARIS (arXiv 2308.12534) of CroBIM's parts: prompts of its own, no aggregation, six layers on three coarse levels, a pyramid.
_CARIS: Final[dict[str, dict[str, Any]]] = {
    "capm": {"context": False, "injection": "post_embedding"},
    "lgfa": {"enabled": False},
    "mid": {"layers": 6, "levels": [2, 3, 4], "pyramid": True},
}
_LAVT: Final[dict[str, dict[str, Any]]] = {"recipe": {"loss": "weighted"}}


def load_settings(config: str, model: str = "crobim", changes: Sequence[str] = ()) -> Settings:
    """Return the settings of a bundled configuration or a TOML file, as a model needs them, with `section.name=value` changes.

    Raises:
        OptionError: there is no such model or configuration, or a change cannot be read.
        InputError: the file is no TOML or holds an unknown name or a value out of bounds.
    """
    if model not in MODELS:
        raise OptionError(f"{model}: there is no such model; name one of {', '.join(MODELS)}")
    values, where = _read(config)
    _merge(values, {"crobim": {}, "caris": _CARIS, "lavt": _LAVT}[model])
    if model == "caris" and "mid" in values and config in bundled():
        # its six layers to CroBIM's four, at any size
        values["mid"]["layers"] = max(1, round(1.5 * _read(config)[0].get("mid", {}).get("layers", 4)))
    for change in changes:
        _change(values, change)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(piece) for piece in first["loc"]) or "settings"
        raise InputError(f"{where}: {field} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}") from None


def bundled() -> list[str]:
    """Return the names of the configurations that come with risbench."""
    return sorted(file.name.removesuffix(".toml") for file in resources.files("risbench.benchmark").joinpath("configs").iterdir())


def _read(config: str) -> tuple[dict[str, Any], str]:
    if config in bundled():
        text, where = resources.files("risbench.benchmark").joinpath(f"configs/{config}.toml").read_text(encoding="utf-8"), config
    else:
        path = Path(config)
        if path.suffix != ".toml" or not path.is_file():
            raise OptionError(f"--config {config}: is none of {', '.join(bundled())}, nor a TOML file")
        text, where = path.read_text(encoding="utf-8"), str(path)
    try:
        return tomllib.loads(text), where
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: is no TOML ({error})") from None


def _merge(values: dict[str, Any], more: dict[str, dict[str, Any]]) -> None:
    for section, fields in more.items():
        values[section] = {**values.get(section, {}), **fields}


def _change(values: dict[str, Any], change: str) -> None:
    name, equals, value = change.partition("=")
    section, dot, field = name.strip().partition(".")
    if not equals or not section:
        raise OptionError(f"--set {change}: write it as section.name=value, such as mid.attention=pwam")
    try:
        read = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        read = value.strip()
    if dot:
        values[section] = {**values.get(section, {}), field: read}
    else:
        values[section] = read
