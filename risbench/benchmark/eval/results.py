"""What evaluations left, read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from risbench.benchmark.about import Result
from risbench.benchmark.eval.scoring import Scored
from risbench.core.errors import InputError
from risbench.core.storage import digest_of, explain_read_error, sha256_of

_ROWS: Final = TypeAdapter(Scored)


def samples_of(result: dict[str, Any]) -> list[Scored]:
    """Return an evaluation's samples as it wrote them.

    Raises:
        InputError: they are gone or damaged.
    """
    path = Path(result["path"]).with_suffix(".jsonl")
    try:
        data = path.read_bytes()
        if sha256_of(data) != result["samples_sha256"]:
            raise InputError(
                f"{path}: is damaged (its sha256 is not the one in {result['path']}); remove it and give the same command again"
            )
        return [_ROWS.validate_json(line, strict=True) for line in data.splitlines()]
    except FileNotFoundError:
        raise InputError(f"{path}: is gone; give the same command again") from None
    except OSError as error:
        raise explain_read_error(error, path) from error
    except ValidationError as error:
        raise InputError(f"{path}: is damaged ({error.errors()[0]['msg']}); remove it and give the same command again") from None


def checksum_of(result: Mapping[str, Any]) -> str:
    """Return the digest of figures, by which a damaged file of them is known."""
    return digest_of({name: value for name, value in result.items() if name != "checksum"})


def is_result(found: Mapping[str, Any]) -> bool:
    """Return whether figures that were read back have all that is computed with and printed, of the right kinds."""
    try:
        Result.model_validate(found)
    except ValidationError:
        return False
    return True


def same_data(*results: dict[str, Any]) -> None:
    """Check that evaluations were made on the same samples and masks.

    Raises:
        InputError: the release was changed between them.
    """
    if len({result["data"] for result in results}) > 1:
        raise InputError(f"{results[0]['release']}: was changed while models were scored on it; give the same command again")


def mean_of(results: Sequence[dict[str, Any]], metric: str) -> float:
    """Return a metric's mean over evaluations."""
    return float(np.mean([result["figures"][metric]["value"] for result in results]))
