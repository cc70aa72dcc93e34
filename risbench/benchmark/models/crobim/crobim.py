"""CroBIM put together (Fig. 5): backbone, CAPM, two passes of BERT, LGFA, MID."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from risbench.benchmark.models.backbones import STRIDE, Backbone, shared
from risbench.benchmark.models.crobim.capm import ContextPrompts
from risbench.benchmark.models.crobim.lgfa import LanguageGuidedAggregation
from risbench.benchmark.models.crobim.mid import MutualInteractionDecoder
from risbench.benchmark.models.text import TextEncoder
from risbench.benchmark.settings import Settings


class CroBim(nn.Module):
    """Image and sentence to the logits of one mask.

    The words alone (L) aggregate the maps, the words with prompts (L_v) decode them; the figure shows two passes where the text has one.
    """

    def __init__(self, settings: Settings, vocabulary: int) -> None:
        """Build it for `vocabulary` word pieces.

        Raises:
            MissingRequirementError, InputError: named weights cannot be had or used.
        """
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings.backbone, settings.side)
        self.text = TextEncoder(settings.text, vocabulary)
        channels, width = self.backbone.channels, self.text.width
        self.prompts = ContextPrompts(settings.capm, channels, width)
        self.aggregation = LanguageGuidedAggregation(settings.lgfa, channels, width) if settings.lgfa.enabled else None
        self.decoder = MutualInteractionDecoder(settings.mid, channels, width)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the maps (B, C_i, H_i, W_i) of a normalised image (B, 3, H, W): all that needs no sentence."""
        height, width = image.shape[-2:]
        found: list[Tensor] = self.backbone(functional.pad(image, (0, -width % STRIDE, 0, -height % STRIDE)))
        return found

    def decode(self, maps: list[Tensor], tokens: Tensor, valid: Tensor) -> Tensor:
        """Return mask logits (B, 1, H_1, W_1) from maps and token ids (B, L); `valid` (B, L) is false for padding."""
        return self.explain(maps, tokens, valid)[0]

    def explain(self, maps: list[Tensor], tokens: Tensor, valid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits, and LGFA's attention from pixels to words (B, L, H_i, W_i) of every scale (none where it is off)."""
        plain = self.aggregation is not None
        words, prompted = self.text.with_prompts(tokens, valid, self.prompts(maps), self.settings.capm.injection, plain=plain)
        attentions: list[Tensor] = []
        if self.aggregation is not None:
            maps, attentions = self.aggregation(maps, words, valid)
        everything = functional.pad(valid, (0, prompted.shape[1] - valid.shape[1]), value=True)
        return self.decoder(maps, prompted, everything), attentions

    def forward(self, image: Tensor, tokens: Tensor, valid: Tensor, image_of: Tensor | None = None) -> Tensor:
        """Return mask logits (B, 1, H / 4, W / 4), rounded up, from a normalised image (B, 3, H, W) and token ids (B, L).

        Where sentences share images (U, 3, H, W), `image_of` (B,) says which is whose, and each is encoded once.
        """
        logits = self.decode(shared(self.encode(image), image_of), tokens, valid)
        return logits[:, :, : -(-image.shape[2] // 4), : -(-image.shape[3] // 4)]
