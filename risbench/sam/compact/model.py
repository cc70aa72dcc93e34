"""The built-in SAM: small, and run on a magnified crop per object (docs/decisions/0006).

SAM's prompt encoder and two-way mask decoder (Kirillov et al. 2023) under an encoder of a convolutional stem and SAM's
transformer blocks. As in SAM 2 (Ravi et al. 2024, section 4) the stem's finer features join the decoder's upscaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from risbench.sam.pasam.adapter import GuidingEmbedding, PromptAdapter, guiding_input
from risbench.sam.pasam.decoder import Guide, PaOutput, point_codes_of, two_way

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class CompactSettings:
    """Sizes of a compact SAM, and the logit from which on a pixel is taken for the object.

    `stem` are the channels at strides 2, 4 and 8; the transformer works at stride 16. `adapted` adds PA-SAM's prompt adapter.
    """

    side_px: int = 128
    stem: tuple[int, int, int] = (32, 64, 160)
    stem_depth: tuple[int, int, int] = (1, 2, 2)
    width: int = 256
    depth: int = 5
    heads: int = 8
    prompt_width: int = 256
    threshold: float = 0.0
    adapted: bool = False

    @property
    def grid(self) -> int:
        """Cells a side of the embedding."""
        return self.side_px // 8

    def as_metadata(self) -> dict[str, object]:
        """Return the settings as plain values."""
        return asdict(self)


class Residual(nn.Module):
    """Two 3 x 3 convolutions with a short cut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) from (B, C, H, W)."""
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(inner)))


def _stage(inside: int, outside: int, depth: int) -> nn.Sequential:
    down = [nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*down, *(Residual(outside) for _ in range(depth)))


class CompactEncoder(nn.Module):
    """A convolutional stem to stride 8, SAM's transformer blocks at stride 16 brought back to it, then SAM's neck."""

    def __init__(self, settings: CompactSettings) -> None:
        super().__init__()
        channels = (3, *settings.stem)
        self.stem = nn.ModuleList(_stage(channels[i], channels[i + 1], settings.stem_depth[i]) for i in range(3))
        self.patch_embed = nn.Conv2d(settings.stem[2], settings.width, 2, stride=2)
        self.pos_embed = nn.Parameter(torch.zeros(1, settings.grid // 2, settings.grid // 2, settings.width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.lateral = nn.Conv2d(settings.stem[2], settings.width, 1)
        self.raise_grid = nn.ConvTranspose2d(settings.width, settings.width, 2, stride=2)
        self.blocks = nn.ModuleList(
            Block(
                settings.width, settings.heads, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=False, window_size=0
            )
            for _ in range(settings.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(settings.width, settings.prompt_width, 1, bias=False),
            LayerNorm2d(settings.prompt_width),
            nn.Conv2d(settings.prompt_width, settings.prompt_width, 3, padding=1, bias=False),
            LayerNorm2d(settings.prompt_width),
        )

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the embedding (B, 256, S/8, S/8) and the features at strides 2 and 4 of a normalised image (B, 3, S, S)."""
        fine = self.stem[0](image)
        middle = self.stem[1](fine)
        coarse = self.stem[2](middle)
        x = self.patch_embed(coarse).permute(0, 2, 3, 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.lateral(coarse) + self.raise_grid(x.permute(0, 3, 1, 2))
        return self.neck(x), (fine, middle)


class CompactDecoder(MaskDecoder):  # type: ignore[misc]  # segment-anything has no types
    """SAM's mask decoder whose upscaling takes in the encoder's finer features; every prompt has an image of its own."""

    def __init__(self, settings: CompactSettings) -> None:
        width = settings.prompt_width
        transformer = TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=1024, num_heads=8)
        super().__init__(transformer_dim=width, transformer=transformer, num_multimask_outputs=3, iou_head_depth=3, iou_head_hidden_dim=256)
        fine, middle = settings.stem[0], settings.stem[1]
        self.skip_middle = nn.Conv2d(middle, width // 4, 1)
        self.skip_fine = nn.Conv2d(fine, width // 8, 1)
        self.mix_middle = Residual(width // 4)
        self.mix_fine = Residual(width // 8)
        self.guiding_conv = GuidingEmbedding(width) if settings.adapted else None
        self.prompt_adapter = PromptAdapter(width) if settings.adapted else None

    def guide(self, image: Tensor, pixels: Tensor, grid: int) -> Tensor | None:
        """Return the guiding embedding (B, n, 256) of normalised images and the same in 0-255; None without an adapter."""
        if self.guiding_conv is None:
            return None
        embedding: Tensor = self.guiding_conv(guiding_input(image, (grid, grid), "pixels", pixels))
        return embedding.flatten(2).transpose(1, 2)

    def decode(
        self, embedding: Tensor, finer: Sequence[Tensor], position: Tensor, sparse: Tensor, dense: Tensor, guide: Guide | None = None
    ) -> PaOutput:
        """Return mask logits (B, 4, S/2, S/2) and predicted IoU (B, 4): one mask, then SAM's three alternatives.

        Args:
            embedding: (B, 256, S/8, S/8), one image a prompt.
            finer: features at strides 2 and 4 of the same images.
            position: the prompt encoder's code of the grid (1, 256, S/8, S/8).
            sparse: prompt tokens (B, n, 256).
            dense: prompt map (B, 256, S/8, S/8).
            guide: what the adapter needs; without it the adapter is off.
        """
        count = embedding.shape[0]
        learned = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(count, -1, -1)
        tokens = torch.cat([learned, sparse], dim=1)
        hidden, keys, maps = two_way(self.transformer, embedding + dense, position, tokens, self.prompt_adapter, guide)
        x = keys.transpose(1, 2).reshape(embedding.shape)
        up1, norm, act1, up2, act2 = self.output_upscaling
        x = self.mix_middle(act1(norm(up1(x) + self.skip_middle(finer[1]))))
        x = self.mix_fine(act2(up2(x) + self.skip_fine(finer[0])))
        weights = torch.stack([mlp(hidden[:, 1 + index]) for index, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        masks = torch.einsum("bkc,bchw->bkhw", weights, x)
        return PaOutput(masks, self.iou_prediction_head(hidden[:, 0]), maps)


class CompactSam(nn.Module):
    """Crops and prompts in, masks out."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, settings: CompactSettings) -> None:
        super().__init__()
        self.settings = settings
        side, grid = settings.side_px, settings.grid
        self.image_encoder = CompactEncoder(settings)
        self.prompt_encoder = PromptEncoder(settings.prompt_width, (grid, grid), (side, side), mask_in_chans=16)
        self.mask_decoder = CompactDecoder(settings)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN)[:, None, None], persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD)[:, None, None], persistent=False)

    def forward(self, crops: Tensor, boxes: Tensor, masks: Tensor, points: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Return mask logits (B, 4, S/2, S/2) and predicted IoU (B, 4).

        Args:
            crops: (B, 3, S, S), 0-255.
            boxes: (B, 4) in pixels of the crops.
            masks: mask prompts (B, 1, S/2, S/2): the box or the polygon itself, 1 inside and -1 outside.
            points: coordinates (B, n, 2) in pixels of the crops and labels (B, n): 1 object, 0 not, -1 padding.
        """
        found = self.run(crops, boxes, masks, points)
        return found.masks, found.iou

    def run(
        self,
        crops: Tensor,
        boxes: Tensor,
        masks: Tensor,
        points: tuple[Tensor, Tensor] | None = None,
        *,
        adapter: bool = True,
        gumbel: Tensor | None = None,
        points_active: bool = True,
    ) -> PaOutput:
        """Return what `forward` does, and the adapter's maps where there is one and it is not turned off.

        Args:
            crops, boxes, masks, points: as in `forward`.
            adapter: use the adapter, if there is one.
            gumbel: noise (B, 2, n) with which the adapter draws its points, as in training.
            points_active: let the adapter append points.
        """
        image = ((crops - self.pixel_mean) / self.pixel_std).contiguous(memory_format=torch.channels_last)
        embedding, finer = self.image_encoder(image)
        # autocast would place prompts in bf16
        with torch.autocast(crops.device.type, enabled=False):
            sparse, dense = self.prompt_encoder(points=points, boxes=boxes, masks=masks)
            position = self.prompt_encoder.get_dense_pe()
        embedding_of_guide = self.mask_decoder.guide(image, crops, self.settings.grid) if adapter else None
        guide = (
            None if embedding_of_guide is None else Guide(embedding_of_guide, point_codes_of(self.prompt_encoder), points_active, gumbel)
        )
        return self.mask_decoder.decode(embedding, finer, position, sparse, dense, guide)
