"""`risbench stats`: the paper's Table I row and its Fig. 3 and 4 for any workspace."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from wordcloud import WordCloud

from risbench.core.classes import CLASSES
from risbench.core.errors import InputError
from risbench.core.geometry import size_of
from risbench.core.masks import mask_of
from risbench.core.record import Attributes, Record
from risbench.core.storage import explain_os_error, write_durably
from risbench.core.strata import area_of
from risbench.core.workspace import Workspace, read_records

# Table I, Fig. 3 and the text of arXiv 2410.08613.
_PAPER_MEAN_WORDS: Final = 14.31
_PAPER_VOCABULARY: Final = 4431
_SIZE_COLORS: Final = {"small": "#7fb8d6", "medium": "#2f7fb5", "large": "#0b3c5d"}
_LONGEST_DRAWN: Final = 30
_STOP: Final = frozenset(
    [
        "the",
        "a",
        "an",
        "of",
        "in",
        "on",
        "at",
        "to",
        "and",
        "is",
        "that",
        "it",
        "its",
        "with",
        "by",
        "from",
        "near",
        "as",
        "are",
        "this",
        "which",
    ]
)


def words_of(sentence: str) -> list[str]:
    """Return the words of a sentence in lower case; hyphens and apostrophes are part of a word."""
    return re.findall(r"\w+(?:[-'’]\w+)*", sentence.casefold())


def stats(*, workspace: Path | str = ".", output: Path | str | None = None) -> dict[str, Any]:
    """Return Table I's row and the sentence figures, and write three PNG figures.

    Raises:
        InputError: the workspace has no record with a sentence.
        MissingRequirementError: a figure cannot be written.
    """
    opened = Workspace.open(workspace)
    records = [record for record in read_records(opened.latest()) if record.expression is not None]
    if not records:
        raise InputError(f"{opened.root}: no record has a sentence, so there is nothing to count")
    return stats_of(records, opened.settings.name, Path(output) if output is not None else opened.root / "stats")


def stats_of(records: Sequence[Record], name: str, folder: Path) -> dict[str, Any]:
    """Return what `stats` returns, of records that have a sentence, and write the figures into a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, folder) from error
    sentences = [words_of(record.expression.text) for record in records if record.expression is not None]
    lengths = [len(words) for words in sentences]
    words = Counter(word for sentence in sentences for word in sentence)
    figures = [_word_lengths(folder, lengths), _classes_by_size(folder, records), _word_cloud(folder, words)]
    images = {record.image.path: record.image for record in records}
    metres = sorted(image.metres_per_pixel for image in images.values() if image.metres_per_pixel is not None)
    return {
        "table_1": {
            "dataset": name,
            "triplets": len(records),
            "image size": _image_sizes([f"{image.width}x{image.height}" for image in images.values()]),
            "resolution": f"{metres[0]:.2g}m - {metres[-1]:.2g}m" if metres else "not stated",
            "attribute kinds": _attribute_kinds(records),
        },
        "sentences": {
            "mean words": (round(float(np.mean(lengths)), 2), _PAPER_MEAN_WORDS),
            "vocabulary": (len(words), _PAPER_VOCABULARY),
            "classes": (len({record.category.name for record in records}), len(CLASSES)),
            "sentences an image": (round(len(records) / len(images), 2), 1.77),
        },
        "with_mask": sum(record.mask is not None for record in records),
        "attributes": {kind: sum(getattr(record.attributes, kind) is not None for record in records) for kind in Attributes.model_fields},
        "figures": figures,
    }


def _image_sizes(sizes: Sequence[str]) -> str:
    counts = Counter(sizes)
    return next(iter(counts)) if len(counts) == 1 else f"{len(counts)} sizes"


def _attribute_kinds(records: Sequence[Record]) -> int:
    return sum(any(getattr(record.attributes, kind) is not None for record in records) for kind in Attributes.model_fields)


def _figure(width: float, height: float) -> Figure:
    mpl.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "risbench"})
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> str:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130, metadata={"Software": None})
    write_durably(path, picture.getvalue())
    return str(path)


def _word_lengths(folder: Path, lengths: Sequence[int]) -> str:
    figure = _figure(7, 3.6)
    axes = figure.subplots()
    values, counts = np.unique(lengths, return_counts=True)
    axes.bar(values, counts, color="#2f7fb5", width=0.85)
    axes.axvline(float(np.mean(lengths)), color="#c0392b", linewidth=1.2, label=f"mean {np.mean(lengths):.2f} words")
    axes.set(xlabel="words in the sentence", ylabel="sentences", title="Word length of referring expressions (Fig. 3a)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return _save(figure, folder / "word_length.png")


def _classes_by_size(folder: Path, records: Sequence[Record]) -> str:
    counts: dict[str, Counter[str]] = {size: Counter() for size in _SIZE_COLORS}
    for record in records:
        counts[size_of(_area(record))][record.category.name] += 1
    present = Counter(record.category.name for record in records)
    names = [name for name, _ in sorted(present.items(), key=lambda item: (-item[1], item[0]))]
    figure = _figure(7.5, max(2.4, 0.26 * len(names) + 1.2))
    axes = figure.subplots()
    left = np.zeros(len(names))
    for size, color in _SIZE_COLORS.items():
        widths = np.array([counts[size][name] for name in names], dtype=np.float64)
        axes.barh(names, widths, left=left, color=color, label=size)
        left += widths
    axes.invert_yaxis()
    for place, total in enumerate(left):
        axes.annotate(f" {int(total):,}", (total, place), va="center", fontsize=8, color="#444444")
    axes.margins(x=0.09)
    axes.set(xlabel="triplets", title="Object classes and sizes (Fig. 3b); small < 32² px, large ≥ 96² px")
    axes.legend(frameon=False, loc="lower right")
    return _save(figure, folder / "classes_by_size.png")


def _area(record: Record) -> float:
    if record.mask is not None:
        return float(mask_of(record.mask).sum())
    return area_of(record)


def _word_cloud(folder: Path, words: Counter[str]) -> str:
    told = {word: count for word, count in words.items() if word not in _STOP and not word.isdigit() and len(word) <= _LONGEST_DRAWN}
    # Sorted, because equal counts would else be drawn in the order they were met.
    ordered = dict(sorted(told.items(), key=lambda item: (-item[1], item[0]))[:50]) or {"(none)": 1}
    cloud = WordCloud(width=1000, height=520, background_color="white", random_state=0, colormap="viridis", prefer_horizontal=0.95)
    path, picture = folder / "word_cloud.png", io.BytesIO()
    cloud.generate_from_frequencies(ordered).to_image().save(picture, format="PNG")
    write_durably(path, picture.getvalue())
    return str(path)
