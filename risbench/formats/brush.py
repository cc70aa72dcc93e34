"""Label Studio's brush masks: run lengths of an RGBA image, packed bit by bit.

The stream is thi.ng's rle-pack with words of 8 bits: 32 bits for the number of words, 5 for the word size less one, four times 4 for the
sizes of the run-length fields less one; then, until all words are there, a bit that says run (1) or literal words (0), 2 bits that choose
the size of the field, the length less one, and the word (or words). Lists are byte-identical to label-studio-sdk's own
(`label_studio_sdk.converter.brush`), which works bit by bit in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InputError, printable

_SIZES: Final = (3, 4, 8, 16)
_LONGEST: Final = 1 << 16
_HEADER_BITS: Final = 32 + 5 + 4 * 4
_CHANNELS: Final = 4


def encode_brush(mask: NDArray[Any]) -> list[int]:
    """Return the bytes of a mask (height, width) as Label Studio and its SDK write them: every pixel 0 or 255 in all four channels.

    Raises:
        InputError: the mask is not a plane of pixels, or has none.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise InputError(f"brush mask: its shape is {mask.shape}; it must be (height, width), with at least one pixel")
    pixels = mask.ravel().astype(bool)
    starts = np.concatenate(([0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1, [pixels.size]))
    lengths = np.diff(starts) * _CHANNELS
    values = pixels[starts[:-1]].astype(np.int64) * 255
    # a run longer than the widest field holds goes in pieces; the last piece keeps that field, however short it is
    pieces = (lengths - 1) // _LONGEST + 1
    field = np.repeat(np.searchsorted((8, 16, 256), lengths), pieces)
    last = np.cumsum(pieces) - 1
    words = np.full(int(pieces.sum()), _LONGEST, dtype=np.int64)
    words[last] = lengths - (pieces - 1) * _LONGEST
    size = np.asarray(_SIZES)[field]
    codes = (((4 | field) << size | (words - 1)) << 8) | np.repeat(values, pieces)
    return _packed(pixels.size * _CHANNELS, codes, 11 + size)


def _packed(words: int, codes: NDArray[np.int64], widths: NDArray[np.int64]) -> list[int]:
    """Return the header and codes of so many bits each, one behind the other, as bytes; a zero bit at least ends them, as in the SDK."""
    ends = _HEADER_BITS + np.cumsum(widths)
    first = (ends - widths) >> 3
    # a code of at most 27 bits lies in five bytes wherever it begins; no two share a bit, so that adding them up is or-ing them
    spread = codes << (40 - (ends - widths & 7) - widths)
    length = int(ends[-1]) // 8 + 1
    packed = np.zeros(length + 5, dtype=np.float64)
    for k in range(5):
        packed += np.bincount(first + k, weights=spread >> 8 * (4 - k) & 255, minlength=len(packed))
    header = (words << 5 | 7) << 16 | sum((bits - 1) << 4 * (3 - k) for k, bits in enumerate(_SIZES))
    packed[:7] += np.frombuffer((header << 3).to_bytes(7, "big"), dtype=np.uint8)
    found: list[int] = packed[:length].astype(np.uint8).tolist()
    return found


def decode_brush(rle: Sequence[int], height: int, width: int) -> NDArray[np.uint8]:
    """Return the alpha channel (height, width) of a brush mask; whoever wants a mask takes what is over 127, as edges are anti-aliased.

    Raises:
        InputError: it is not a list of bytes, its header is not that of an image of this size, or its runs do not fill it exactly.
    """
    total = _CHANNELS * height * width
    data = _bytes(rle)
    bits = 8 * len(data)
    if bits < _HEADER_BITS:
        raise InputError(f"brush mask: {len(data)} bytes; its header alone has {(_HEADER_BITS + 7) // 8}")
    header = int.from_bytes(data[:7], "big") >> 3
    if (words := header >> 21) != total:
        raise InputError(f"brush mask: made for {words} values; an image of {width} x {height} has {total}")
    if (word := (header >> 16 & 31) + 1) != 8:
        raise InputError(f"brush mask: words of {word} bits; Label Studio writes 8")
    sizes = [(header >> 4 * (3 - k) & 15) + 1 for k in range(4)]
    pieces, position = _alpha_pieces(data, sizes, total)
    if bits - position > 16:
        raise InputError(f"brush mask: {bits - position} bits are left over behind its last value")
    return np.concatenate(pieces).reshape(height, width)


def _bytes(rle: Sequence[int]) -> bytes:
    if isinstance(rle, (str, bytes)) or not isinstance(rle, Sequence):
        raise InputError(f"brush mask: {printable(rle, 60)}; it must be a list of bytes")
    try:
        return bytes(rle)
    except (TypeError, ValueError):
        wrong = next(value for value in rle if type(value) is not int or not 0 <= value <= 255)
        raise InputError(f"brush mask: {printable(wrong, 60)} among its bytes; each lies between 0 and 255") from None


def _alpha_pieces(data: bytes, sizes: list[int], total: int) -> tuple[list[NDArray[np.uint8]], int]:
    """Return every fourth value, in pieces, and the bit behind the last of all."""
    padded, literals = data + bytes(8), _Literals(data)
    bits, position, filled = 8 * len(data), _HEADER_BITS, 0
    pieces: list[NDArray[np.uint8]] = []
    ends, values = [0], [0]
    while filled < total:
        first = position >> 3
        # flag, field, length and one word are at most 27 bits, which lie in five bytes wherever they begin
        code = int.from_bytes(padded[first : first + 5], "big") >> (13 - (position & 7)) & 0x7FFFFFF
        size = sizes[code >> 24 & 3]
        count = (code >> (24 - size) & (1 << size) - 1) + 1
        if code >> 26 or count == 1:
            position += 11 + size
            filled += count
            ends.append(filled)
            values.append(code >> (16 - size) & 255)
        else:
            pieces += [_repeated(values, ends), literals.alpha(position + 3 + size, filled, count)]
            position += 3 + size + 8 * count
            filled += count
            ends, values = [filled], [0]
        if filled > total or position > bits:
            what = f"runs on past its {total} values" if filled > total else f"breaks off before value {filled} of {total}"
            raise InputError(f"brush mask: {what}")
    return [*pieces, _repeated(values, ends)], position


def _repeated(values: list[int], ends: list[int]) -> NDArray[np.uint8]:
    """Return the alpha values of runs: `values` end at `ends`, of which the first stands for what lies before."""
    if len(values) == 2:  # a single run, as between the rows of an edited object
        return np.full(ends[1] // _CHANNELS - ends[0] // _CHANNELS, values[1], dtype=np.uint8)
    return np.repeat(np.array(values[1:], dtype=np.uint8), np.diff(np.array(ends) // _CHANNELS))


class _Literals:
    """Words that begin at any bit: the data moved by that many bits, made once for each of the eight ways."""

    def __init__(self, data: bytes) -> None:
        self._data = np.frombuffer(data + bytes(1), dtype=np.uint8)
        self._moved: dict[int, NDArray[np.uint8]] = {0: self._data}

    def alpha(self, position: int, filled: int, count: int) -> NDArray[np.uint8]:
        """Return the alpha values among `count` words from bit `position` on, where `filled` values went before."""
        offset, skipped = position & 7, (_CHANNELS - 1 - filled) % _CHANNELS
        if offset not in self._moved:
            left, right = np.left_shift(self._data[:-1], np.uint8(offset)), np.right_shift(self._data[1:], np.uint8(8 - offset))
            self._moved[offset] = left | right
        first = position >> 3
        return self._moved[offset][first + skipped : first + count : _CHANNELS]
