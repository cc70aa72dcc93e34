"""One real Label Studio for all tests of this folder; tests/conftest.py sends them to one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from risbench.ingest import ingest
from risbench.refine import refine_masks
from risbench.review.labelstudio.server import running
from risbench.scenes.source import write_source
from tests.review.lab import fresh_workspace
from tests.review.screen import CHROMIUM, HEIGHT, WIDTH


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of generated scenes with GrabCut's masks; nobody writes to it."""
    folder = tmp_path_factory.mktemp("host")
    write_source(folder / "source", seed=7, scenes=8)
    ingest(folder / "source", workspace=folder / "w", name="world", quiet=True)
    refine_masks(workspace=folder / "w", engine="grabcut", workers=1, quiet=True)
    return folder / "w"


@pytest.fixture(scope="session")
def server(host: Path) -> Iterator[str]:
    """The server's address."""
    with running(host) as found:
        yield found.url


@pytest.fixture
def lab(host: Path, server: str, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a workspace with an empty desk, connected to the server."""

    def make(name: str = "w") -> Path:
        return fresh_workspace(host, tmp_path / name)

    return make


@pytest.fixture
def page() -> Iterator[Page]:
    """An empty page of the browser."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}).new_page()
        finally:
            browser.close()
