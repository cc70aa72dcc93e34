"""Twenty masks on a screen: the page in a real browser, and what becomes of what was clicked."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import sync_playwright

from risbench.core.errors import InputError, OptionError
from risbench.core.workspace import REVIEW, Workspace, read_records
from risbench.export import export
from risbench.refine import refine_masks
from risbench.review.rules.plan import DOUBTED, Policy, Shown, plan
from risbench.review.rules.plan import ReviewStore as Out
from risbench.review.store.review_store import Annotator, ReviewStore
from risbench.review.store.triage_votes import read_triage_votes
from risbench.review.verbs.consensus import consensus
from risbench.review.verbs.push import push
from risbench.review.verbs.triage import triaging

CHROMIUM = shutil.which("chromium")


@pytest.fixture
def workspace(host: Path, tmp_path: Path) -> Path:
    """A workspace with one person and no server, and a split list of all its scenes."""
    shutil.copytree(host, tmp_path / "w", ignore=shutil.ignore_patterns("review", ".lock"))
    desk = ReviewStore(Workspace.open(tmp_path / "w"))
    desk.save_annotators([Annotator("ana", "a@annotators.risbench.invalid")])
    scenes = sorted({record.image.scene for record in read_records(Workspace.open(tmp_path / "w").latest())})
    rows = [f"{scene},{'test' if index < 2 else 'train'}" for index, scene in enumerate(scenes)]
    (tmp_path / "split.csv").write_text("scene,split\n" + "\n".join(rows) + "\n")
    return tmp_path / "w"


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (.ci/run installs Debian's)")
def test_what_is_clicked_is_doubted_and_the_rest_passes(workspace: Path, tmp_path: Path) -> None:
    with triaging("ana", split=tmp_path / "split.csv", share=1.0, workspace=workspace) as found, sync_playwright() as driver:
        assert requests.get(found["url"].rsplit("/", 2)[0] + "/", timeout=10).status_code == 404
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1366, "height": 768}).new_page()
        page.goto(found["url"])
        page.wait_for_function("document.images.length === 20 && [...document.images].every(i => i.complete && i.naturalWidth === 260)")
        assert page.evaluate("document.documentElement.scrollHeight <= innerHeight && document.documentElement.scrollWidth <= innerWidth")
        page.locator("figure").nth(3).click()
        page.locator("figure").nth(7).click()
        page.locator("figure").nth(7).click()  # thought better of it
        page.screenshot(path=tmp_path / "sheet.png")
        before = page.locator("#count").inner_text()
        page.keyboard.press("Enter")
        page.wait_for_function("before => document.getElementById('count').innerText !== before", arg=before)
        browser.close()
    glances = read_triage_votes(ReviewStore(Workspace.open(workspace)))
    assert len(glances) == 20
    doubted = [glance.record for glance in glances.values() if glance.doubted]
    assert doubted == [list(glances)[3]]
    with triaging("ana", split=tmp_path / "split.csv", share=1.0, workspace=workspace) as again:
        assert again["masks"] == found["masks"] - 20  # a sheet that was answered never comes again
    result = consensus(workspace=workspace, quiet=True)
    assert result["status"]["triaged"] == 19
    records = {record.id: record for record in read_records(workspace / REVIEW)}
    test = {line.split(",")[0] for line in (tmp_path / "split.csv").read_text().splitlines() if line.endswith("test")}
    assert not any(record.image.scene in test for record in records.values() if record.review.status == "triaged")
    # what passed is not given out, what was doubted comes first
    out = push(workspace=workspace, policy=Policy(overlap=0, gold=0), dry_run=True, quiet=True)
    assert out["planned"] == sum(bool(record.mask) and not record.problems for record in records.values()) - 19
    again = push(workspace=workspace, policy=Policy(overlap=0, gold=0, triaged_too=True), dry_run=True, quiet=True)
    assert again["planned"] == out["planned"] + 19
    candidates = [Shown(name, "m", 1, DOUBTED if name in doubted else 0.9, record.category.name) for name, record in records.items()]
    assert [item.record for item in plan(b"s", ["ana"], candidates, [], Out(), Policy(count=1, overlap=0, gold=0))] == doubted
    # a release learns from them, and does not measure with them
    shutil.copy(tmp_path / "split.csv", tmp_path / "frozen.csv")
    released = export(workspace=workspace, split=str(tmp_path / "frozen.csv"), allow_empty=True, quiet=True)
    assert (released["triplets"], released["splits"]["train"]["triplets"]) == (19, 19)
    (tmp_path / "frozen.csv").write_text((tmp_path / "split.csv").read_text().replace("train", "val"))
    with pytest.raises(InputError):
        export(workspace=workspace, split=str(tmp_path / "frozen.csv"), name="second", quiet=True)
    # what passed stays through later rounds: boxes are no better
    assert refine_masks(workspace=workspace, engine="box", quiet=True)["notes"]["triaged_kept"] == 19
    assert consensus(workspace=workspace, quiet=True)["status"]["triaged"] == 19


def look(url: str, sheet: dict[str, Any]) -> None:
    """Load every tile of a sheet, as the page does."""
    for tile in sheet["tiles"]:
        requests.get(f"{url}tile/{tile['number']}", params={"sheet": sheet["id"]}, timeout=10).raise_for_status()


def test_two_at_once_look_at_different_sheets_and_a_doubt_stays(workspace: Path, tmp_path: Path) -> None:
    desk = ReviewStore(Workspace.open(workspace))
    desk.save_annotators([*desk.annotators(), Annotator("ben", "b@annotators.risbench.invalid")])
    words: dict[str, Any] = {"split": tmp_path / "split.csv", "share": 1.0, "workspace": workspace}
    with triaging("ana", **words) as one, triaging("ben", **words) as two:
        first, second = (requests.get(found["url"] + "next", timeout=10).json() for found in (one, two))
        assert first["id"] != second["id"]
        look(one["url"], first)
        body = {"sheet": first["id"], "doubted": [2], "seconds": 9}
        assert requests.post(one["url"] + "done", json=body, timeout=10).status_code == 200
        met = {second["id"]}
        while (sheet := requests.get(two["url"] + "next", timeout=10).json())["id"]:
            met.add(sheet["id"])
            look(two["url"], sheet)
            requests.post(two["url"] + "done", json={"sheet": sheet["id"], "doubted": [], "seconds": 9}, timeout=10).raise_for_status()
        assert first["id"] not in met  # somebody else did it meanwhile
    [doubted] = [glance for glance in read_triage_votes(desk).values() if glance.doubted]
    line = json.dumps({**asdict(doubted), "doubted": False, "person": "ben"}, sort_keys=True)
    with open(desk.root / "triage.jsonl", "a") as file:
        file.write(line + "\n")
    assert read_triage_votes(desk)[doubted.record].doubted
    desk.change_annotator("ben", paused=True)
    with pytest.raises(InputError, match="annotator ben: is paused"), triaging("ben", **words):
        pass


def test_a_better_mask_that_nobody_saw_is_not_released_as_triaged(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with triaging("ana", split=tmp_path / "split.csv", share=1.0, workspace=workspace) as found:
        sheet = requests.get(found["url"] + "next", timeout=10).json()
        look(found["url"], sheet)
        requests.post(found["url"] + "done", json={"sheet": sheet["id"], "doubted": [], "seconds": 9}, timeout=10).raise_for_status()
    assert consensus(workspace=workspace, quiet=True)["status"]["triaged"] == len(sheet["tiles"])
    monkeypatch.setattr("risbench.refine.masks.scores_better", lambda new, old: True)
    notes = refine_masks(workspace=workspace, engine="box", workers=1, quiet=True)["notes"]
    assert (notes["triaged_made_anew"], notes.get("triaged_kept")) == (len(sheet["tiles"]), None)
    assert not any(record.review.status == "triaged" for record in read_records(Workspace.open(workspace).latest()))
    with pytest.raises(InputError, match="nothing to release"):
        export(workspace=workspace, split=str(tmp_path / "split.csv"), quiet=True)


def test_odd_answers_and_options_are_refused_and_a_cut_line_spoils_nothing(workspace: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    with triaging("ana", split=split, share=1.0, workspace=workspace) as found:
        sheet = requests.get(found["url"] + "next", timeout=10).json()
        assert requests.get(f"{found['url']}tile/0", params={"sheet": sheet["id"]}, timeout=10).content[:2] == b"\xff\xd8"
        assert requests.get(f"{found['url']}tile/0", params={"sheet": "other"}, timeout=10).status_code == 404
        assert requests.get(f"{found['url']}tile/20", params={"sheet": sheet["id"]}, timeout=10).status_code == 404
        done = {"sheet": sheet["id"], "doubted": [0], "seconds": 30}
        assert requests.post(found["url"] + "done", json=done, timeout=10).status_code == 409  # 19 tiles were not on the screen
        look(found["url"], sheet)
        for body, code in (
            ({"sheet": sheet["id"], "doubted": [], "seconds": -1}, 422),
            ({"sheet": "other", "doubted": [], "seconds": 1}, 409),
            ({"sheet": sheet["id"], "doubted": [99], "seconds": 1}, 409),
            ({"sheet": sheet["id"], "doubted": "all", "seconds": 1}, 422),
            ({"sheet": sheet["id"], "doubted": [0], "seconds": 30}, 200),
            ({"sheet": sheet["id"], "doubted": [0], "seconds": 30}, 409),
        ):
            assert requests.post(found["url"] + "done", json=body, timeout=10).status_code == code
        path = workspace / "review" / "triage.jsonl"
        path.write_bytes(path.read_bytes()[:-25])
        assert len(read_triage_votes(ReviewStore(Workspace.open(workspace)))) == 19
        other = requests.get(found["url"] + "next", timeout=10).json()
        look(found["url"], other)
        body = {"sheet": other["id"], "doubted": [], "seconds": 1}
        assert requests.post(found["url"] + "done", json=body, timeout=10).status_code == 200
        assert len(read_triage_votes(ReviewStore(Workspace.open(workspace)))) == 19 + len(other["tiles"])
    for options, error, said in (
        ({"share": 0.0}, OptionError, "--share 0.0: must lie between 0 and 1"),
        ({"split": tmp_path / "none.csv"}, InputError, "cannot be read"),
        ({"person": "zoe"}, InputError, "annotator zoe: is not known here"),
    ):
        words = {"person": "ana", "split": split, "workspace": workspace, **options}
        with pytest.raises(error, match=said), triaging(**words):
            pass
