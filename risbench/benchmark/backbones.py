"""Swin and ConvNeXt from transformers as image encoders of four maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from transformers import AutoBackbone, ConvNextBackbone, ConvNextConfig, SwinBackbone, SwinConfig

from risbench.benchmark.pretrained import FILES, from_hub, load_state
from risbench.benchmark.settings import BackboneSettings
from risbench.core.errors import OptionError

_STAGES = ["stage1", "stage2", "stage3", "stage4"]


class Backbone(nn.Module):
    """Four maps of an image, at 4, 8, 16 and 32 pixels a cell, each normalised over its channels."""

    def __init__(self, settings: BackboneSettings, side: int) -> None:
        """Build it with random weights, or load those that are named.

        Raises:
            OptionError: the weights are of another kind of network.
            EnvironmentLacks, InputError: see `from_hub` and `load_state`.
        """
        super().__init__()
        is_file = Path(settings.weights).suffix in FILES
        if settings.weights and not is_file:
            self.net = from_hub(AutoBackbone, settings.weights, "config.json and model.safetensors", out_features=_STAGES)
        elif settings.kind == "swin":
            self.net = SwinBackbone(
                SwinConfig(  # type: ignore[call-arg]
                    image_size=side,
                    embed_dim=settings.embed,
                    depths=list(settings.depths),
                    num_heads=list(settings.heads),
                    window_size=settings.window,
                    drop_path_rate=settings.drop_path,
                    out_features=_STAGES,
                )
            )
        else:
            self.net = ConvNextBackbone(
                ConvNextConfig(  # type: ignore[call-arg]
                    depths=list(settings.depths),
                    hidden_sizes=[settings.embed * 2**stage for stage in range(4)],
                    drop_path_rate=settings.drop_path,
                    out_features=_STAGES,
                )
            )
        if not isinstance(self.net, SwinBackbone | ConvNextBackbone):
            raise OptionError(f"{settings.weights}: is a {type(self.net).__name__}; the backbone must be a Swin or a ConvNeXt")
        if is_file:
            load_state(self.net, Path(settings.weights))

    @property
    def channels(self) -> Sequence[int]:
        """The maps' channels, finest first."""
        return [int(count) for count in self.net.channels]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return maps (B, C_i, H / 4, W / 4) to (B, C_4, H / 32, W / 32) of a normalised image (B, 3, H, W)."""
        return list(self.net(pixel_values=image).feature_maps)
