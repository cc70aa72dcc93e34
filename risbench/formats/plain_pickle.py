"""Pickles of plain values: lists, dicts, strings and numbers; nothing that runs code or claims memory that its bytes do not fill."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, Final

from risbench.core.errors import InvalidRowError
from risbench.core.reading import explain_read_error

_MAX_CONTAINERS: Final = 5_000_000
_MAX_INTEGER_BYTES: Final = 32
# Memo places are counted up from 0 or 1; the unpickler's table is as long as the largest.
_SPARE_PLACES: Final = 1_000
_BROKEN: Final = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
# By opcode: how many bytes of argument follow; below 0 as pickletools has it (to the end of the line, or a length of 1, 4 or 8 bytes).
_ARGUMENTS: Final = {ord(op.code): op.arg.n if op.arg is not None else 0 for op in pickletools.opcodes}
_LENGTHS: Final = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_TWO_LINES: Final = frozenset(b"ci")
_CONTAINERS: Final = frozenset(b"]}lds)t2(\x85\x86\x87\x8f\x91")
_INTEGERS: Final = frozenset(b"\x8a\x8b")
_TEXT_NUMBERS: Final = frozenset(b"IL")
_PUTS: Final = frozenset(b"pqr\x94")


class _NoClasses(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise InvalidRowError(
            "pickle_runs_code", "pickle", f"{module_name}.{global_name}", "refs may hold lists, dicts, strings and numbers only"
        )

    def persistent_load(self, pid: Any, /) -> Any:
        raise InvalidRowError("pickle_runs_code", "pickle", pid, "refs may hold lists, dicts, strings and numbers only")


def load_plain_pickle(data: bytes, where: str) -> Any:
    """Return the plain value in a pickle, running none of it.

    Raises:
        InvalidRowError: it names a class or function, is damaged, or claims more memory than its bytes fill.
        MissingRequirementError: there is not enough memory.
    """
    try:
        _check_claims(data, where)
        return _NoClasses(io.BytesIO(data), encoding="latin1").load()
    except MemoryError as error:
        raise explain_read_error(error, where) from error
    except _BROKEN as error:
        raise InvalidRowError("broken_pickle", "file", where, f"it is not a whole pickle ({type(error).__name__})") from None


def _check_claims(data: bytes, where: str) -> None:
    """Read the pickle's opcodes without obeying them.

    Raises:
        InvalidRowError: a memo place, a length, a number or the count of containers is one that no such pickle has.
        ValueError, IndexError, KeyError: it is damaged.
    """
    place, puts, containers, size = 0, 0, 0, len(data)
    while True:
        code = data[place]
        arguments = _ARGUMENTS[code]
        start = place + 1
        if arguments >= 0:
            place = start + arguments
        elif arguments == pickletools.UP_TO_NEWLINE:
            place = data.index(b"\n", start) + 1
            if code in _TWO_LINES:
                place = data.index(b"\n", place) + 1
        else:
            width = _LENGTHS[arguments]
            length = int.from_bytes(data[start : start + width], "little")
            if start + width + length > size:
                raise InvalidRowError("broken_pickle", "file", where, f"byte {start - 1:,} announces {length:,} bytes, and it has {size:,}")
            if code in _INTEGERS and length > _MAX_INTEGER_BYTES:
                raise InvalidRowError(
                    "pickle_bomb", "number", f"{length:,} bytes", f"{where}: a whole number may have {_MAX_INTEGER_BYTES}"
                )
            place = start + width + length
        if code in _PUTS:
            memo = puts if code == 0x94 else _memo_place(data, code, start, place)
            puts += 1
            if memo > 2 * puts + _SPARE_PLACES:
                raise InvalidRowError(
                    "pickle_bomb", "memo place", memo, f"{where}: it has kept {puts:,} values so far, so no place is that high"
                )
        elif code in _CONTAINERS:
            containers += 1
            if containers > _MAX_CONTAINERS:
                raise InvalidRowError(
                    "pickle_bomb", "containers", containers, f"{where}: refs may hold {_MAX_CONTAINERS:,} lists and dicts"
                )
        elif code in _TEXT_NUMBERS and place - start > 3 * _MAX_INTEGER_BYTES:
            raise InvalidRowError(
                "pickle_bomb", "number", f"{place - start:,} digits", f"{where}: a whole number may have {_MAX_INTEGER_BYTES} bytes"
            )
        elif code == 0x2E:  # STOP
            return


def _memo_place(data: bytes, code: int, start: int, end: int) -> int:
    if code == 0x70:  # PUT: digits in a line
        text = data[start : end - 1]
        if not 0 < len(text) < 12:
            raise ValueError("a memo place is no number")
        return int(text)
    return int.from_bytes(data[start:end], "little")
