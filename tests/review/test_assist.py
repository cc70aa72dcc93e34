"""A box or point on the page comes back as a mask, through the real server."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from playwright.sync_api import Page

pytest.importorskip("torch", reason="the sam extra is not installed")

from risbench.core.errors import InputError
from risbench.core.geometry import box_iou, mask_bounds
from risbench.core.workspace import Workspace, read_records
from risbench.formats.brush import decode_brush
from risbench.review.labelstudio.server import ASSIST_HOST, banned_networks
from risbench.review.rules.plan import Policy
from risbench.review.store.answers import read_answers
from risbench.review.store.review_store import ReviewStore
from risbench.review.verbs.assist import assisting
from risbench.review.verbs.pull import pull
from risbench.review.verbs.push import push
from tests.review.lab import Person, people
from tests.review.screen import needs_chromium, open_project, picture_box, submit


def ask(person: Person, backend: int, task: int, region: dict[str, Any]) -> requests.Response:
    """Send what the page sends when a smart tool was used."""
    return person.send("POST", f"/api/ml/{backend}/interactive-annotating", {"task": task, "context": {"result": [region]}})


def drawn(name: str, **value: float) -> dict[str, Any]:
    kind = "rectangle" if name == "ask_box" else "keypoint"
    return {"id": "x", "type": kind, "from_name": name, "to_name": "image", "original_width": 512, "original_height": 512, "value": value}


def test_projects_that_come_while_it_runs_are_connected_too(lab: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("risbench.review.verbs.assist._LOOK_AGAIN_S", 0.2)
    workspace = lab()
    people(workspace, "ana")
    push(workspace=workspace, policy=Policy(count=4, overlap=0, gold=0), quiet=True)
    with assisting(workspace) as found:
        ben = people(workspace, "ben")["ben"]
        push(workspace=workspace, policy=Policy(count=4, overlap=0, gold=0), quiet=True)
        assert ben.project not in found["projects"]
        until = time.monotonic() + 60
        while not ben.session.get(f"{ben.base}/api/ml/", params={"project": ben.project}, timeout=30).json():
            assert time.monotonic() < until
            time.sleep(0.2)
    assert ben.session.get(f"{ben.base}/api/ml/", params={"project": ben.project}, timeout=30).json() == []


def test_boxes_and_points_come_back_as_masks_within_a_second(lab: Callable[..., Path]) -> None:
    workspace = lab()
    with pytest.raises(InputError, match="nobody has a project yet"), assisting(workspace):
        pass
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=4, overlap=0, gold=0), quiet=True)
    task = ana.next()
    assert task is not None
    items = {item.key: item.record for item in ReviewStore(Workspace.open(workspace)).queue()}
    record = {record.id: record for record in read_records(Workspace.open(workspace).latest())}[items[task["data"]["key"]]]
    x_min, y_min, x_max, y_max = record.targets[0].box
    box = drawn("ask_box", x=x_min / 5.12, y=y_min / 5.12, width=(x_max - x_min) / 5.12, height=(y_max - y_min) / 5.12)
    point = drawn("ask_point", x=(x_min + x_max) / 10.24, y=(y_min + y_max) / 10.24, width=1)
    with assisting(workspace) as found:
        assert found["url"].startswith(f"http://{ASSIST_HOST}:")
        assert requests.get(f"{found['url']}/health", timeout=10).status_code == 401
        assert requests.post(f"{found['url']}/predict", json={}, auth=("risbench", "guess"), timeout=10).status_code == 401
        [backend] = [row["id"] for row in ana.session.get(f"{ana.base}/api/ml/", params={"project": ana.project}, timeout=30).json()]
        ask(ana, backend, task["id"], box)  # the first one loads the picture
        for region in (box, point):
            began = time.monotonic()
            reply = ask(ana, backend, task["id"], region)
            seconds = time.monotonic() - began
            assert reply.status_code == 200, reply.text[:300]
            [brush] = reply.json()["data"]["result"]
            assert (brush["from_name"], brush["value"]["brushlabels"]) == ("mask", ["object"])
            mask = decode_brush(brush["value"]["rle"], 512, 512) > 127
            bounds = mask_bounds(mask)
            assert bounds is not None
            assert box_iou(bounds, record.targets[0].box) > 0.25
            assert np.count_nonzero(mask) > 20
            assert seconds < 3  # one second alone on two cores; tests run side by side
        bad = ask(ana, backend, task["id"], drawn("ask_box", x=10, y=10, width=0, height=5))
        assert "errors" in bad.json()
    assert not ana.session.get(f"{ana.base}/api/ml/", params={"project": ana.project}, timeout=30).json()


@needs_chromium
def test_an_annotator_asks_with_a_box_and_a_point(lab: Callable[..., Path], page: Page, tmp_path: Path) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=2, overlap=0, gold=0), quiet=True)
    items = {item.key: item.record for item in ReviewStore(Workspace.open(workspace)).queue()}
    records = {record.id: record for record in read_records(Workspace.open(workspace).latest())}
    with assisting(workspace):
        open_project(page, ana, ana.project)
        page.get_by_text("Auto-Annotation").click()
        for way in ("box", "point"):
            record = records[items[page.evaluate("Htx.task.dataObj.key")]]
            picture = picture_box(page)
            scale = picture["width"] / record.image.width
            x_min, y_min, x_max, y_max = (value * scale for value in record.targets[0].box)
            # the mask is hopeless: away with it
            page.get_by_text("object", exact=True).last.click()
            page.keyboard.press("Backspace")
            page.keyboard.press("s" if way == "box" else "k")
            page.wait_for_timeout(500)
            page.keyboard.down("Control")  # so that what lies there is not taken hold of
            if way == "box":
                page.mouse.move(picture["x"] + x_min + 1, picture["y"] + y_min + 1)
                page.mouse.down()
                page.mouse.move(picture["x"] + x_max - 1, picture["y"] + y_max - 1, steps=6)
                page.mouse.up()
            else:
                page.mouse.click(picture["x"] + (x_min + x_max) / 2, picture["y"] + (y_min + y_max) / 2)
            page.keyboard.up("Control")
            page.get_by_text("1 suggestions").wait_for(timeout=30_000)
            page.screenshot(path=tmp_path / f"{way}.png")
            page.locator("[class*=auto-accept] button").last.click()
            page.keyboard.press("f")
            submit(page, last=way == "point")
    assert pull(workspace=workspace, quiet=True)["new"] == 2
    for answer in read_answers(ReviewStore(Workspace.open(workspace))):
        mask = answer.mask()
        assert (answer.verdict, answer.changed) == ("fix", True)
        assert mask is not None
        bounds = mask_bounds(mask)
        assert bounds is not None
        assert box_iou(bounds, records[answer.record].targets[0].box) > 0.25


def test_the_server_may_call_the_assistant_and_nothing_else_that_is_private() -> None:
    banned = [ip_network(name) for name in banned_networks()]
    for address, allowed in (
        (ASSIST_HOST, True), ("93.184.216.34", True), ("127.0.0.1", False), ("127.0.0.76", False), ("127.0.0.78", False), ("127.255.0.1", False),
        ("10.0.0.1", False), ("169.254.169.254", False), ("192.168.1.1", False), ("::1", False), ("fe80::1", False),
    ):  # fmt: skip
        assert any(ip_address(address) in network for network in banned) != allowed, address
