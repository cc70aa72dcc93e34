"""`risbench weights` against a real HTTP server on loopback that misbehaves in every way that servers do."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from risbench.core.errors import BusyError, InputError, MissingRequirementError, OptionError
from risbench.sam import fetch
from risbench.sam.fetch import fetch_weights, list_weights, read_manifest, verify_weights

BODY = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
DIGEST = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY; `mode` says how it misbehaves, `asked` holds the Range header of every request."""

    mode = "good"
    asked: list[str | None]
    daemon_threads = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *words: object) -> None: ...

    def do_GET(self) -> None:
        mode, asked = self.server.mode, self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and mode != "no ranges" else 0
        if mode == "404":
            return self.send_error(404)
        if mode == "503":
            return self.send_error(503)
        if mode == "page":
            return self.answer(b"<!DOCTYPE html><html>sign in</html>", kind="text/html")
        if mode == "disguised page":
            return self.answer(b"<html>sign in</html>".ljust(len(BODY)))
        if mode == "wrong file":
            return self.answer(BODY[::-1])
        if mode == "other size":
            return self.answer(BODY[:-1])
        if mode == "wrong range":
            return self.answer(BODY[start + 5 :], status=206, start=start + 5)
        if start > len(BODY):
            return self.send_error(416)
        rest = BODY[start:]
        if mode == "drops" and len(rest) > 1_000_000:
            return self.answer(rest, send=900_000, status=206 if start else 200, start=start)
        if mode == "slow":
            return self.answer(rest, status=206 if start else 200, start=start, pause_s=0.4)
        if mode == "no length":
            return self.answer(
                rest, send=1_000_000 if len(self.server.asked) == 1 else len(rest), length=False, status=206 if start else 200, start=start
            )
        return self.answer(rest, status=206 if start else 200, start=start)

    def answer(
        self, data: bytes, *, status: int = 200, kind: str = "application/octet-stream", start: int = 0, send: int | None = None,
        length: bool = True, pause_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length:
            self.send_header("Content-Length", str(len(data)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.end_headers()
        try:
            for place in range(0, len(data[:send]), 300_000):
                self.wfile.write(data[:send][place : place + 300_000])
                time.sleep(pause_s)
        except (BrokenPipeError, ConnectionResetError):
            return


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch, "_WAIT_S", 0.01)
    made = Server(("127.0.0.1", 0), Handler)
    made.asked = []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def manifest(folder: Path, address: str, *, size: int = len(BODY), sha256: str = DIGEST) -> Path:
    path = folder / "weights.toml"
    fields = {"file": "w.pth", "url": f"{address}/w.pth", "sha256": sha256, "licence": "MIT", "use": "tests", "citation": "-"}
    path.write_text("[w]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items()) + f"bytes = {size}\n")
    return path


def get(server: Server, folder: Path, **more: object) -> dict[str, object]:
    words = {key: more.pop(key) for key in ("size", "sha256") if key in more}
    found = fetch_weights(["w"], folder=folder / "w", manifest=manifest(folder, server.address, **words), quiet=True, **more)  # type: ignore[arg-type]
    return found["weights"][0]


def test_a_fetch_brings_the_file_and_a_second_one_reads_only_what_is_here(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path)["state"] == "fetched"
    assert (tmp_path / "w" / "w.pth").read_bytes() == BODY
    assert get(server, tmp_path)["state"] == "was here"
    assert server.asked == [None]
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == ["w.pth"]


def test_a_connection_that_drops_again_and_again_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.mode = "drops"
    assert get(server, tmp_path)["sha256"] == DIGEST
    assert len(server.asked) >= 3
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in server.asked[1:] if asked]
    assert starts == sorted(starts)
    assert starts[0] > 0


def test_a_server_without_ranges_is_taken_from_the_start(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "w.pth.part").write_bytes(BODY[:1_000_000])
    server.mode = "no ranges"
    assert get(server, tmp_path)["state"] == "fetched"
    assert (tmp_path / "w" / "w.pth").read_bytes() == BODY
    assert server.asked == ["bytes=1000000-"]


def test_a_part_that_is_too_long_or_rotten_does_not_survive(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    part = tmp_path / "w" / "w.pth.part"
    part.write_bytes(BODY + b"more")
    assert get(server, tmp_path)["sha256"] == DIGEST
    (tmp_path / "w" / "w.pth").unlink()
    part.write_bytes(b"\0" * 1000)
    with pytest.raises(InputError, match=f"not {DIGEST}: damaged on the way, or another file; nothing was kept"):
        get(server, tmp_path)
    assert not part.exists()
    assert get(server, tmp_path)["state"] == "fetched"


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("wrong file", "damaged on the way, or another file; nothing was kept"),
        ("other size", f"the server has {len(BODY) - 1} bytes, w.pth has {len(BODY)}; this is another file"),
        ("page", "a web page came instead of weights: a proxy's or a login page"),
        ("disguised page", "a web page came instead of weights"),
        ("404", "the server answers 404 Not Found; try another address with --mirror"),
    ],
)
def test_what_is_not_the_file_is_never_kept_as_it(server: Server, tmp_path: Path, mode: str, message: str) -> None:
    server.mode = mode
    with pytest.raises(InputError) as caught:
        get(server, tmp_path)
    assert message in str(caught.value)
    assert not (tmp_path / "w" / "w.pth").exists()


def test_a_proxys_page_leaves_what_was_fetched_so_far(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "w.pth.part").write_bytes(BODY[:1_000_000])
    server.mode = "page"
    with pytest.raises(InputError, match="a web page came"):
        get(server, tmp_path)
    assert (tmp_path / "w" / "w.pth.part").stat().st_size == 1_000_000
    server.mode = "good"
    assert get(server, tmp_path)["sha256"] == DIGEST
    assert server.asked[-1] == "bytes=1000000-"


def test_a_range_that_was_not_asked_for_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "w.pth.part").write_bytes(BODY[:1000])
    server.mode = "wrong range"
    with pytest.raises(InputError, match="asked for bytes from 1000 on, the server sent from 1005 on"):
        get(server, tmp_path)


def test_a_busy_server_and_no_server_are_told_apart(server: Server, tmp_path: Path) -> None:
    server.mode = "503"
    with pytest.raises(MissingRequirementError, match="the server answers 503"):
        get(server, tmp_path)
    assert len(server.asked) == 5
    (tmp_path / "w" / "w.pth.part").write_bytes(BODY[:1000])
    with pytest.raises(BusyError, match="1000 bytes are kept, the same command goes on"):
        get(server, tmp_path)
    address = server.address
    server.shutdown()
    server.server_close()
    with pytest.raises(MissingRequirementError, match="offline machines take --mirror FOLDER"):
        fetch_weights(["w"], folder=tmp_path / "other", manifest=manifest(tmp_path, address), quiet=True)


def test_weights_without_a_published_sum_are_noted_and_then_verified(server: Server, tmp_path: Path) -> None:
    server.mode = "no length"
    with pytest.raises(InputError, match="damaged"):  # a sum would have found it
        get(server, tmp_path, size=0)
    server.asked.clear()
    server.mode = "good"
    assert get(server, tmp_path, size=0, sha256="")["sha256"] == DIGEST
    path = tmp_path / "weights.toml"
    assert verify_weights(folder=tmp_path / "w", manifest=path)["faults"] == 0
    (tmp_path / "w" / "w.pth").write_bytes(BODY[:-1] + b"x")
    assert verify_weights(folder=tmp_path / "w", manifest=path)["weights"][0]["state"] == "damaged"
    with pytest.raises(InputError, match="move it away and fetch again"):
        get(server, tmp_path, size=0, sha256="")


def test_a_mirror_is_an_address_or_a_folder(server: Server, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "w.pth").write_bytes(BODY)
    path = manifest(tmp_path, "http://127.0.0.1:9/nowhere")
    assert fetch_weights(["w"], folder=tmp_path / "a", mirror=str(tmp_path / "share"), manifest=path)["weights"][0]["state"] == "fetched"
    assert fetch_weights(["w"], folder=tmp_path / "b", mirror=server.address + "/", manifest=path)["weights"][0]["state"] == "fetched"
    with pytest.raises(InputError, match="there is no such file"):
        fetch_weights(["w"], folder=tmp_path / "c", mirror=str(tmp_path), manifest=path)


def test_a_folder_that_cannot_be_made_and_an_unknown_name_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingRequirementError, match="cannot be made"):
        fetch_weights(["sam_vit_b"], folder=tmp_path / "file" / "sub")
    with pytest.raises(OptionError, match="'sam' is not in the manifest; it holds sam_vit_b"):
        fetch_weights(["sam"], folder=tmp_path)
    with pytest.raises(OptionError, match="name at least one"):
        fetch_weights([], folder=tmp_path)


def test_two_processes_never_write_the_same_part(server: Server, tmp_path: Path) -> None:
    server.mode = "slow"
    path = manifest(tmp_path, server.address)
    code = f"from risbench.sam.fetch import fetch_weights; from pathlib import Path; fetch_weights(['w'], folder={str(tmp_path / 'w')!r}, manifest=Path({str(path)!r}), quiet=True)"
    first = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "w" / "w.pth.part").exists():
        time.sleep(0.02)
    with pytest.raises(BusyError, match="another process is fetching this file"):
        get(server, tmp_path)
    assert first.wait() == 0
    assert (tmp_path / "w" / "w.pth").read_bytes() == BODY


def test_a_killed_fetch_goes_on(server: Server, tmp_path: Path) -> None:
    server.mode = "slow"
    path = manifest(tmp_path, server.address)
    code = f"from risbench.sam.fetch import fetch_weights; from pathlib import Path; fetch_weights(['w'], folder={str(tmp_path / 'w')!r}, manifest=Path({str(path)!r}), quiet=True)"
    child = subprocess.Popen([sys.executable, "-c", code])
    part = tmp_path / "w" / "w.pth.part"
    while not (part.exists() and part.stat().st_size > 0):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = part.stat().st_size
    assert 0 < kept < len(BODY)
    listed = list_weights(folder=tmp_path / "w", manifest=path)["weights"][0]["state"]
    assert listed == f"begun, {kept} bytes"
    server.mode = "good"
    assert get(server, tmp_path)["sha256"] == DIGEST
    assert server.asked[-1] == f"bytes={kept}-"


def test_the_shipped_manifest_names_sizes_sums_licences_and_citations() -> None:
    known = read_manifest()
    assert {"sam_vit_b", "sam_vit_l", "sam_vit_h", "mobile_sam", "swin_base_22k", "convnext_base_22k", "bert_base"} <= set(known)
    for item in known.values():
        assert item.licence
        assert item.citation
        assert item.url.startswith("https://")
    assert known["sam_vit_b"].file.endswith(f"{known['sam_vit_b'].md5[:6]}.pth")
