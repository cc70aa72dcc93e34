"""The report as people use it: opened from disk in a real browser, filtered, paged, read by keyboard and by screen reader."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

from risbench.core.errors import InputError
from risbench.core.imagery import encode_png
from risbench.core.masks import mask_of
from risbench.core.record import Record
from risbench.core.workspace import Workspace, read_records
from risbench.export import export
from risbench.ingest import ingest
from risbench.inspect.report import report
from risbench.refine import refine_masks
from risbench.scenes.source import write_source
from tests.conftest import cli, tree_bytes
from tests.review.screen import CHROMIUM, needs_chromium

HOSTILE = '<script>document.title="taken"</script><img src=x onerror="document.title=1"> the ship & "others" \u2028 </script>'


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace of drawn scenes with GrabCut's masks; one sentence is hostile, one record has a problem, one is rejected."""
    folder = tmp_path_factory.mktemp("report")
    write_source(folder / "source", seed=5, scenes=24)
    ingest(folder / "source", workspace=folder / "w", name="world", quiet=True)
    refine_masks(workspace=folder / "w", engine="grabcut", workers=1, quiet=True)
    stage = folder / "w" / "2-refine" / "round-1"
    summary = json.loads((stage / "run.json").read_text())
    rows = [json.loads(line) for part in summary["parts"] for line in (stage / part["name"]).read_text().splitlines()]
    rows[0]["expression"]["text"] = HOSTILE
    rows[1]["problems"] = [{"stage": "refine", "code": "mask_empty", "detail": "nothing was found"}]
    rows[2]["review"]["status"] = "rejected"
    rows[3]["mask"] = None
    from risbench.core.storage import sha256_of_file

    for part in summary["parts"][1:]:
        (stage / part["name"]).unlink()
    first = stage / summary["parts"][0]["name"]
    first.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary["parts"] = [{**summary["parts"][0], "records": len(rows), "sha256": sha256_of_file(first)}]
    (stage / "run.json").write_text(json.dumps(summary))
    return folder / "w"


@pytest.fixture
def workspace(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "w"))


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            found = browser.new_page(viewport={"width": 1366, "height": 900})
            found.set_default_timeout(60_000)
            yield found
        finally:
            browser.close()


def newest(workspace: Path) -> dict[str, Record]:
    return {record.id: record for record in read_records(Workspace.open(workspace).latest())}


def opened(page: Page, path: str | Path) -> Page:
    """Open a report; whatever fails on the page, or leaves it, fails the test."""
    page.on("pageerror", lambda error: pytest.fail(f"the page failed: {error}"))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else pytest.fail(f"asks for {request.url}"))
    page.goto(Path(path).as_uri())
    page.wait_for_selector(".record")
    return page


def until(page: Page, condition: str) -> None:
    """Wait for a condition; Playwright's own wait evaluates text in the page, which the page's policy forbids."""
    end = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never came: {condition}"
        time.sleep(0.05)


def ids_on(page: Page) -> list[str]:
    """Return the ids of the records shown, as the data has them."""
    found: list[str] = page.evaluate(
        "[...document.querySelectorAll('.record')].map((b) => state.records.ids[state.shown[state.page * PAGE + Number(b.dataset.place)]])"
    )
    return found


@needs_chromium
def test_it_opens_from_disk_worst_first_and_nothing_of_a_sentence_runs(workspace: Path, page: Page) -> None:
    made = report(workspace=workspace, quiet=True)
    records = newest(workspace)
    assert made["records"] == len(records) > 60
    opened(page, made["path"])
    assert page.title() == "world: risbench report"
    assert f"of {len(records)} records" in page.inner_text("#count")
    shown = ids_on(page)
    assert len(shown) == 48
    assert records[shown[0]].problems
    assert records[shown[1]].review.status == "rejected"
    assert records[shown[2]].mask is None
    risks: list[int] = page.evaluate("state.records.columns.risk")
    assert risks[3:] == sorted(risks[3:], reverse=True)
    assert page.locator("#results").inner_text().count("mask_empty") == 1
    page.fill("input[name=words]", "<script>document.title")
    assert page.locator(".record").count() == 1
    assert HOSTILE.replace("\u2028", " ").split()[0] in page.locator(".record .said").inner_text()
    page.locator(".record").click()
    assert "<script>" in page.inner_text("#detail-title")
    assert page.title() == "world: risbench report"
    assert page.locator("#results script, #results img, #detail script").count() == 0


@needs_chromium
def test_every_filter_shows_those_records_and_no_others(workspace: Path, page: Page) -> None:
    opened(page, report(workspace=workspace, quiet=True)["path"])
    records = newest(workspace)
    category = next(iter(records.values())).category.name

    def all_shown() -> set[str]:
        found: list[str] = page.evaluate("state.shown.map((index) => state.records.ids[index])")
        return set(found)

    def pick(name: str, label: str) -> None:
        option = page.locator(f"select[name={name}] option", has_text=label).first
        page.select_option(f"select[name={name}]", option.get_attribute("value"))

    pick("class", f"{category} (")
    assert all_shown() == {name for name, record in records.items() if record.category.name == category}
    pick("attribute", "color")
    assert all_shown() == {name for name, record in records.items() if record.category.name == category and record.attributes.color}
    page.get_by_role("button", name="Clear").click()
    until(page, f"state.shown.length === {len(records)}")
    pick("status", "rejected")
    assert all_shown() == {name for name, record in records.items() if record.review.status == "rejected"}
    page.get_by_role("button", name="Clear").click()
    until(page, f"state.shown.length === {len(records)}")
    pick("size", "small (")
    small = {name for name, record in records.items() if record.mask and mask_of(record.mask).sum() < 32**2}
    assert {name for name in all_shown() if records[name].mask} == small
    page.fill("input[name=risk]", "0.3")
    risk = dict(zip(page.evaluate("state.records.ids"), page.evaluate("state.records.columns.risk"), strict=True))
    assert {name for name in all_shown() if records[name].mask} == {name for name in small if risk[name] >= 300}
    address = page.url
    assert "risk=0.3" in address
    page.get_by_role("button", name="Clear").click()
    page.fill("input[name=words]", "zzz no such thing")
    until(page, "state.shown.length === 0")
    assert page.inner_text("#count").startswith("No record is like that")
    # what was filtered can be sent to somebody
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector(".record")
    assert page.input_value("input[name=risk]") == "0.3"
    assert {name for name in all_shown() if records[name].mask} == {name for name in small if risk[name] >= 300}


@needs_chromium
def test_the_mask_is_drawn_where_it_is(workspace: Path, page: Page) -> None:
    opened(page, report(workspace=workspace, quiet=True)["path"])
    records = newest(workspace)
    page.select_option("select[name=order]", "id")
    for place in (5, 9, 20):
        page.locator(".record").nth(place).click()
        until(page, "document.getElementById('image').complete && document.getElementById('overlay').width === 512")
        record = records[page.inner_text("#fields dd >> nth=0")]
        page.locator("#show-box").uncheck()
        flips: list[int] = page.evaluate(
            """() => {
                const data = document.getElementById("overlay").getContext("2d").getImageData(0, 0, 512, 512).data, found = [];
                for (let i = 3, on = 0; i < data.length; i += 4) if ((data[i] > 0) !== Boolean(on)) { found.push((i - 3) / 4); on = 1 - on; }
                return found;
            }"""
        )
        steps = np.zeros(512 * 512, np.int64)
        steps[flips] = 1
        drawn = (np.cumsum(steps) % 2 == 1).reshape(512, 512)
        assert record.mask is not None
        assert np.array_equal(drawn, mask_of(record.mask))
        page.keyboard.press("m")
        assert page.evaluate(
            "document.getElementById('overlay').getContext('2d').getImageData(0, 0, 512, 512).data.every((value) => value === 0)"
        )
        page.keyboard.press("m")
        page.locator("#show-box").check()
        assert page.evaluate("document.getElementById('image').naturalWidth") == 512
        page.keyboard.press("Escape")


@needs_chromium
def test_it_is_used_by_keyboard_alone(workspace: Path, page: Page) -> None:
    opened(page, report(workspace=workspace, quiet=True)["path"])
    page.select_option("#filters [name=order]", "id")
    page.keyboard.press("Control+Home")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement.className") != "skip":
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.input_value("#filters [name=order]") == "id", "the filters are as they were"
    page.keyboard.press("ArrowDown")
    shown = ids_on(page)
    focused = "Number(document.activeElement.dataset.place)"
    assert page.evaluate(focused) == 0
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == 1
    page.keyboard.press("ArrowDown")
    across = page.evaluate(focused) - 1
    assert across >= 5, "down goes a row on"
    page.keyboard.press("Enter")
    assert page.evaluate("document.getElementById('detail').open")
    page.wait_for_selector("#fields dd")
    assert page.inner_text("#fields dd >> nth=0") == shown[1 + across]
    page.keyboard.press("ArrowRight")
    until(page, f"document.querySelector('#fields dd')?.textContent === {json.dumps(shown[2 + across])}")
    page.keyboard.press("Escape")
    until(page, f"{focused} === {2 + across}")  # the focus is where one was; the dialog says that it closed in a task of its own
    page.keyboard.press("End")
    assert page.evaluate(focused) == 47
    page.get_by_role("button", name="Next page").focus()
    page.keyboard.press("Enter")
    assert page.inner_text("#count").startswith("49 to ")
    assert page.input_value("#page") == "2"


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_accessibility_is_broken(workspace: Path, page: Page, scheme: Any) -> None:
    """axe-core, with WCAG 2.1 A and AA: the gallery, the figures and an open record."""
    page.emulate_media(color_scheme=scheme)
    opened(page, report(workspace=workspace, quiet=True)["path"])
    page.locator("summary").click()
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
    found = Axe().run(page, options=options)
    assert found.violations_count == 0, found.generate_report()
    page.locator(".record").nth(4).click()
    page.wait_for_selector("#fields dd")
    found = Axe().run(page, options=options)
    assert found.violations_count == 0, found.generate_report()


@needs_chromium
def test_a_release_has_a_report_beside_it_and_a_moved_one_still_shows_tiles(workspace: Path, page: Page, tmp_path: Path) -> None:
    made = export(workspace=workspace, include_unreviewed=True, formats=["risbench"], quiet=True)
    release = Path(made["path"])
    found = report(release, quiet=True)
    assert Path(found["path"]).parent == release.with_name("release-report")
    assert (found["records"], found["missing_images"]) == (made["triplets"], 0)
    assert "have not been reviewed" in opened(page, found["path"]).inner_text("#warnings")
    page.locator("select[name=split] option", has_text="test (").first.wait_for(state="attached")
    page.locator(".record").first.click()
    until(page, "document.getElementById('image').naturalWidth === 512")
    moved = shutil.copytree(Path(found["path"]).parent, tmp_path / "elsewhere" / "deep" / "down")
    page.goto((moved / "index.html").as_uri())
    page.locator(".record").first.click()
    page.wait_for_selector("#image-note .tile")
    assert "not where it was" in page.inner_text("#image-note")


@pytest.mark.parametrize("formats", [["parquet"], ["webdataset"]])
def test_a_release_without_picture_files_has_tiles_all_the_same(workspace: Path, tmp_path: Path, formats: list[str]) -> None:
    made = export(workspace=workspace, include_unreviewed=True, formats=formats, quiet=True)
    found = report(made["path"], output=tmp_path / "r", quiet=True)
    assert (found["records"], found["missing_images"]) == (made["triplets"], 0)
    sheet = cv2.imread(str(tmp_path / "r" / "tiles" / "00000.jpg"))
    assert sheet.shape == (640, 640, 3)
    assert float(sheet.std()) > 15
    assert b'"path":null' in (tmp_path / "r" / "data" / "masks-00000.js").read_bytes()


def test_coco_alone_says_what_to_export(workspace: Path, tmp_path: Path) -> None:
    made = export(workspace=workspace, include_unreviewed=True, formats=["coco"], quiet=True)
    with pytest.raises(InputError, match="export with --format risbench"):
        report(made["path"], output=tmp_path / "r", quiet=True)


def test_the_same_call_changes_nothing_and_goes_on_where_it_was_killed(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from risbench.inspect import report as module

    made: list[int] = []
    whole = module._sheet

    def dies(source: Any, records: Any) -> tuple[bytes, int]:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(1)
        return whole(source, records)

    monkeypatch.setattr(module, "_sheet", dies)
    with pytest.raises(KeyboardInterrupt):
        report(workspace=workspace, quiet=True)
    assert not (workspace / "report").exists()
    again: list[int] = []
    monkeypatch.setattr(module, "_sheet", lambda source, records: again.append(1) or whole(source, records))
    first = report(workspace=workspace, quiet=True)
    assert first["state"] == "written"
    assert len(again) == -(-first["records"] // 16) - 2, "the two sheets that were there are kept"
    before = tree_bytes(workspace / "report")
    assert report(workspace=workspace, quiet=True)["state"] == "up to date"
    shutil.rmtree(workspace / "report")
    monkeypatch.undo()
    report(workspace=workspace, quiet=True)
    assert tree_bytes(workspace / "report") == before, "the same bytes for the same records"


def test_bad_input_is_said_and_nothing_of_others_is_replaced(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="mine: is no report, or holds other things"):
        report(workspace=workspace, output=tmp_path / "mine", quiet=True)
    assert (tmp_path / "mine" / "thesis.tex").exists()
    with pytest.raises(InputError, match="is no release: it has no release.json"):
        report(tmp_path / "mine", quiet=True)
    for content in ('{"created": 1}', "[1]", '{"a": 1}\n{"b": 2}\n', json.dumps({"plan": {}})):
        (tmp_path / "mine" / "report.json").write_text(content)
        with pytest.raises(InputError, match="holds other things"):
            report(workspace=workspace, output=tmp_path / "mine", quiet=True)
    assert (tmp_path / "mine" / "thesis.tex").exists()
    made = export(workspace=workspace, include_unreviewed=True, quiet=True)
    with pytest.raises(InputError, match="to which nothing may be added"):
        report(made["path"], output=Path(made["path"]) / "page", quiet=True)
    done = cli("report", ".", cwd=Path(made["path"]))
    assert done.returncode == 0, done.stderr
    assert (Path(made["path"]).with_name("release-report") / "index.html").is_file()
    image = next((workspace / "images").rglob("*.png"))
    image.write_bytes(image.read_bytes()[:400])
    other = sorted((workspace / "images").rglob("*.png"))[-1]
    other.unlink()
    odd = sorted((workspace / "images").rglob("*.png"))[-1]
    whole = odd.read_bytes()
    odd.write_bytes(encode_png(np.zeros((128, 128, 3), np.uint8)))
    made = cli("report", "-w", workspace)
    assert made.returncode == 0, made.stderr
    records = [record for record in newest(workspace).values() if record.image.path.endswith((image.name, other.name, odd.name))]
    assert f"the images of {len(records)} records cannot be shown" in made.stdout
    summary = (workspace / "report" / "data" / "summary.js").read_text()
    assert "ingest the source again" in summary
    odd.write_bytes(whole)  # what was mended is seen by the next run
    again = report(workspace=workspace, quiet=True)
    assert again["state"] == "written"
    assert again["missing_images"] < len(records)
