"""BERT as the text encoder, with and without prompts behind the words."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from risbench.benchmark.pretrained import FILES, from_hub, load_state
from risbench.benchmark.settings import TextSettings

BERT_FILES = "config.json, model.safetensors, tokenizer.json (or vocab.txt)"


class TextEncoder(nn.Module):
    """BERT without its pooler."""

    def __init__(self, settings: TextSettings, vocabulary: int) -> None:
        """Build it for `vocabulary` word pieces, or load the weights that are named.

        Raises:
            EnvironmentLacks, InputError: see `from_hub` and `load_state`.
        """
        super().__init__()
        is_file = Path(settings.weights).suffix in FILES
        self.bert: BertModel
        if settings.weights and not is_file:
            self.bert = from_hub(BertModel, settings.weights, BERT_FILES, add_pooling_layer=False, attn_implementation="sdpa")
        else:
            config = BertConfig(
                vocab_size=vocabulary,
                hidden_size=settings.width,
                num_hidden_layers=settings.layers,
                num_attention_heads=settings.heads,
                intermediate_size=settings.ffn,
                hidden_dropout_prob=settings.dropout,
                attention_probs_dropout_prob=settings.dropout,
            )
            config._attn_implementation = "sdpa"
            self.bert = BertModel(config, add_pooling_layer=False)
        if is_file:
            load_state(self.bert, Path(settings.weights))
        self.norm = nn.LayerNorm(self.width)

    @property
    def width(self) -> int:
        """Channels of a word."""
        return int(self.bert.config.hidden_size)

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Return words (B, L, width) of token ids (B, L); `valid` (B, L) is false for padding."""
        found: Tensor = self.bert(input_ids=tokens, attention_mask=valid.long()).last_hidden_state
        return found

    def with_prompts(self, tokens: Tensor, valid: Tensor, prompts: Tensor, injection: str) -> tuple[Tensor, Tensor]:
        """Return the words alone L (B, L, width) and with prompts behind them L_v (B, L + P, width), of one call for both.

        In the half without prompts they are masked, which changes no bit of the words. `injection`: "embeds" puts prompts among the word
        embeddings, before positions and norm; "post_embedding" behind those, with a norm of their own.
        """
        batch, length = tokens.shape
        on = valid.new_ones(batch, prompts.shape[1])
        both = torch.cat([torch.cat([valid, ~on], dim=1), torch.cat([valid, on], dim=1)])
        if injection == "embeds":
            words = self.bert.embeddings.word_embeddings(tokens)
            embedded = torch.cat([words, prompts.to(words.dtype)], dim=1).repeat(2, 1, 1)
            found = self.bert(inputs_embeds=embedded, attention_mask=both.long()).last_hidden_state
        else:
            words = self.bert.embeddings(input_ids=tokens)
            embedded = torch.cat([words, self.norm(prompts).to(words.dtype)], dim=1).repeat(2, 1, 1)
            mask = torch.zeros(both.shape, dtype=embedded.dtype, device=both.device).masked_fill(~both, torch.finfo(embedded.dtype).min)
            found = self.bert.encoder(embedded, attention_mask=mask[:, None, None, :]).last_hidden_state
        return found[:batch, :length], found[batch:]
