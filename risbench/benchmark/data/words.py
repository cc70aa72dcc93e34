"""Sentences as token ids: BERT's WordPiece, its own vocabulary or one trained on the release's training sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from transformers import AutoTokenizer

from risbench.benchmark.models.pretrained import FILES, hub
from risbench.benchmark.models.text import BERT_FILES
from risbench.benchmark.settings import TextSettings
from risbench.core.errors import InputError, OptionError, printable
from risbench.core.storage import explain_read_error

SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Words:
    """Makes token ids of sentences; `vocabulary` is how many there are, `origin` where they are from."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, origin: str) -> None:
        """Wrap a tokenizer that adds [CLS] and [SEP]."""
        self._tokenizer, self.max_tokens, self.origin = tokenizer, max_tokens, origin
        tokenizer.no_padding()
        tokenizer.no_truncation()

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self._tokenizer.get_vocab_size())

    @property
    def highest(self) -> int:
        """The highest token id that a sentence can get."""
        ids = [*self._tokenizer.get_vocab().values(), *self._tokenizer.encode("a probe").ids]
        return max((int(number) for number in ids), default=0)

    def encode(self, sentences: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
        """Return ids (n, max_tokens), which of them are no padding, and how many sentences were cut.

        A sentence that is too long keeps its first tokens and loses [SEP], as with the peers.
        """
        ids = np.zeros((len(sentences), self.max_tokens), dtype=np.int64)
        valid = np.zeros((len(sentences), self.max_tokens), dtype=bool)
        cut = 0
        for row, encoding in enumerate(self._tokenizer.encode_batch(list(sentences))):
            found = encoding.ids[: self.max_tokens]
            cut += len(encoding.ids) > self.max_tokens
            ids[row, : len(found)], valid[row, : len(found)] = found, True
        return ids, valid, cut

    def pieces(self, sentence: str) -> list[str]:
        """Return a sentence's word pieces as the model gets them."""
        tokens: list[str] = self._tokenizer.encode(sentence).tokens
        return tokens[: self.max_tokens]

    def to_json(self) -> str:
        """Return the tokenizer as a file holds it."""
        text: str = self._tokenizer.to_str()
        return text

    @classmethod
    def read(cls, path: Path, max_tokens: int) -> Words:
        """Return what `to_json` wrote.

        Raises:
            InputError: the file is gone or damaged.
        """
        try:
            words = cls(Tokenizer.from_str(path.read_text(encoding="utf-8")), max_tokens, "run")
            words.encode(["a probe"])
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                raise explain_read_error(error, path) from error
            raise InputError(f"{path}: is missing; train the run again") from None
        except BaseException as error:  # the library raises its own bare Exception, and a panic that is none
            if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
                raise
            raise InputError(f"{path}: cannot be read as a tokenizer ({printable(str(error))}); train the run again") from None
        return words


def words_for(settings: TextSettings, training: Iterable[str]) -> Words:
    """Return the tokens of the named weights, or of a vocabulary learnt from the training sentences.

    Raises:
        MissingRequirementError, InputError: the named weights' tokenizer cannot be had.
        OptionError: the weights are a file, which has none.
    """
    if Path(settings.weights).suffix in FILES:
        raise OptionError(f"text.weights = {settings.weights}: a file has no vocabulary; name a folder with {BERT_FILES}")
    if settings.weights:
        words: dict[str, Any] = {"use_fast": True, "trust_remote_code": False}
        loaded: Any = hub(lambda: AutoTokenizer.from_pretrained(settings.weights, **words), settings.weights, BERT_FILES)
        return Words(loaded.backend_tokenizer, settings.max_tokens, settings.weights)
    return Words(_tokenizer(learn_pieces(training, settings.vocabulary)), settings.max_tokens, "training sentences")


def learn_pieces(sentences: Iterable[str], size: int) -> list[str]:
    """Return a WordPiece vocabulary: special tokens, every character, whole words by how often they occur, then frequent word ends.

    Referring sentences have few words, so that whole words cover them; what is rarer falls apart into its pieces. The same sentences
    give the same vocabulary, in any order.
    """
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(sentence)))
    characters = sorted({character for word in counts for character in word} | set("abcdefghijklmnopqrstuvwxyz0123456789"))
    pieces = [*SPECIAL, *characters, *(f"##{character}" for character in characters)]
    known = set(pieces)
    ends: Counter[str] = Counter()
    for word, count in counts.items():
        for start in range(1, len(word) - 1):
            ends[f"##{word[start:]}"] += count
    for part in (counts, ends):
        ordered = sorted(part.items(), key=lambda pair: (-pair[1], pair[0]))
        for piece, count in ordered:
            if len(pieces) >= size:
                return pieces
            if count >= 2 and piece not in known and not re.search(r"\s", piece):
                pieces.append(piece)
                known.add(piece)
    return pieces


def _tokenizer(pieces: Sequence[str]) -> Tokenizer:
    ids = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return tokenizer
