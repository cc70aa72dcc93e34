"""Seeded damage: to a JSON value, to text, to bytes. The same seed does the same damage."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from typing import Any, Final

# What ends parsers and the code behind them: numbers of every kind and size, texts that look like something else, odd nesting.
ODD_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), 2**31, 2**63, -(2**63), 2**64, 10**30, 10**400,
    "", " ", "\x00", "\ud800", "\u202e", "x" * 5000, "../outside", "/etc/hostname", ".", "./", "NaN", "1e999", "%s%n", "{0}", "=1+1", "1_000",
    "٣", "０", "ﬁ", "İ", "ß", "é" * 50, [], {}, [[]], [{}], [None], {"": None}, [1, 2], [1, 2, 3, 4], [0] * 8, [float("nan")] * 4, [[1, 2]] * 3,
)  # fmt: skip
_KEYS: Final = ("id", "image", "image_id", "objects", "bbox", "segmentation", "counts", "size", "obj_corner", "obj_coord", "value", "question",
                "ground_truth", "obj_cls", "type", "sentences", "ann_id", "ref_id", "raw", "features", "geometry", "coordinates", "properties",
                "crs", "name", "file_name", "width")  # fmt: skip
_PIECES: Final = (
    *"{}[]<>,:;\"'\\/0123456789eE.-+ \t\n\r\x00\x0b\x1c\x85\u2028\u00a0\ufeff٣",
    "NaN",
    "Infinity",
    "1e999",
    "\ud83d",
    "<9><9>",
    ",,",
    "null",
)
_WORDS: Final = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x10000, 1 << 24, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF)
# Longer than what Python turns into decimal digits: JSON5 and pickles hold such numbers, JSON's own parser refuses them.
VAST: Final = "0x" + "F" * 4000


class Mutator:
    """Damage drawn from one seed."""

    def __init__(self, seed: str) -> None:
        """Begin with a seed."""
        self.draw = random.Random(seed)

    def chance(self, share: float) -> bool:
        """Return True in this share of cases."""
        return self.draw.random() < share

    def odd(self) -> Any:
        """Return one of the odd values."""
        return copy.deepcopy(self.draw.choice(ODD_VALUES))

    def value(self, value: Any) -> Any:
        """Return a JSON value with one to three of its parts damaged."""
        value = copy.deepcopy(value)
        for _ in range(self.draw.choice((1, 1, 1, 2, 3))):
            holders = list(_holders(value))
            if not holders or self.chance(0.02):
                return self.odd()
            self._damage(*self.draw.choice(holders))
        return value

    def _damage(self, holder: Any, key: Any) -> None:
        how, old = self.draw.random(), holder[key]
        if how < 0.5:
            holder[key] = self.odd()
        elif how < 0.62:
            del holder[key]
        elif how < 0.7 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(old))
        elif how < 0.78 and isinstance(holder, dict):
            holder[self.draw.choice(_KEYS)] = holder.pop(key)
        elif how < 0.84:
            holder[key] = [old]
        elif how < 0.88:
            holder[key] = {"x": old}
        elif isinstance(old, str):
            holder[key] = self.text(old)
        elif isinstance(old, int | float) and not isinstance(old, bool) and abs(old) < 1e9:
            holder[key] = old * self.draw.choice((-1, 0, 2, 1e6, 1e-6, 1e300))
        else:
            holder[key] = str(old)

    def text(self, text: str) -> str:
        """Return text with a few characters dropped, put in, replaced or repeated."""
        parts = list(text)
        for _ in range(self.draw.choice((1, 2, 4))):
            at, how = self.draw.randrange(len(parts) + 1), self.draw.random()
            if how < 0.3:
                del parts[at : at + 1]
            elif how < 0.6:
                parts.insert(at, self.draw.choice(_PIECES))
            elif how < 0.8:
                parts[at : at + 1] = [chr(self.draw.choice((self.draw.randrange(32, 127), self.draw.randrange(0x3000))))]
            else:
                parts[at:at] = parts[self.draw.randrange(len(parts) + 1) :][:200]
        return "".join(parts)

    def data(self, data: bytes) -> bytes:
        """Return bytes with some flipped, overwritten, dropped, put in, moved, or the rest cut off."""
        found = bytearray(data or b"\0")
        for _ in range(self.draw.choice((1, 1, 2, 4, 8, 32))):
            at, how = self.draw.randrange(max(1, len(found))), self.draw.random()
            width = self.draw.choice((1, 2, 4, 8, 16))
            if how < 0.3 and found:
                found[at] ^= 1 << self.draw.randrange(8)
            elif how < 0.55:
                number = self.draw.choice((*_WORDS, self.draw.randrange(256))) & (256**width - 1)
                found[at : at + width] = number.to_bytes(width, self.draw.choice(("little", "big")))
            elif how < 0.68:
                del found[at : at + width * self.draw.choice((1, 1, 16))]
            elif how < 0.8:
                found[at:at] = self.draw.randbytes(width)
            elif how < 0.87:
                del found[at:]
            else:
                other = self.draw.randrange(max(1, len(found)))
                found[at : at + 4 * width] = found[other : other + 4 * width]
        return bytes(found)

    def json(self, value: Any) -> bytes:
        """Return a damaged value as JSON, as some write it: single quotes, vast numbers, a byte-order mark, a comma too many."""
        text = json.dumps(self.value(value), ensure_ascii=self.chance(0.5))
        if self.chance(0.01):
            text = re.sub(r"\b\d+\b", VAST, text, count=1)
        if self.chance(0.1):
            text = text.replace('"', "'")
        if self.chance(0.15):
            text = self.text(text)
        if self.chance(0.03):
            text = "\ufeff" + text
        return text.encode("utf-8", "surrogatepass")

    def lines(self, text: str) -> bytes:
        """Return a damaged text file."""
        return self.text(text).encode("utf-8", "surrogatepass") if self.chance(0.7) else self.data(text.encode())


def _holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a JSON value as its container and key."""
    for key in list(value) if isinstance(value, dict) else range(min(len(value), 30)) if isinstance(value, list) else ():
        yield value, key
        yield from _holders(value[key])
