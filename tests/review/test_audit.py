"""The audit sample: blind, on the real server, and honest about what it finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from risbench.core.errors import InputError, OptionError
from risbench.core.masks import encode_rle, mask_of
from risbench.core.metrics import wilson
from risbench.core.record import Record
from risbench.core.workspace import Workspace, read_records
from risbench.export import export
from risbench.formats.audit_sample import Audited, AuditSample, summary_of
from risbench.formats.brush import encode_brush
from risbench.review.labelstudio.accounts import add_annotators
from risbench.review.labelstudio.projects import renew_project
from risbench.review.rules.plan import Policy
from risbench.review.store.answers import read_answers
from risbench.review.store.review_store import ReviewStore
from risbench.review.verbs.audit import audit_sample
from risbench.review.verbs.consensus import consensus
from risbench.review.verbs.pull import pull
from risbench.review.verbs.push import push
from tests.conftest import cli
from tests.review.lab import ACCEPT, Person, choice, people
from tests.review.screen import assert_fits, needs_chromium, open_project, picture_box, submit

Lab = Callable[..., Path]


class Auditor(Person):
    """Somebody who draws on the audit's page."""

    @property
    def project(self) -> int:
        rows = json.loads((self.workspace / "review" / "annotators.json").read_text())
        return int(next(row["audit_project"] for row in rows if row["name"] == self.name))

    def draw(self, task: dict[str, Any], mask: np.ndarray | None, said: str = "drawn") -> None:
        height, width = (512, 512) if mask is None else mask.shape
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        regions = [choice("audit", said)]
        if mask is not None:
            value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": ["object"]}
            regions.append({"id": "drawn", "type": "brushlabels", "from_name": "mask", "to_name": "image", **size, "value": value})
        reply = self.send("POST", f"/api/tasks/{task['id']}/annotations/", {"result": regions, "lead_time": 9.0})
        assert reply.status_code == 201, reply.text[:300]


def reviewed(lab: Lab, *names: str) -> Path:
    """Return a workspace in which ana accepted every mask."""
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(overlap=0, gold=0), quiet=True)
    ana.work(lambda task: (ACCEPT, {"seconds": 3.0}))
    pull(workspace=workspace, quiet=True)
    consensus(workspace=workspace, quiet=True)
    if names:
        add_annotators(names, workspace=workspace)
    return workspace


def masks_of(workspace: Path) -> dict[str, Record]:
    return {record.id: record for record in read_records(Workspace.open(workspace).latest()) if record.mask}


def test_what_is_found_is_on_the_card_and_decides_nothing(lab: Lab) -> None:
    workspace = reviewed(lab, "ben", "cleo")
    first = audit_sample(["ana", "ben", "cleo"], count=20, workspace=workspace, quiet=True)
    assert (first["sample"], first["drawn"], first["result"]) == (20, 0, None)
    assert set(first["waiting"]) == {"ben", "cleo"}, "ana has seen every mask"
    assert sum(first["waiting"].values()) == first["sent"] == 20
    assert abs(first["waiting"]["ben"] - first["waiting"]["cleo"]) <= 1
    answers = len(read_answers(ReviewStore(Workspace.open(workspace))))
    records = masks_of(workspace)
    by_key = {json.loads(line)["key"]: json.loads(line) for line in (workspace / "review/audit/plan.jsonl").read_text().splitlines()}
    outcomes = []
    for name in ("ben", "cleo"):
        who = Auditor(workspace, name)
        done = 0
        while (task := who.next()) is not None:
            assert set(task["data"]) == {"image", "expression", "key"}
            assert task["predictions"] == [], "nothing to start from"
            record = records[by_key[task["data"]["key"]]["record"]]
            right = mask_of(record.mask)  # type: ignore[arg-type]
            if name == "cleo" and done == 0:
                who.draw(task, None, "cannot tell")
                outcomes.append("cannot tell")
            elif name == "cleo" and done == 1:
                who.draw(task, np.roll(right, 250, axis=1) & ~right)
                outcomes.append("wrong object")
            else:
                who.draw(task, right)
                outcomes.append("good")
            done += 1
    found = audit_sample(["ana", "ben", "cleo"], count=20, workspace=workspace, quiet=True)
    assert (found["sample"], found["drawn"], found["sent"], found["waiting"]) == (20, 20, 0, {})
    result = found["result"]
    assert result["outcomes"] == {name: outcomes.count(name) for name in ("good", "imprecise", "wrong object", "cannot tell")}
    assert (result["defects"], result["share"]) == (2, 0.1)
    assert result["interval"] == [round(value, 4) for value in wilson(2, 20)]
    assert (result["auditors"], result["population"]) == (2, len(records))
    # it decides nothing: neither pull nor consensus sees any of it
    pull(workspace=workspace, quiet=True)
    assert len(read_answers(ReviewStore(Workspace.open(workspace)))) == answers
    before = (workspace / "3-review" / "run.json").read_bytes()
    consensus(workspace=workspace, quiet=True)
    assert json.loads(before)["parts"] == json.loads((workspace / "3-review" / "run.json").read_bytes())["parts"]
    made = export(workspace=workspace, split="scene", quiet=True)
    assert made["audit_sample"]["defects"] == 2
    card = (Path(made["path"]) / "README.md").read_text()
    assert "**10.0% [2.8%, 30.1%] are defects**" in card
    assert "cleo" not in card
    printed = cli("review", "audit-sample", "ben", "cleo", "--count", "20", "-w", workspace)
    assert "defects: 2 of 20, 10.0% [2.8%, 30.1%]" in printed.stdout
    # a larger sample holds the smaller one
    more = audit_sample(["ben"], count=25, workspace=workspace, quiet=True)
    assert (more["sample"], more["drawn"], more["sent"], more["waiting"]) == (25, 20, 5, {"ben": 5})


def test_a_mask_that_is_mended_after_the_audit_counts_as_it_was_found(lab: Lab) -> None:
    workspace = reviewed(lab, "ben")
    audit_sample(["ben"], count=4, workspace=workspace, quiet=True)
    ben = Auditor(workspace, "ben")
    drawn = {}
    plan = [json.loads(line) for line in (workspace / "review/audit/plan.jsonl").read_text().splitlines()]
    by_key = {row["key"]: row["record"] for row in plan}
    while (task := ben.next()) is not None:
        record = masks_of(workspace)[by_key[task["data"]["key"]]]
        wrong = np.zeros((512, 512), bool)
        wrong[:40, :40] = True
        drawn[record.id] = wrong
        ben.draw(task, wrong)
    assert audit_sample(["ben"], count=4, workspace=workspace, quiet=True)["result"]["defects"] == 4
    review = workspace / "3-review"
    for part in sorted(review.glob("part-*.jsonl")):
        rows = [json.loads(line) for line in part.read_text().splitlines()]
        for row in rows:
            if row["id"] in drawn:
                row["mask"]["counts"] = encode_rle(drawn[row["id"]])[1]
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
        summary = json.loads((review / "run.json").read_text())
        from risbench.core.storage import sha256_of_file

        next(of for of in summary["parts"] if of["name"] == part.name)["sha256"] = sha256_of_file(part)
        (review / "run.json").write_text(json.dumps(summary))
    assert audit_sample(["ben"], count=4, workspace=workspace, quiet=True)["result"]["defects"] == 4
    made = export(workspace=workspace, split="scene", quiet=True)
    assert (made["audit_sample"]["defects"], made["audit_sample"]["changed_since"]) == (4, 4)
    assert "4 of these masks were changed since; they count as they were found" in (Path(made["path"]) / "README.md").read_text()


def test_when_more_is_reviewed_the_sample_is_of_all_of_it(lab: Lab) -> None:
    workspace = lab()
    crew = people(workspace, "ana", "ben")
    push(workspace=workspace, policy=Policy(overlap=0, gold=0), quiet=True)
    crew["ana"].work(lambda task: (ACCEPT, {"seconds": 3.0}))
    pull(workspace=workspace, quiet=True)
    consensus(workspace=workspace, quiet=True)
    half = audit_sample(["ben"], count=10, workspace=workspace, quiet=True)
    first = {json.loads(line)["record"] for line in (workspace / "review/audit/plan.jsonl").read_text().splitlines()}
    crew["ben"].work(lambda task: (ACCEPT, {"seconds": 3.0}))
    pull(workspace=workspace, quiet=True)
    consensus(workspace=workspace, quiet=True)
    whole = audit_sample(["ana", "ben"], count=10, workspace=workspace, quiet=True)
    second = {json.loads(line)["record"] for line in (workspace / "review/audit/plan.jsonl").read_text().splitlines()}
    assert whole["population"] > half["population"]
    assert len(first) == len(second) == 10
    assert first != second, "those reviewed later come in by the same lot"
    fresh = workspace / "review" / "audit"
    for path in fresh.iterdir():
        path.unlink()
    audit_sample(["ana", "ben"], count=10, workspace=workspace, quiet=True)
    assert {json.loads(line)["record"] for line in (fresh / "plan.jsonl").read_text().splitlines()} == second


def test_a_lost_project_keeps_what_was_drawn_and_renew_gives_another(lab: Lab) -> None:
    workspace = reviewed(lab, "ben")
    audit_sample(["ben"], count=3, workspace=workspace, quiet=True)
    ben = Auditor(workspace, "ben")
    task = ben.next()
    assert task is not None
    ben.draw(task, None, "cannot tell")
    assert audit_sample(["ben"], count=3, workspace=workspace, quiet=True)["drawn"] == 1
    assert ben.send("DELETE", f"/api/projects/{ben.project}/", None).status_code == 204
    lost = audit_sample(["ben"], count=3, workspace=workspace, quiet=True)
    assert lost["drawn"] == 1
    assert "annotators renew ben" in lost["warnings"][0]
    renew_project("ben", workspace=workspace)
    found = audit_sample(["ben"], count=3, workspace=workspace, quiet=True)
    assert (found["drawn"], found["sent"], found["waiting"]) == (1, 2, {"ben": 2})


def test_what_cannot_be_audited_is_said(lab: Lab) -> None:
    workspace = lab()
    people(workspace, "ana")
    with pytest.raises(InputError, match="nothing to audit: no reviewed mask"):
        audit_sample(["ana"], workspace=workspace, quiet=True)
    with pytest.raises(OptionError, match="--count 0"):
        audit_sample(["ana"], count=0, workspace=workspace, quiet=True)
    with pytest.raises(InputError, match="annotator zoe: is not known"):
        audit_sample(["zoe"], workspace=workspace, quiet=True)
    with pytest.raises(InputError, match="no audit sample has been drawn yet"):
        audit_sample([], workspace=workspace, quiet=True)
    other = reviewed(lambda: lab("other"))
    found = audit_sample(["ana"], count=5, workspace=other, quiet=True)
    assert found["sample"] == 0
    assert found["left_out_as_seen"] == found["population"] > 0


def test_the_interval_is_wilsons_and_every_kind_is_counted(tmp_path: Path) -> None:
    ious = [None, 0.0, 0.05, 0.5, 0.79, 0.8, 0.9, 1.0]
    rows = tuple(Audited(f"r{index}", "m", iou, "small", "accepted", "a-1") for index, iou in enumerate(ious))
    sample = AuditSample(100, 8, 0, rows)
    found = summary_of(sample)
    assert found is not None
    assert found["outcomes"] == {"good": 3, "imprecise": 2, "wrong object": 2, "cannot tell": 1}
    # Wilson 1927, by hand for 5 of 8
    assert found["interval"] == pytest.approx([0.3057, 0.8632], abs=1e-4)
    assert summary_of(sample, {"r5": "m", "r6": "other"})["changed_since"] == 1  # type: ignore[index]
    # what was found wrong and taken out still counts; what a list leaves out does not
    assert summary_of(sample, {})["removed_since"] == 8  # type: ignore[index]
    assert summary_of(sample, {}, excluded={f"r{index}" for index in range(8)}) is None
    (tmp_path / "audit.json").write_bytes(sample.to_bytes())
    assert AuditSample.read(tmp_path / "audit.json") == sample
    (tmp_path / "audit.json").write_bytes(sample.to_bytes()[:-20])
    with pytest.raises(InputError, match="is damaged"):
        AuditSample.read(tmp_path / "audit.json")


@needs_chromium
def test_an_auditor_draws_on_the_page(lab: Lab, page: Page, tmp_path: Path) -> None:
    workspace = reviewed(lab, "ben")
    audit_sample(["ben"], count=1, workspace=workspace, quiet=True)
    ben = Auditor(workspace, "ben")
    open_project(page, ben, ben.project)
    assert_fits(page, "drawn", "cannot tell", "filled box")
    page.get_by_text("filled box", exact=True).last.click()
    box = picture_box(page)
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"], steps=8)
    page.mouse.up()
    page.keyboard.press("d")
    page.screenshot(path=tmp_path / "audit.png")
    submit(page, last=True)
    found = audit_sample(["ben"], count=1, workspace=workspace, quiet=True)
    assert found["drawn"] == 1
    [row] = [json.loads(line) for line in (workspace / "review/audit/drawn.jsonl").read_text().splitlines()]
    assert row["iou"] is not None


def test_the_recipe_ends_with_a_reviewed_release_in_every_format(lab: Lab) -> None:
    from risbench.export.verify import verify
    from tests.test_pipelines import run

    workspace = reviewed(lab)
    first = export(workspace=workspace, split=".5,.25,.25", include_unreviewed=True, name="unreviewed", quiet=True)
    (workspace / "manifests" / "splits").mkdir(parents=True)
    (workspace / "manifests" / "splits" / "frozen.csv").write_bytes((Path(first["path"]) / "split.csv").read_bytes())
    for _ in range(2):  # again when more is reviewed: the newer release takes the older one's place
        done = run("risbench.sh", "release", workspace)
        assert done.returncode == 0, done.stderr
    release = workspace / "4-export" / "release"
    found = verify(release)
    assert found["faults"] == []
    assert set(found["formats"]) == {"risbench", "coco", "refer", "parquet", "webdataset", "yolo"}
    described = json.loads((release / "release.json").read_text())
    assert described["unreviewed"] == 0
    assert described["split_rule"] == "frozen"
    assert (release / "split.csv").read_bytes() == (Path(first["path"]) / "split.csv").read_bytes()
    assert (release.with_name("release-report") / "index.html").is_file()
