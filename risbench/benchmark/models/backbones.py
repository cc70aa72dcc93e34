"""Swin and ConvNeXt from transformers as image encoders of four maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import ConvNextBackbone, ConvNextConfig, SwinBackbone, SwinConfig

from risbench.benchmark.models.pretrained import load_pretrained
from risbench.benchmark.settings import BackboneSettings

BACKBONE_FILES = "config.json and model.safetensors"
STRIDE = 32  # pixels a cell of the coarsest map
_STAGES = ["stage1", "stage2", "stage3", "stage4"]


class Backbone(nn.Module):
    """Four maps of an image, at 4, 8, 16 and 32 pixels a cell, each normalised over its channels."""

    def __init__(self, settings: BackboneSettings, side: int) -> None:
        """Build it with random weights, or load those that are named.

        Raises:
            OptionError, MissingRequirementError, InputError: see `load_pretrained`.
        """
        super().__init__()
        self.commit = ""
        config = _config(settings, side)
        if settings.weights:
            kinds: dict[str, Any] = {settings.kind: SwinBackbone if settings.kind == "swin" else ConvNextBackbone}
            own = {"drop_path_rate": settings.drop_path, "out_features": _STAGES}
            self.net, self.commit = load_pretrained(kinds, settings.weights, BACKBONE_FILES, config, **own)
        else:
            self.net = SwinBackbone(config) if settings.kind == "swin" else ConvNextBackbone(config)

    @property
    def channels(self) -> Sequence[int]:
        """The maps' channels, finest first."""
        return [int(count) for count in self.net.channels]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return maps (B, C_i, H / 4, W / 4) to (B, C_4, H / 32, W / 32) of a normalised image (B, 3, H, W)."""
        return list(self.net(pixel_values=image).feature_maps)


def shared(maps: list[Tensor], image_of: Tensor | None) -> list[Tensor]:
    """Return maps (B, ...) of the image that each of B sentences is of, from those of all images (U, ...); None: they are so already."""
    return maps if image_of is None else [features.index_select(0, image_of) for features in maps]


def _config(settings: BackboneSettings, side: int) -> Any:
    if settings.kind == "convnext":
        return ConvNextConfig(  # type: ignore[call-arg]
            depths=list(settings.depths),
            hidden_sizes=[settings.embed * 2**stage for stage in range(4)],
            drop_path_rate=settings.drop_path,
            out_features=_STAGES,
        )
    return SwinConfig(  # type: ignore[call-arg]
        image_size=side,
        embed_dim=settings.embed,
        depths=list(settings.depths),
        num_heads=list(settings.heads),
        window_size=settings.window,
        drop_path_rate=settings.drop_path,
        out_features=_STAGES,
    )
