"""What an adapter is trained for: a model with its losses as one module, so that DistributedDataParallel can wrap it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from risbench.adapt.builtin_data import Batch
from risbench.adapt.pasam_losses import PaLosses, pa_losses
from risbench.adapt.whole_data import WholeBatch
from risbench.sam.adapter_file import ENCODER, TRAINED, adapted_from, begin_at_base
from risbench.sam.compact.model import CompactSam
from risbench.sam.pasam.adapter import GuidingEmbedding, PaMaps, PromptAdapter
from risbench.sam.pasam.decoder import PaOutput, point_codes_of
from risbench.sam.pasam.predictor import PaSam


class CompactObjective(nn.Module):
    """A compact SAM with a new adapter that starts at its base; it sees a magnified crop an object."""

    def __init__(self, base: CompactSam) -> None:
        super().__init__()
        self.model, self.is_new = adapted_from(base), True
        self.cells = base.settings.grid**2

    def names(self, *, encoder: bool) -> list[str]:
        """Return the names of the tensors that learn: PA-SAM's, the compact decoder's own, and the encoder's if it is to."""
        return [name for name, _ in self.model.named_parameters() if name.startswith(TRAINED) or (encoder and name.startswith(ENCODER))]

    def forward(self, batch: Batch, gumbel: Tensor | None, points_active: bool = True) -> PaLosses:
        """Return the losses of a batch; the logits are taken from the base's own threshold on."""
        found = self.model.run(batch.crops.float(), batch.boxes, batch.prompts, gumbel=gumbel, points_active=points_active)
        return _losses(found, found.masks[:, :1].float() - self.model.settings.threshold, batch.cover[:, None].float())

    def logits(self, batch: Batch, adapter: bool = True) -> Tensor:
        """Return logits (B, S/2, S/2), of the object where above 0, to be held against the batch's cover."""
        found = self.model.run(batch.crops.float(), batch.boxes, batch.prompts, adapter=adapter)
        return found.masks[:, 0].float() - self.model.settings.threshold


class WholeObjective(nn.Module):
    """PA-SAM on embeddings of whole images that were made once; its encoder is not needed and not held."""

    def __init__(self, base: PaSam) -> None:
        super().__init__()
        self.side, self.is_new = base.side, base.is_new
        self.model = PaSam(nn.Identity(), base.prompt_encoder, base.mask_decoder)
        if base.is_new:
            # made here, of the generator that the training has seeded
            width = base.mask_decoder.transformer_dim
            base.mask_decoder.guiding_conv, base.mask_decoder.prompt_adapter = GuidingEmbedding(width), PromptAdapter(width)
            begin_at_base(base.mask_decoder)
        rows, columns = base.prompt_encoder.image_embedding_size
        self.cells = int(rows * columns)

    def names(self, *, encoder: bool) -> list[str]:
        """Return the names of the tensors that learn: PA-SAM's 63."""
        assert not encoder, "a frozen encoder's embeddings are what is cached"
        return [name for name, _ in self.model.named_parameters() if name.startswith(TRAINED)]

    def forward(self, batch: WholeBatch, gumbel: Tensor | None, points_active: bool = True) -> PaLosses:
        """Return the losses of a batch at the input's size, as published."""
        found = self._run(batch, gumbel, points_active=points_active)
        return _losses(found, found.masks[:, :1].float(), batch.cover[:, None].float() / 255)

    def logits(self, batch: WholeBatch, adapter: bool = True) -> Tensor:
        """Return logits (B, S, S)."""
        masks = self._run(batch, None, adapter=adapter).masks[:, :1].float()
        return F.interpolate(masks, (self.side, self.side), mode="bilinear", align_corners=False)[:, 0]

    def _run(self, batch: WholeBatch, gumbel: Tensor | None, *, points_active: bool = True, adapter: bool = True) -> PaOutput:
        prompt_encoder, decoder = self.model.prompt_encoder, self.model.mask_decoder
        # autocast would place prompts in bf16, most of a pixel off; they cost nothing
        with torch.autocast(batch.boxes.device.type, enabled=False):
            sparse, dense = prompt_encoder(
                points=(batch.points, batch.labels) if batch.points.shape[1] else None,
                boxes=batch.boxes[:, 0] if batch.boxes.shape[1] else None,
                masks=batch.masks.float() if batch.masks.shape[1] else None,
            )
            position, codes = prompt_encoder.get_dense_pe(), point_codes_of(prompt_encoder)
        guide = None
        if adapter:
            assert decoder.guiding_conv is not None, "it was made with an adapter"
            guide = decoder.guiding_conv(batch.guiding.float()).flatten(2).transpose(1, 2)
        index = torch.arange(len(batch), device=batch.boxes.device)
        return decoder.decode(
            batch.embeddings.float(), position, sparse, dense, index, guide, codes, points_active=points_active, gumbel=gumbel
        )


def objective_of(base: CompactSam | PaSam) -> CompactObjective | WholeObjective:
    """Return a base with a new adapter and its losses."""
    return CompactObjective(base) if isinstance(base, CompactSam) else WholeObjective(base)


def _losses(found: PaOutput, masks: Tensor, cover: Tensor) -> PaLosses:
    assert found.maps is not None, "an adapted model has maps"
    maps = PaMaps(*(part.float() for part in vars(found.maps).values()))
    # CUDA's autocast forbids the binary cross-entropy of probabilities, whatever their precision
    with torch.autocast(masks.device.type, enabled=False):
        return pa_losses(masks, maps, cover)
