"""The labelling page as people see it: a real browser at the size of a small laptop."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import FloatRect, Page

from tests.review.lab import Person

CHROMIUM = shutil.which("chromium")
WIDTH, HEIGHT = 1366, 768
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (.ci/run installs Debian's)")


def open_project(page: Page, person: Person, project: int) -> None:
    """Log in by the form, open a project and begin to label."""
    page.goto(person.page)
    page.fill("input[name=email]", person.login)
    page.fill("input[name=password]", person.password)
    page.click("button[type=submit]")
    page.wait_for_load_state("networkidle")
    page.goto(f"{person.base}/projects/{project}/data")
    page.get_by_role("button", name="Label All Tasks").click()
    page.get_by_test_id("bottombar-submit-button").wait_for(timeout=60_000)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)


def submit(page: Page, *, last: bool = False) -> None:
    """Submit, wait until the server has the answer and, unless it was the last one, until the next task is there."""
    key = page.evaluate("Htx.task.dataObj.key")
    with page.expect_response(lambda reply: reply.request.method == "POST" and "/annotations" in reply.url, timeout=60_000) as stored:
        page.get_by_test_id("bottombar-submit-button").click()
    assert stored.value.ok, stored.value.status
    if not last:
        # between two tasks the page has none for a moment
        there = "key => { const now = Htx.task?.dataObj?.key; return now && now !== key && document.querySelector('.said') }"
        page.wait_for_function(there, arg=key, timeout=60_000)
        page.wait_for_load_state("networkidle")


def picture_box(page: Page) -> FloatRect:
    """Return where the picture lies on the screen, once it moves no more: the page fits it to the room that there is while it loads."""
    before = None
    for _ in range(40):
        box = page.locator("canvas").first.bounding_box()
        if box is not None and box == before:
            return box
        before = box
        page.wait_for_timeout(250)
    raise AssertionError("the picture moves on and on")


def assert_fits(page: Page, *texts: str) -> None:
    """Fail unless nothing scrolls and every text stands above the bar at the bottom."""
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight && document.documentElement.scrollWidth <= innerWidth")
    for text in texts:
        box = page.get_by_text(text, exact=False).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= HEIGHT - 50, text


def place(box: FloatRect, mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return where on the screen the middle of a mask is: the pixel furthest inside."""
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    return box["x"] + (column + 0.5) / mask.shape[1] * box["width"], box["y"] + (row + 0.5) / mask.shape[0] * box["height"]


def blue(picture: Path, box: FloatRect, mask: NDArray[np.bool_]) -> float:
    """Return how much bluer than red the screen is inside a mask than just around it."""
    pixels = cv2.imread(str(picture)).astype(np.float32)
    excess = pixels[..., 0] - pixels[..., 2]
    side = (round(box["width"]), round(box["height"]))
    left, top = round(box["x"]), round(box["y"])
    crop = excess[top : top + side[1], left : left + side[0]]
    inside = cv2.resize(mask.astype(np.uint8), side, interpolation=cv2.INTER_NEAREST)[: crop.shape[0], : crop.shape[1]]
    around = cv2.dilate(inside, np.ones((25, 25), np.uint8)) - cv2.dilate(inside, np.ones((7, 7), np.uint8))
    return float(crop[inside > 0].mean() - crop[around > 0].mean())
