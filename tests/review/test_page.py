"""The labelling page in a real browser, worked as an annotator works it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, sync_playwright

from risbench.core.masks import mask_of
from risbench.core.workspace import Workspace, read_records
from risbench.review.answers import read_answers
from risbench.review.desk import Desk
from risbench.review.plan import Policy
from risbench.review.pull import pull
from risbench.review.push import push
from tests.review.lab import people

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (.ci/run installs Debian's)"),
]
WIDTH, HEIGHT = 1366, 768


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}).new_page()
        finally:
            browser.close()


def submit(page: Page) -> None:
    """Submit, and wait until the next task (or the end) is there."""
    sentence = page.locator(".said").inner_text()
    page.get_by_test_id("bottombar-submit-button").click()
    page.wait_for_function("before => document.querySelector('.said')?.innerText !== before", arg=sentence, timeout=60_000)
    page.wait_for_load_state("networkidle")


def test_an_annotator_logs_in_judges_erases_and_goes_on(lab: Callable[..., Path], page: Page, tmp_path: Path) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=3, overlap=0, gold=0), quiet=True)
    outside: list[str] = []
    page.on("request", lambda request: outside.append(request.url) if not request.url.startswith((ana.base, "data:", "blob:")) else None)
    page.goto(ana.page)
    page.fill("input[name=email]", ana.login)
    page.fill("input[name=password]", ana.password)
    page.click("button[type=submit]")
    page.wait_for_load_state("networkidle")
    page.goto(f"{ana.base}/projects/{ana.project}/data")
    page.get_by_role("button", name="Label All Tasks").click()
    page.get_by_test_id("bottombar-submit-button").wait_for(timeout=60_000)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)
    # all that is to be decided is on the screen, and nothing scrolls
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight && document.documentElement.scrollWidth <= innerWidth")
    for text in ("accept", "unsure", "wrong", "filled box", "given box"):
        box = page.get_by_text(text, exact=False).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= HEIGHT - 50, text
    canvas = page.locator("canvas").first
    shown = canvas.bounding_box()
    assert shown is not None
    assert shown["width"] >= 500
    # the mask lies over the object as a translucent blue
    items = {item.key: item for item in Desk(Workspace.open(workspace)).queue()}
    records = {record.id: record for record in read_records(Workspace.open(workspace).latest())}
    order = [item.record for item in sorted(items.values(), key=lambda item: (-item.risk, item.record))]
    first = mask_of(records[order[0]].mask)  # type: ignore[arg-type]
    page.screenshot(path=tmp_path / "first.png")
    assert blue(tmp_path / "first.png", shown, first) > 15
    page.keyboard.press("a")
    submit(page)

    second = mask_of(records[order[1]].mask)  # type: ignore[arg-type]
    page.wait_for_timeout(1500)
    page.get_by_text("object", exact=True).last.click()
    page.locator("[aria-label=eraser]").click()
    x, y = place(canvas.bounding_box(), second)  # type: ignore[arg-type]
    page.mouse.move(x - 8, y)
    page.mouse.down()
    page.mouse.move(x + 8, y, steps=6)
    page.mouse.up()
    page.keyboard.press("f")
    page.keyboard.press("m")
    page.screenshot(path=tmp_path / "second.png")
    submit(page)
    page.wait_for_timeout(1000)
    page.keyboard.press("u")
    page.get_by_test_id("bottombar-submit-button").click()
    page.wait_for_timeout(3000)

    assert pull(workspace=workspace, quiet=True)["new"] == 3
    answers = {answer.record: answer for answer in read_answers(Desk(Workspace.open(workspace)))}
    one, two, three = (answers[name] for name in order)
    assert (one.verdict, one.changed, one.sentence) == ("accept", False, "true and unique")
    assert (two.verdict, two.changed, two.sentence) == ("fix", True, "ambiguous")
    left = two.mask()
    assert left is not None
    assert np.count_nonzero(second & ~left) > 0
    assert np.count_nonzero(left & ~second) <= 0.02 * np.count_nonzero(second)
    assert three.verdict == "unsure"
    assert all(answer.lead_time_s is not None and 0 < answer.lead_time_s < 120 for answer in answers.values())
    assert not outside, outside


def place(box: dict[str, float], mask: np.ndarray) -> tuple[float, float]:
    """Return where on the screen the middle of a mask is: the pixel furthest inside."""
    import cv2

    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    return box["x"] + (column + 0.5) / mask.shape[1] * box["width"], box["y"] + (row + 0.5) / mask.shape[0] * box["height"]


def blue(picture: Path, box: dict[str, float], mask: np.ndarray) -> float:
    """Return how much bluer than red the screen is inside a mask than just around it."""
    import cv2

    pixels = cv2.imread(str(picture)).astype(np.float32)
    excess = pixels[..., 0] - pixels[..., 2]
    side = (round(box["width"]), round(box["height"]))
    left, top = round(box["x"]), round(box["y"])
    crop = excess[top : top + side[1], left : left + side[0]]
    inside = cv2.resize(mask.astype(np.uint8), side, interpolation=cv2.INTER_NEAREST)[: crop.shape[0], : crop.shape[1]]
    around = cv2.dilate(inside, np.ones((25, 25), np.uint8)) - cv2.dilate(inside, np.ones((7, 7), np.uint8))
    return float(crop[inside > 0].mean() - crop[around > 0].mean())
