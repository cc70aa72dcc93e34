"""A lab at work on the real server: second opinions, gold, experts, score cards, and what it comes to in the records."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from risbench.core.masks import decode_rle, encode_rle, mask_of
from risbench.core.workspace import REVIEW, Workspace, read_records
from risbench.formats.brush import decode_brush, encode_brush
from risbench.inspect.validate import validate
from risbench.refine import refine_masks
from risbench.review.labelstudio.accounts import pause_annotator
from risbench.review.rules.plan import Item, Policy
from risbench.review.store.answers import read_answers
from risbench.review.store.review_store import ReviewStore
from risbench.review.verbs.adjudicate import adjudicate
from risbench.review.verbs.consensus import consensus
from risbench.review.verbs.pull import pull
from risbench.review.verbs.push import push
from risbench.review.verbs.status import status
from tests.conftest import cli, tree_bytes
from tests.review.lab import ACCEPT, FIX, REJECT, UNSURE, brush, choice, people, text

Lab = Callable[..., Path]
Decide = Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]


def shown_mask(task: dict[str, Any]) -> np.ndarray:
    region = next(region for region in task["predictions"][0]["result"] if region["type"] == "brushlabels")
    return decode_brush(region["value"]["rle"], region["original_height"], region["original_width"]) > 127


def items_of(workspace: Path) -> dict[str, Item]:
    return {item.key: item for item in ReviewStore(Workspace.open(workspace)).queue()}


def rewrite_masks(workspace: Path, count: int) -> None:
    """Make the first records' masks the source's own, as of data that came with masks: their answer is known."""
    left = count

    def change(row: dict[str, Any]) -> None:
        nonlocal left
        if left and row["mask"] and not row["problems"]:
            row["mask"]["engine"] = "source"
            left -= 1

    rewrite(workspace, change)


def rewrite(workspace: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the records of the newest round."""
    from risbench.core.storage import sha256_of_file

    folder = Workspace.open(workspace).finished_rounds()[-1]
    summary = json.loads((folder / "run.json").read_bytes())
    for part in summary["parts"]:
        path = folder / part["name"]
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            change(row)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        part["sha256"] = sha256_of_file(path)
    (folder / "run.json").write_text(json.dumps(summary))


def test_answers_become_decisions_and_the_next_round_leaves_them_alone(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=8, overlap=0, gold=0), quiet=True)
    drawn = np.zeros((512, 512), bool)
    drawn[30:90, 40:100] = True
    ways: list[tuple[str, dict[str, Any]]] = [
        (ACCEPT, {}),
        (FIX, {"mask": encode_brush(drawn)}),
        (REJECT, {}),
        (ACCEPT, {"regions": [choice("sentence", "ambiguous")]}),
        (ACCEPT, {"regions": [choice("sentence", "wrong"), {"id": "b", "type": "textarea", "from_name": "better", "to_name": "image", "value": {"text": ["The pier."]}}]}),
    ]  # fmt: skip
    keys = []
    for verdict, more in ways:
        task = ana.next()
        assert task is not None
        keys.append(task["data"]["key"])
        ana.answer(task, verdict, *more.get("regions", ()), mask=[brush(task, more["mask"])] if "mask" in more else None)
    pull(workspace=workspace, quiet=True)
    first = consensus(workspace=workspace, quiet=True)
    assert {key: first["status"][key] for key in ("accepted", "corrected", "rejected")} == {"accepted": 3, "corrected": 1, "rejected": 1}
    assert consensus(workspace=workspace, quiet=True)["state"] == "up to date"
    items = items_of(workspace)
    decided = {record.id: record for record in read_records(workspace / REVIEW)}
    accepted, corrected, rejected, ambiguous, reworded = (decided[items[key].record] for key in keys)
    assert corrected.mask is not None
    assert np.array_equal(mask_of(corrected.mask), drawn)
    assert (corrected.mask.engine, accepted.mask and accepted.mask.engine) == ("review", "grabcut")
    assert rejected.review.votes == {"reject": 1}
    assert ambiguous.expression is not None
    assert (ambiguous.expression.is_true, ambiguous.expression.is_unique) == (True, False)
    assert reworded.expression is not None
    assert (reworded.expression.text, reworded.expression.origin, reworded.expression.is_true) == ("The pier.", "review", True)
    assert all(name.startswith("a-") for name in accepted.review.reviewers)
    assert "ana" not in (workspace / REVIEW / "part-00000.jsonl").read_text()
    assert not validate(workspace=workspace, quiet=True)["faults"]
    # the next round carries decisions over and makes new masks for the rest; it is what counts from then on
    refine_masks(workspace=workspace, engine="box", quiet=True)
    latest = {record.id: record for record in read_records(Workspace.open(workspace).latest())}
    assert Workspace.open(workspace).latest().name == "round-2"
    for record in (accepted, corrected, rejected, ambiguous, reworded):
        assert latest[record.id] == record
    assert {record.mask.engine for record in latest.values() if record.mask and record.review.status == "unreviewed"} == {"box"}
    # what a person decides later is decided on the newest masks
    again = consensus(workspace=workspace, quiet=True)
    assert again["status"] == first["status"]
    assert {record.id: record for record in read_records(workspace / REVIEW)} == latest


def test_what_people_drew_and_wrote_stays_where_an_engine_finds_nothing(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=1, overlap=0, gold=0), quiet=True)
    task = ana.next()
    assert task is not None
    drawn = np.zeros((512, 512), bool)
    drawn[50:90, 60:130] = True
    ana.answer(task, FIX, choice("sentence", "wrong"), text("better", "The house by the road."), mask=[brush(task, encode_brush(drawn))])
    pull(workspace=workspace, quiet=True)
    name = items_of(workspace)[task["data"]["key"]].record

    def lose(row: dict[str, Any]) -> None:
        if row["id"] == name:
            row["mask"] = None
            row["problems"] = [{"stage": "refine", "code": "mask_empty", "detail": "mask: nothing found"}]
            row["attributes"]["color"] = {"value": "red", "origin": "sentence"}
            row["attributes"]["size"] = {"value": "small", "origin": "field"}

    rewrite(workspace, lose)
    assert consensus(workspace=workspace, quiet=True)["answers_to_unknown_records"] == 0
    [record] = [record for record in read_records(workspace / REVIEW) if record.id == name]
    assert record.mask is not None
    assert (record.mask.engine, record.problems, record.review.status) == ("review", (), "corrected")
    assert np.array_equal(mask_of(record.mask), drawn)
    assert record.expression is not None
    assert record.expression.text == "The house by the road."
    assert record.attributes.color is None
    assert record.attributes.size is not None


def test_another_expert_takes_over_and_a_doubted_annotator_is_asked_after(lab: Lab) -> None:
    workspace = lab()
    crew = people(workspace, "ana", "ben", "eva", "fay")
    desk = ReviewStore(Workspace.open(workspace))
    for expert in ("eva", "fay"):
        desk.change_annotator(expert, paused=True)
    push(workspace=workspace, policy=Policy(count=4, overlap=0, gold=0), quiet=True)
    alone = {name: crew[name].work(lambda task: (ACCEPT, {})) for name in ("ana", "ben")}
    pull(workspace=workspace, quiet=True)
    assert consensus(workspace=workspace, quiet=True)["status"]["accepted"] == 4
    pause_annotator("ana", workspace=workspace, recheck=True)
    again = push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)
    assert again["new"] == alone["ana"]
    assert push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)["new"] == 0
    assert consensus(workspace=workspace, quiet=True)["waiting"] == alone["ana"]
    crew["ben"].work(lambda task: (REJECT, {}))
    pull(workspace=workspace, quiet=True)
    assert push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)["new"] == 0
    assert consensus(workspace=workspace, quiet=True)["to_adjudicate"] == {"verdicts differ": alone["ana"]}
    assert adjudicate("eva", workspace=workspace, quiet=True)["sent"] == alone["ana"]
    assert adjudicate("fay", workspace=workspace, quiet=True)["skipped"]["before another expert"] == alone["ana"]
    assert adjudicate("fay", take_over="eva", workspace=workspace, quiet=True)["sent"] == alone["ana"]
    project = next(person.expert_project for person in desk.annotators() if person.name == "eva")
    assert crew["eva"].session.get(f"{crew['eva'].base}/api/projects/{project}/next", timeout=60).status_code == 404


def test_a_second_opinion_on_a_corrected_mask_is_read_after_the_consensus_has_taken_it_back(lab: Lab) -> None:
    workspace = lab()
    crew = people(workspace, "ana", "ben")
    desk = ReviewStore(Workspace.open(workspace))
    desk.change_annotator("ben", paused=True)
    push(workspace=workspace, policy=Policy(count=1, overlap=0, gold=0), quiet=True)
    drawn = np.zeros((512, 512), bool)
    drawn[40:90, 40:80] = True
    crew["ana"].work(lambda task: (FIX, {"mask": [brush(task, encode_brush(drawn))]}))
    pull(workspace=workspace, quiet=True)
    assert consensus(workspace=workspace, quiet=True)["status"]["corrected"] == 1
    desk.change_annotator("ben", paused=False)
    pause_annotator("ana", workspace=workspace, recheck=True)
    assert push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)["new"] == 1
    assert consensus(workspace=workspace, quiet=True)["waiting"] == 1  # and the record has the engine's mask again
    task = crew["ben"].next()
    assert task is not None
    assert np.array_equal(shown_mask(task), drawn)
    crew["ben"].answer(task, ACCEPT)
    back = pull(workspace=workspace, quiet=True)
    assert (back["new"], back["quarantined"]) == (1, 0)
    assert consensus(workspace=workspace, quiet=True)["status"]["corrected"] == 1


def test_unsure_waits_for_the_next_push_while_others_can_be_asked(lab: Lab) -> None:
    workspace = lab()
    crew = people(workspace, "ana", "ben", "eva")
    ReviewStore(Workspace.open(workspace)).change_annotator("eva", paused=True)
    push(workspace=workspace, policy=Policy(count=1, overlap=0, gold=0), quiet=True)
    [asked] = {item.annotator for item in items_of(workspace).values()}
    crew[asked].work(lambda task: (UNSURE, {}))
    pull(workspace=workspace, quiet=True)
    found = consensus(workspace=workspace, quiet=True)
    assert (found["waiting"], found["to_adjudicate"]) == (1, {})
    assert adjudicate("eva", workspace=workspace, quiet=True)["tasks"] == 0
    push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)
    crew[{"ana": "ben", "ben": "ana"}[asked]].work(lambda task: (ACCEPT, {}))
    pull(workspace=workspace, quiet=True)
    found = consensus(workspace=workspace, quiet=True)  # nobody is left who has not seen it
    assert (found["waiting"], found["to_adjudicate"]) == (0, {"unsure": 1})


def test_second_opinions_agree_or_an_expert_decides(lab: Lab) -> None:
    workspace = lab()
    crew = people(workspace, "ana", "ben", "cem", "eva")
    desk = ReviewStore(Workspace.open(workspace))
    desk.change_annotator("eva", paused=True)
    push(workspace=workspace, policy=Policy(count=6, overlap=1.0, gold=0), quiet=True)
    items = items_of(workspace)
    names = sorted({item.record for item in items.values()})
    agreeing, differing, unsure = names[:3], names[3:5], names[5]

    def decide(who: str) -> Decide:
        def answer(task: dict[str, Any]) -> tuple[str, dict[str, Any]]:
            record = items_of(workspace)[task["data"]["key"]].record
            mask = shown_mask(task)
            if record in differing:
                mask = np.roll(mask, 60 if who < "b" else 0, axis=1)
                return FIX, {"mask": [brush(task, encode_brush(mask))]}
            if record == unsure and who == first_of(unsure):
                return UNSURE, {}
            return ACCEPT, {}

        return answer

    def first_of(record: str) -> str:
        return min(item.annotator for item in items.values() if item.record == record)

    workers = ("ana", "ben", "cem")
    for who in workers:
        crew[who].work(decide(who))
    pull(workspace=workspace, quiet=True)
    push(workspace=workspace, policy=Policy(count=0, overlap=1.0, gold=0), quiet=True)
    assert sum(item.record == unsure for item in items_of(workspace).values()) == 3
    for who in workers:
        crew[who].work(decide(who))
    pull(workspace=workspace, quiet=True)
    found = consensus(workspace=workspace, quiet=True)
    assert found["status"]["accepted"] == len(agreeing) + sum(not _differs(items, record) for record in differing)
    open_ = {"unsure": 1, **({"masks differ": n} if (n := sum(_differs(items, record) for record in differing)) else {})}
    assert found["to_adjudicate"] == open_
    assert adjudicate("ana", workspace=workspace, quiet=True)["skipped"]["answered by this expert before"] > 0
    out = adjudicate("eva", workspace=workspace, quiet=True)
    assert out["sent"] == sum(open_.values())
    assert adjudicate("eva", workspace=workspace, quiet=True)["sent"] == 0
    experts = json.loads((desk.root / "annotators.json").read_text())
    project = next(row["expert_project"] for row in experts if row["name"] == "eva")
    final = np.zeros((512, 512), bool)
    final[200:300, 10:60] = True
    while (reply := crew["eva"].session.get(f"{crew['eva'].base}/api/projects/{project}/next", timeout=60)).status_code == 200:
        task = reply.json()
        regions = task["predictions"][0]["result"]
        letters = [region["value"]["brushlabels"][0] for region in regions if region["type"] == "brushlabels"]
        assert letters == ["A", "B", "C", "D"][: len(letters)]
        assert "masks: A by" in task["data"]["votes"]
        own = {
            **regions[0],
            "id": "own",
            "from_name": "mask",
            "value": {"format": "rle", "rle": encode_brush(final), "brushlabels": ["object"]},
        }
        picks_a = items_of(workspace)[task["data"]["key"]].record == unsure
        body = {"result": [*regions, *([] if picks_a else [own]), choice("final", "A" if picks_a else "drawn")], "lead_time": 20}
        assert crew["eva"].send("POST", f"/api/tasks/{task['id']}/annotations/", body).status_code == 201
    pull(workspace=workspace, quiet=True)
    done = consensus(workspace=workspace, quiet=True)
    assert done["to_adjudicate"] == {}
    assert done["status"]["adjudicated"] == sum(open_.values())
    records = {record.id: record for record in read_records(workspace / REVIEW)}
    for record in differing:
        if _differs(items, record):
            stored = records[record].mask
            assert stored is not None
            assert (stored.size, stored.counts) == encode_rle(final)
    kept = records[unsure].mask
    assert kept is not None
    assert decode_rle(kept.size, kept.counts).any()
    before = tree_bytes(workspace / REVIEW)
    for path in (desk.root / "answers").glob("*.jsonl"):  # another order of the same answers
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    consensus(workspace=workspace, quiet=True)
    assert tree_bytes(workspace / REVIEW) == before


def _differs(items: dict[str, Item], record: str) -> bool:
    """Whether one of the two who were asked moves this mask and the other does not."""
    return len({item.annotator < "b" for item in items.values() if item.record == record}) == 2


def test_whoever_accepts_everything_is_named_within_thirty_gold_items_and_nobody_else_is(lab: Lab) -> None:
    workspace = lab()
    rewrite_masks(workspace, 30)
    crew = people(workspace, "careless", "careful", "refuser", "doubter")
    push(workspace=workspace, policy=Policy(overlap=1.0, gold=1.0, trust_source=True), quiet=True)
    items = items_of(workspace)
    truth = {record.id: mask_of(record.mask) for record in read_records(Workspace.open(workspace).latest()) if record.mask}
    for who in crew:
        gold = [item for item in items.values() if item.annotator == who and item.kind == "gold"]
        assert 10 <= len(gold) <= 30
        assert abs(sum(item.wrong for item in gold) - len(gold) / 2) <= 1

    def looks(task: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        right = truth[items[task["data"]["key"]].record]
        if np.array_equal(shown_mask(task), right):
            return ACCEPT, {"seconds": 6.0}
        return FIX, {"mask": [brush(task, encode_brush(right))], "seconds": 30.0}

    crew["careless"].work(lambda task: (ACCEPT, {"seconds": 1.0}))
    crew["careful"].work(looks)
    crew["refuser"].work(lambda task: (REJECT, {"seconds": 1.0}))
    crew["doubter"].work(lambda task: (UNSURE, {"seconds": 1.0}))
    pull(workspace=workspace, quiet=True)
    found = status(workspace=workspace)
    assert found["pause"] == ["careless", "refuser"]
    doubter = found["annotators"]["doubter"]
    assert (doubter["share_unsure"], doubter["gold"], found["annotators"]["refuser"]["share_rejected"]) == (1.0, 0, 1.0)
    careless, careful = found["annotators"]["careless"], found["annotators"]["careful"]
    assert careless["wrong_masks_missed"] == sum(item.wrong for item in items.values() if item.annotator == "careless") >= 4
    assert (careful["gold_right"], careful["wrong_masks_missed"]) == (1.0, 0)
    assert careless["seconds_each"] == 1.0
    assert careful["seconds_each"] > 6
    assert found["hours_left"] == 0
    assert found["answered"] == found["planned"]
    agreement = found["agreement"]
    assert agreement["records"] > 0
    assert agreement["iou"] is not None
    printed = cli("review", "status", "-w", workspace)
    assert printed.returncode == 0
    assert "risbench review annotators pause careless" in printed.stdout
    [row] = [line.split() for line in printed.stdout.splitlines() if line.startswith("careless") and line.endswith("PAUSE")]
    assert row[4:7] == [str(careless[name]) for name in ("gold", "gold_right", "wrong_masks_missed")]
    # gold is no data: nothing of it reaches the records
    consensus(workspace=workspace, quiet=True)
    reviewed = {record.id for record in read_records(workspace / REVIEW) if record.review.status != "unreviewed"}
    assert not reviewed & {item.record for item in items.values() if item.kind == "gold"}


def test_task_data_tell_gold_from_tasks_by_nothing(lab: Lab) -> None:
    workspace = lab()
    rewrite_masks(workspace, 20)
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(overlap=0, gold=0.3, trust_source=True), quiet=True)
    items = items_of(workspace)
    forms: dict[str, set[str]] = {"gold": set(), "task": set()}
    seen = 0
    while (task := ana.next()) is not None and seen < 25:
        seen += 1
        item = items[task["data"]["key"]]
        regions = task["predictions"][0]["result"]
        form = [sorted(task["data"]), [sorted(region) for region in regions], [region["id"] for region in regions], task["meta"]]
        forms[item.kind].add(json.dumps([form, task["predictions"][0]["model_version"], task["predictions"][0]["score"]]))
        ana.answer(task, ACCEPT)
    assert forms["gold"] == forms["task"] != set()


def test_a_login_does_not_say_who_it_is(lab: Lab) -> None:
    workspace = lab()
    crew = people(workspace, "ana", "ben")
    assert crew["ana"].login != crew["ben"].login
    assert "ana" not in crew["ana"].login


def test_many_at_once_lose_no_acknowledged_work(lab: Lab) -> None:
    """Eight people for a while; experiments/review_server.py has fifty for two minutes."""
    workspace = lab()
    crew = people(workspace, *(f"p{index}" for index in range(8)))
    push(workspace=workspace, policy=Policy(overlap=1.0, gold=0), quiet=True)
    acknowledged: dict[str, list[int]] = {name: [] for name in crew}

    def work(name: str) -> None:
        for _ in range(6):
            task = crew[name].next()
            if task is None:
                return
            try:
                acknowledged[name].append(crew[name].answer(task, ACCEPT))
            except AssertionError:
                continue  # a call that SQLite was too busy for is not acknowledged

    threads = [threading.Thread(target=work, args=(name,)) for name in crew]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        pull(workspace=workspace, quiet=True)  # people are pulled while they work
    pull(workspace=workspace, quiet=True)
    kept = {(answer.annotator, answer.annotation) for answer in read_answers(ReviewStore(Workspace.open(workspace)))}
    assert kept >= {(name, number) for name, numbers in acknowledged.items() for number in numbers}
    assert sum(map(len, acknowledged.values())) >= 24
