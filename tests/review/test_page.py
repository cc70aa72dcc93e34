"""The labelling page in a real browser, worked as an annotator works it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Page

from risbench.core.masks import encode_rle, mask_of
from risbench.core.workspace import REVIEW, Workspace, read_records
from risbench.formats.brush import encode_brush
from risbench.review.rules.plan import Policy
from risbench.review.store.answers import read_answers
from risbench.review.store.review_store import ReviewStore
from risbench.review.verbs.adjudicate import adjudicate
from risbench.review.verbs.consensus import consensus
from risbench.review.verbs.pull import pull
from risbench.review.verbs.push import push
from tests.review.lab import FIX, brush, people
from tests.review.screen import assert_fits, blue, needs_chromium, open_project, picture_box, place, submit


@needs_chromium
def test_an_annotator_logs_in_judges_erases_and_goes_on(lab: Callable[..., Path], page: Page, tmp_path: Path) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=3, overlap=0, gold=0), quiet=True)
    outside: list[str] = []
    page.on("request", lambda request: outside.append(request.url) if not request.url.startswith((ana.base, "data:", "blob:")) else None)
    open_project(page, ana, ana.project)
    # all that is to be decided is on the screen, and nothing scrolls
    assert_fits(page, "accept", "unsure", "wrong", "filled box", "given box")
    shown = picture_box(page)
    assert shown["width"] >= 500
    # the mask lies over the object as a translucent blue
    items = {item.key: item for item in ReviewStore(Workspace.open(workspace)).queue()}
    records = {record.id: record for record in read_records(Workspace.open(workspace).latest())}
    order = [item.record for item in sorted(items.values(), key=lambda item: (-item.risk, item.record))]
    first = mask_of(records[order[0]].mask)  # type: ignore[arg-type]
    page.screenshot(path=tmp_path / "first.png")
    assert blue(tmp_path / "first.png", shown, first) > 10
    seen_through = "[...document.querySelectorAll(\".konvajs-content canvas[style*='opacity']\")].map(c => getComputedStyle(c).opacity)"
    assert set(page.evaluate(seen_through)) == {"0.35"}
    # the keys that the guidelines name
    page.keyboard.press("Control+h")
    assert page.evaluate("Htx.annotationStore.selected.regions.map(region => region.hidden)") == [True, True]
    page.keyboard.press("Control+h")
    page.keyboard.press("Alt+.")
    assert page.evaluate("Htx.annotationStore.selected.selectedRegions.map(region => region.type)") == ["brushregion"]
    width = "Htx.annotationStore.selected.names.get('image').getToolsManager().findSelectedTool().strokeWidth"
    widths = [page.evaluate(width)]
    for key in ("]", "["):
        page.keyboard.press(key)
        widths.append(page.evaluate(width))
    assert widths[1] > widths[0] == widths[2]
    page.keyboard.press("a")
    submit(page)

    second = mask_of(records[order[1]].mask)  # type: ignore[arg-type]
    page.wait_for_timeout(1500)
    page.get_by_text("object", exact=True).last.click()
    page.locator("[aria-label=eraser]").click()
    x, y = place(picture_box(page), second)
    page.mouse.move(x - 8, y)
    page.mouse.down()
    page.mouse.move(x + 8, y, steps=6)
    page.mouse.up()
    page.keyboard.press("f")
    page.keyboard.press("w")
    page.screenshot(path=tmp_path / "second.png")
    submit(page)
    page.wait_for_timeout(1000)
    page.get_by_test_id("prev-task").click()  # and thinks better of the sentence
    page.get_by_test_id("bottombar-update-button").wait_for(timeout=60_000)
    page.wait_for_timeout(1500)
    page.keyboard.press("m")
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(1500)
    page.get_by_test_id("next-task").click()
    page.get_by_test_id("bottombar-submit-button").wait_for(timeout=60_000)
    page.wait_for_timeout(1500)
    page.get_by_text("object", exact=True).last.click()  # u is a verdict also while a mask is chosen
    page.keyboard.press("u")
    submit(page, last=True)

    assert pull(workspace=workspace, quiet=True)["new"] == 3
    answers = {answer.record: answer for answer in read_answers(ReviewStore(Workspace.open(workspace)))}
    one, two, three = (answers[name] for name in order)
    assert (one.verdict, one.changed, one.sentence) == ("accept", False, "")  # no verdict on the sentence: not judged
    assert (two.verdict, two.changed, two.sentence) == ("fix", True, "ambiguous")
    left = two.mask()
    assert left is not None
    assert np.count_nonzero(second & ~left) > 0
    assert np.count_nonzero(left & ~second) <= 0.02 * np.count_nonzero(second)
    assert three.verdict == "unsure"
    assert all(answer.lead_time_s is not None and 0 < answer.lead_time_s < 120 for answer in answers.values())
    assert not outside, outside


@needs_chromium
def test_an_expert_sees_every_candidate_and_picks_one(lab: Callable[..., Path], page: Page, tmp_path: Path) -> None:
    workspace = lab()
    crew = people(workspace, "ana", "ben", "eva")
    desk = ReviewStore(Workspace.open(workspace))
    desk.change_annotator("eva", paused=True)
    push(workspace=workspace, policy=Policy(count=1, overlap=1.0, gold=0), quiet=True)
    drawn = {"ana": np.zeros((512, 512), bool), "ben": np.zeros((512, 512), bool)}
    drawn["ana"][100:200, 60:160] = True
    drawn["ben"][300:420, 300:400] = True
    for name, mask in drawn.items():
        task = crew[name].next()
        assert task is not None
        crew[name].answer(task, FIX, mask=[brush(task, encode_brush(mask))])
    pull(workspace=workspace, quiet=True)
    assert adjudicate("eva", workspace=workspace, quiet=True)["sent"] == 1
    project = next(person.expert_project for person in desk.annotators() if person.name == "eva")
    assert project is not None
    open_project(page, crew["eva"], project)
    assert_fits(page, "masks: A by 1, B by 1", "drawn", "wrong", "filled box")
    page.screenshot(path=tmp_path / "expert.png")
    pixels = cv2.imread(str(tmp_path / "expert.png")).astype(int)
    middles = [place(picture_box(page), mask) for mask in drawn.values()]
    colours = [pixels[round(y), round(x)] for x, y in middles]
    assert np.abs(colours[0] - colours[1]).max() > 40  # candidates are told apart by colour
    page.keyboard.press("2")
    page.keyboard.press("t")
    submit(page, last=True)
    pull(workspace=workspace, quiet=True)
    assert consensus(workspace=workspace, quiet=True)["status"]["adjudicated"] == 1
    [record] = [record for record in read_records(workspace / REVIEW) if record.review.status == "adjudicated"]
    assert record.mask is not None
    # B is the second of what was given equally often, in the order of the masks' own bytes
    second = max(drawn.values(), key=lambda mask: encode_rle(mask)[1])
    assert np.array_equal(mask_of(record.mask), second)
