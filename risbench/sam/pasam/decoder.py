"""SAM's mask decoder with PA-SAM's prompt adapter between the two attentions of its second layer.

Source: Xie et al. 2024 (arXiv 2401.13051), figure 2; tensors are named as in the published weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from torch import Tensor

from risbench.sam.pasam.adapter import Adaptation, EdgeSource, GuidingEmbedding, PaMaps, PromptAdapter, guiding_input

# The parts that PA-SAM trains; the transformer and the IoU head stay SAM's.
TRAINED = ("guiding_conv.", "prompt_adapter.", "output_upscaling.", "output_hypernetworks_mlps.", "mask_tokens.")


@dataclass(frozen=True)
class PaOutput:
    """Mask logits (B, 4, 4 rows, 4 columns), predicted IoU (B, 4), and the adapter's maps, None with the adapter off."""

    masks: Tensor
    iou: Tensor
    maps: PaMaps | None

    def uncertainty(self) -> Tensor:
        """Return the mean (B,) of the uncertain map over the object; 0 with the adapter off."""
        if self.maps is None:
            return torch.zeros(len(self.masks), device=self.masks.device)
        uncertain = self.maps.uncertain.float()
        size = (uncertain.shape[2], uncertain.shape[3])
        share = torch.nn.functional.adaptive_avg_pool2d(self.masks[:, :1].float().sigmoid(), size)
        mean: Tensor = (uncertain * share).sum(dim=(1, 2, 3)) / share.sum(dim=(1, 2, 3)).clamp(min=1e-6)
        return mean

    def single(self) -> tuple[Tensor, Tensor]:
        """Return the one mask (B, 1, H, W) and its IoU (B, 1): the output that is trained."""
        return self.masks[:, :1], self.iou[:, :1]

    def best(self, *, official: bool = False) -> tuple[Tensor, Tensor]:
        """Return the alternative (B, 1, H, W) of the highest predicted IoU (B, 1).

        The alternatives are SAM's three; `official` leaves out the last, as the published code does.
        """
        iou = self.iou[:, 1:3] if official else self.iou[:, 1:]
        chosen = iou.argmax(dim=1)
        rows = torch.arange(len(chosen), device=chosen.device)
        return self.masks[rows, 1 + chosen][:, None], iou[rows, chosen][:, None]


@dataclass(frozen=True)
class Guide:
    """What the adapter needs beside SAM's own inputs.

    `embedding` is the guiding embedding (B, n, D), one a prompt; `point_codes` SAM's embeddings (2, D) of a negative and a
    positive point; `gumbel` noise (B, 2, n) draws points at random, as training does.
    """

    embedding: Tensor
    point_codes: Tensor
    points_active: bool = True
    gumbel: Tensor | None = None


def two_way(
    transformer: TwoWayTransformer,
    image: Tensor,
    position: Tensor,
    tokens: Tensor,
    adapter: PromptAdapter | None = None,
    guide: Guide | None = None,
) -> tuple[Tensor, Tensor, PaMaps | None]:
    """Run SAM's two-way transformer, with the adapter in its second layer if one is given.

    Args:
        image: embedding with dense prompts (B, D, rows, columns).
        position: the grid's codes (1, D, rows, columns).
        tokens: (B, T, D), their own positional codes at the start.

    Returns:
        Tokens (B, T', D), where the adapter's points follow the others; keys (B, n, D); the maps.
    """
    grid = (image.shape[2], image.shape[3])
    keys, codes_of_keys = image.flatten(2).transpose(1, 2), position.flatten(2).transpose(1, 2)
    codes, maps = tokens, None
    for number, layer in enumerate(transformer.layers):
        if layer.skip_first_layer_pe:
            tokens = layer.self_attn(q=tokens, k=tokens, v=tokens)
        else:
            tokens = tokens + layer.self_attn(q=tokens + codes, k=tokens + codes, v=tokens)
        tokens = layer.norm1(tokens)
        update = layer.cross_attn_token_to_image(q=tokens + codes, k=keys + codes_of_keys, v=keys)
        if number == 1 and adapter is not None and guide is not None:
            found: Adaptation = adapter(
                tokens,
                keys,
                codes,
                codes_of_keys,
                guide.embedding,
                guide.point_codes,
                grid,
                points_active=guide.points_active,
                gumbel=guide.gumbel,
            )
            extra = found.tokens.shape[1] - tokens.shape[1]
            tokens, update = (torch.nn.functional.pad(part, (0, 0, 0, extra)) for part in (tokens, update))
            update, keys, codes, maps = update + found.tokens, keys + found.keys, found.codes, found.maps
        tokens = layer.norm2(tokens + update)
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        keys = layer.norm4(keys + layer.cross_attn_image_to_token(q=keys + codes_of_keys, k=tokens + codes, v=tokens))
    last = transformer.final_attn_token_to_image(q=tokens + codes, k=keys + codes_of_keys, v=keys)
    return transformer.norm_final_attn(tokens + last), keys, maps


class PaDecoder(MaskDecoder):  # type: ignore[misc]  # segment-anything has no types
    """SAM's mask decoder and the adapter. Prompts are the batch; `image_index` says whose image each of them looks at.

    With `adapted` off it is SAM's decoder alone, of Meta's tensors and no others.
    """

    def __init__(self, width: int = 256, edge_source: EdgeSource = "official", *, adapted: bool = True) -> None:
        transformer = TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=2048, num_heads=8)
        super().__init__(transformer_dim=width, transformer=transformer, num_multimask_outputs=3, iou_head_depth=3, iou_head_hidden_dim=256)
        self.edge_source: EdgeSource = edge_source
        self.guiding_conv = GuidingEmbedding(width) if adapted else None
        self.prompt_adapter = PromptAdapter(width) if adapted else None

    def guide(self, image: Tensor, grid: tuple[int, int], pixels: Tensor | None = None) -> Tensor:
        """Return the guiding embedding (N, n, D) of normalised images (N, 3, H, W); once an image, for all its prompts."""
        assert self.guiding_conv is not None, "only an adapter asks for it"
        embedding: Tensor = self.guiding_conv(guiding_input(image, grid, self.edge_source, pixels))
        return embedding.flatten(2).transpose(1, 2)

    def decode(
        self,
        embedding: Tensor,
        position: Tensor,
        sparse: Tensor,
        dense: Tensor,
        image_index: Tensor,
        guide: Tensor | None = None,
        point_codes: Tensor | None = None,
        *,
        points_active: bool = True,
        gumbel: Tensor | None = None,
    ) -> PaOutput:
        """Return masks of B prompts on N images; without a `guide` the adapter is off, and the masks are SAM's where only it was trained.

        Args:
            embedding: (N, D, rows, columns), from any encoder of the family.
            position: the prompt encoder's code of the grid (1, D, rows, columns).
            sparse: prompt tokens (B, m, D).
            dense: prompt maps (B, D, rows, columns).
            image_index: (B,), which image each prompt is about.
            guide: guiding embeddings (N, n, D) of the images.
            point_codes: SAM's embeddings of a negative and a positive point (2, D); needed with a guide.
            points_active: let the adapter append points.
            gumbel: noise (B, 2, n) to draw those points with; None takes the best.

        Raises:
            ValueError: a guide without the codes of points.
        """
        count = len(image_index)
        if guide is not None and point_codes is None:
            raise ValueError("a guide needs the prompt encoder's embeddings of a negative and a positive point")
        learned = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(count, -1, -1)
        tokens = torch.cat([learned, sparse], dim=1)
        mine = None
        if guide is not None and point_codes is not None:
            mine = Guide(guide[image_index], point_codes, points_active, gumbel)
        image = embedding[image_index] + dense
        hidden, keys, maps = two_way(self.transformer, image, position, tokens, self.prompt_adapter, mine)
        raised = self.output_upscaling(keys.transpose(1, 2).reshape(image.shape))
        weights = torch.stack([mlp(hidden[:, 1 + index]) for index, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        return PaOutput(torch.einsum("bkc,bchw->bkhw", weights, raised), self.iou_prediction_head(hidden[:, 0]), maps)


def point_codes_of(prompt_encoder: torch.nn.Module) -> Tensor:
    """Return a SAM prompt encoder's embeddings (2, D) of a negative and a positive point."""
    embeddings = prompt_encoder.point_embeddings
    return torch.cat([embeddings[0].weight, embeddings[1].weight])  # type: ignore[index,union-attr]
