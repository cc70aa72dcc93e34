"""BERT as the text encoder, with and without prompts behind the words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from risbench.benchmark.models.pretrained import load_pretrained
from risbench.benchmark.settings import TextSettings

BERT_FILES = "config.json, model.safetensors, tokenizer.json (or vocab.txt)"


class TextEncoder(nn.Module):
    """BERT without its pooler."""

    def __init__(self, settings: TextSettings, vocabulary: int) -> None:
        """Build it for `vocabulary` word pieces, or load the weights that are named.

        Raises:
            OptionError, MissingRequirementError, InputError: see `load_pretrained`.
        """
        super().__init__()
        self.bert: BertModel
        self.commit = ""
        own: dict[str, Any] = {"hidden_dropout_prob": settings.dropout, "attention_probs_dropout_prob": settings.dropout}
        if settings.weights:
            loaded = load_pretrained({"bert": BertModel}, settings.weights, BERT_FILES, None, **own, attn_implementation="sdpa")
            self.bert, self.commit = loaded
            self.bert.pooler = None
        else:
            config = BertConfig(
                vocab_size=vocabulary,
                hidden_size=settings.width,
                num_hidden_layers=settings.layers,
                num_attention_heads=settings.heads,
                intermediate_size=settings.ffn,
                **own,
            )
            config._attn_implementation = "sdpa"
            self.bert = BertModel(config, add_pooling_layer=False)
        self.norm = nn.LayerNorm(self.width)

    @property
    def width(self) -> int:
        """Channels of a word."""
        return int(self.bert.config.hidden_size)

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Return words (B, L, width) of token ids (B, L); `valid` (B, L) is false for padding."""
        found: Tensor = self.bert(input_ids=tokens, attention_mask=valid.long()).last_hidden_state
        return found

    def with_prompts(self, tokens: Tensor, valid: Tensor, prompts: Tensor, injection: str, *, plain: bool = True) -> tuple[Tensor, Tensor]:
        """Return the words alone L (B, L, width) and with prompts behind them L_v (B, L + P, width), of one call for both.

        Without `plain` there is one half, and the words are those beside the prompts.

        In the half without prompts they are masked, and say nothing to the words. `injection`: "embeds" puts prompts among the word
        embeddings, before positions and norm; "post_embedding" behind those, with a norm of their own.
        """
        batch, length = tokens.shape
        on = valid.new_ones(batch, prompts.shape[1])
        halves = [torch.cat([valid, ~on], dim=1)] if plain else []
        both = torch.cat([*halves, torch.cat([valid, on], dim=1)])
        times = 2 if plain else 1
        if injection == "embeds":
            words = self.bert.embeddings.word_embeddings(tokens)
            embedded = torch.cat([words, prompts.to(words.dtype)], dim=1).repeat(times, 1, 1)
            found = self.bert(inputs_embeds=embedded, attention_mask=both.long()).last_hidden_state
        else:
            words = self.bert.embeddings(input_ids=tokens)
            embedded = torch.cat([words, self.norm(prompts).to(words.dtype)], dim=1).repeat(times, 1, 1)
            mask = torch.zeros(both.shape, dtype=embedded.dtype, device=both.device).masked_fill(~both, torch.finfo(embedded.dtype).min)
            found = self.bert.encoder(embedded, attention_mask=mask[:, None, None, :]).last_hidden_state
        return found[:batch, :length], found[-batch:]
