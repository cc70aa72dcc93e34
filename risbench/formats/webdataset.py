"""WebDataset: tar shards in which the files of one sample share a key, https://github.com/webdataset/webdataset."""

from __future__ import annotations

import io
import tarfile

from risbench.core.record import Record
from risbench.core.storage import sha256_of


def sample(record: Record, key: str, image: bytes, suffix: str, mask_png: bytes) -> list[tuple[str, bytes]]:
    """Return a triplet's files: image, mask (0/255), sentence and record. The key is all before the name's first dot."""
    assert record.expression is not None, "export leaves records without a sentence out"
    stem = key if "." not in key else f"{key.replace('.', '-')}-{sha256_of(key.encode())[:8]}"
    return [
        (f"{stem}{suffix}", image),
        (f"{stem}.mask.png", mask_png),
        (f"{stem}.txt", record.expression.text.encode()),
        (f"{stem}.json", record.to_line().encode()),
    ]


def add_member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a file that tells nothing of when and by whom it was packed."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    archive.addfile(member, io.BytesIO(data))
