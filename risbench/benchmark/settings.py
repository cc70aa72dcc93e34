"""What a model and its training are made with: TOML files in configs/, one section a part, every switch of the paper's tables."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

Level = Literal[1, 2, 3, 4]


class Section(BaseModel):
    """Base of all sections: immutable, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _once_and_ascending(name: str, levels: tuple[int, ...], *, may_be_none: bool) -> None:
    if list(levels) != sorted(set(levels)) or not (levels or may_be_none):
        raise ValueError(f"{name} must name scales once each, finest first")


def _divides(heads: int, width: int, name: str = "width") -> None:
    if width % heads:
        raise ValueError(f"{name} {width} must be divisible by heads {heads}")


class BackboneSettings(Section):
    """The image encoder. `weights` is a name on the hub, a folder, or a file with a state dict; empty means random ones."""

    kind: Literal["swin", "convnext"] = "swin"
    embed: int = Field(default=128, gt=0)
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 18, 2)
    heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (4, 8, 16, 32)
    window: int = Field(default=12, gt=0)
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    weights: str = ""

    @model_validator(mode="after")
    def _fits(self) -> BackboneSettings:
        for stage, heads in enumerate(self.heads if self.kind == "swin" else ()):
            _divides(heads, self.embed * 2**stage, f"stage {stage + 1} of embed")
        return self


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

    @model_validator(mode="after")
    def _fits(self) -> TextSettings:
        _divides(self.heads, self.width)
        return self


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

    @model_validator(mode="after")
    def _fits(self) -> CapmSettings:
        _once_and_ascending("scales", self.scales, may_be_none=False)
        return self


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

    @model_validator(mode="after")
    def _fits(self) -> LgfaSettings:
        _once_and_ascending("deficit_stages", self.deficit_stages, may_be_none=True)
        _divides(self.heads, self.width)
        return self


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
    def _fits(self) -> MidSettings:
        _once_and_ascending("levels", self.levels, may_be_none=False)
        _divides(self.heads, self.width)
        _divides(4, self.width)
        if self.pyramid and self.levels != tuple(range(self.levels[0], 5)):
            raise ValueError("levels before a pyramid must be all from one on, such as [2, 3, 4]")
        if not self.pyramid and 1 not in self.levels:
            raise ValueError("levels without the finest, 1, need pyramid = true")
        return self


class LavtSettings(Section):
    """The LAVT-style baseline's decoder; 0 takes half of the coarsest map's channels."""

    width: int = Field(default=0, ge=0)


class Recipe(Section):
    """How a model is trained; defaults are the paper's (Section V-B). `steps`, where above 0, counts instead of `epochs`.

    `loss`: `crobim` is eq. 18 (cross-entropy and dice over one logit), `weighted` the peers' two-class cross-entropy with weights .9 and
    1.1, `rmsin` that with dice over the batch. `weight_decay` spares norms, biases, position tables and prompts.
    Up to `per_image` sentences of an image are learnt from in one step, and share the image's encoding. Where `coarse_side` is set, the
    first `coarse_share` of the steps sees images of that side: progressive resizing, as in EfficientNetV2 (arXiv 2104.00298, Section 4).
    """

    epochs: int = Field(default=40, gt=0)
    steps: int = Field(default=0, ge=0)
    batch: int = Field(default=32, gt=0)
    per_image: int = Field(default=1, gt=0)
    coarse_side: int = Field(default=0, ge=0, multiple_of=4)
    coarse_share: float = Field(default=0.5, gt=0, lt=1)
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
    """All of it. `side` is that of the square images the model sees, in pixels; what is missing to a multiple of 32 is padded."""

    side: int = Field(default=480, ge=64, le=2048, multiple_of=4)
    backbone: BackboneSettings = BackboneSettings()
    text: TextSettings = TextSettings()
    capm: CapmSettings = CapmSettings()
    lgfa: LgfaSettings = LgfaSettings()
    mid: MidSettings = MidSettings()
    lavt: LavtSettings = LavtSettings()
    recipe: Recipe = Recipe()

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        if self.recipe.coarse_side and not 64 <= self.recipe.coarse_side < self.side:
            raise ValueError(f"recipe.coarse_side = {self.recipe.coarse_side}: must be 0 (off), or from 64 to below side = {self.side}")
        return self
