"""Work goes out and comes back, on the real server, whatever the network does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import requests

from risbench.core.errors import BusyError, InputError, MissingRequirementError, OptionError
from risbench.core.masks import mask_of
from risbench.core.storage import write_durably
from risbench.core.workspace import Workspace, read_records
from risbench.formats.brush import encode_brush
from risbench.refine import refine_masks
from risbench.review.labelstudio.accounts import add_annotators
from risbench.review.labelstudio.projects import renew_project
from risbench.review.labelstudio.server import connect
from risbench.review.labelstudio.studio import Studio
from risbench.review.rules.plan import Policy
from risbench.review.store.answers import read_answers
from risbench.review.store.review_store import ReviewStore
from risbench.review.verbs.consensus import consensus
from risbench.review.verbs.pull import _take_off, pull, quarantine_rows, reask
from risbench.review.verbs.push import push, reassign
from tests.conftest import cli
from tests.review.lab import ACCEPT, FIX, REJECT, UNSURE, Person, brush, choice, failing_proxy, keys_on_server, people

Lab = Callable[..., Path]
PLAIN = Policy(overlap=0, gold=0)


def planned(workspace: Path, name: str) -> set[str]:
    return {item.key for item in ReviewStore(Workspace.open(workspace)).queue() if item.annotator == name and not item.withdrawn}


def test_unedited_masks_come_back_bit_for_bit_with_their_times(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    out = push(workspace=workspace, policy=PLAIN, quiet=True)
    assert ana.work(lambda task: (ACCEPT, {"seconds": 4.5})) == out["planned"] == out["sent"] > 40
    back = pull(workspace=workspace, quiet=True)
    assert (back["new"], back["quarantined"], back["not_ours"]) == (out["planned"], 0, 0)
    masks = {record.id: record.mask for record in read_records(Workspace.open(workspace).latest())}
    for answer in read_answers(ReviewStore(Workspace.open(workspace))):
        assert (answer.size, answer.counts, answer.changed) == (masks[answer.record].size, masks[answer.record].counts, False)
        assert answer.lead_time_s == 4.5
    again = pull(workspace=workspace, quiet=True)
    assert (again["new"], again["changed"], again["unchanged"]) == (0, 0, out["planned"])


def test_the_riskiest_come_first_and_the_server_serves_them_so(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=PLAIN, quiet=True)
    items = {item.key: item for item in ReviewStore(Workspace.open(workspace)).queue()}
    met: list[float] = []
    for _ in range(12):
        task = ana.next()
        assert task is not None
        met.append(items[task["data"]["key"]].risk)
        ana.answer(task, ACCEPT)
    assert met == sorted((item.risk for item in items.values()), reverse=True)[:12]


def test_edits_verdicts_and_sentences_come_back_as_they_were_given(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=6, overlap=0, gold=0), quiet=True)
    drawn = np.zeros((512, 512), bool)
    drawn[100:140, 60:200] = True
    tasks = []
    better = {"id": "b", "type": "textarea", "from_name": "better", "to_name": "image", "value": {"text": ["  The  left pier. "]}}
    outline = {
        **{"id": "p", "type": "polygonlabels", "from_name": "outline", "to_name": "image", "image_rotation": 0},
        **{"original_width": 512, "original_height": 512},
        "value": {"points": [[0, 0], [25, 0], [25, 12.5], [0, 12.5]], "polygonlabels": ["outline"]},
    }
    square = {
        **{"id": "r", "type": "rectanglelabels", "from_name": "box", "to_name": "image", "image_rotation": 0},
        **{"original_width": 512, "original_height": 512},
        "value": {"x": 50, "y": 50, "width": 25, "height": 12.5, "rotation": 0, "rectanglelabels": ["filled box"]},
    }
    for verdict, more in (
        (FIX, {"mask": "drawn"}),
        (FIX, {"mask": "outline"}),
        (REJECT, {"regions": [choice("sentence", "wrong")]}),
        (UNSURE, {}),
        (ACCEPT, {"regions": [choice("sentence", "ambiguous"), better]}),
        (FIX, {"mask": "box"}),
    ):
        task = ana.next()
        assert task is not None
        tasks.append(task["data"]["key"])
        kinds = {"drawn": lambda task=task: [brush(task, encode_brush(drawn))], "outline": lambda: [outline], "box": lambda: [square]}
        mask = kinds[str(more.pop("mask"))]() if "mask" in more else None
        ana.answer(task, verdict, *more.get("regions", ()), mask=mask)  # type: ignore[misc]
    assert pull(workspace=workspace, quiet=True)["new"] == 6
    by_key = {answer.key: answer for answer in read_answers(ReviewStore(Workspace.open(workspace)))}
    found = [by_key[key] for key in tasks]
    assert [answer.verdict for answer in found] == [FIX, FIX, REJECT, UNSURE, ACCEPT, FIX]
    assert np.array_equal(found[0].mask(), drawn)
    for answer, window in ((found[1], (slice(0, 64), slice(0, 128))), (found[5], (slice(256, 320), slice(256, 384)))):
        expected = np.zeros((512, 512), bool)
        expected[window] = True
        assert np.array_equal(answer.mask(), expected)
    assert (found[2].mask(), found[2].sentence) == (None, "wrong")
    assert (found[4].sentence, found[4].better, found[4].changed) == ("ambiguous", "The left pier.", False)
    assert [answer.changed for answer in found] == [True, True, False, False, False, True]


def test_changed_and_deleted_answers_are_noticed_and_bad_ones_quarantined(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=5, overlap=0, gold=0), quiet=True)
    tasks = []
    for _ in range(5):
        task = ana.next()
        assert task is not None
        tasks.append((task, ana.answer(task, ACCEPT)))
    assert pull(workspace=workspace, quiet=True)["new"] == 5
    desk = ReviewStore(Workspace.open(workspace))
    shown = tasks[0][0]["predictions"][0]["result"]
    ana.send("PATCH", f"/api/annotations/{tasks[0][1]}/", {"result": [*shown, choice("verdict", REJECT)], "lead_time": 9})
    ana.send("DELETE", f"/api/annotations/{tasks[1][1]}/", None)
    ana.send("DELETE", f"/api/tasks/{tasks[2][0]['id']}/", None)
    bomb = brush(tasks[3][0], [255, 255, 255, 255, 63, 255, 128, 255, 255, 255])
    ana.send("PATCH", f"/api/annotations/{tasks[3][1]}/", {"result": [bomb, choice("verdict", FIX)]})
    other = {**brush(tasks[4][0], encode_brush(np.ones((64, 64), bool))), "original_width": 64, "original_height": 64}
    ana.send("PATCH", f"/api/annotations/{tasks[4][1]}/", {"result": [other, choice("verdict", FIX)]})
    back = pull(workspace=workspace, quiet=True)
    assert (back["changed"], back["quarantined"], back["answers"]) == (1, 2, 1)
    assert back["deleted"] == 4  # two by the person, two whose new word cannot be read
    assert "gone from the server, or not readable any more: 4 answers" in back["warnings"][0]
    said = [json.loads(line)["annotation"] for line in (desk.root / "deleted.jsonl").read_text().splitlines()]
    assert sorted(said) == sorted(number for _, number in tasks[1:])
    assert [answer.verdict for answer in read_answers(desk)] == [REJECT]
    codes = Counter(json.loads(line)["code"] for line in (desk.root / "quarantine.jsonl").read_text().splitlines())
    assert codes == {"mask_damaged": 1, "mask_wrong_size": 1}
    assert pull(workspace=workspace, quiet=True)["quarantined"] == 0  # said once, kept in the list
    push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)
    assert set(keys_on_server(workspace, ana)) == planned(workspace, "ana")  # the deleted task is asked again


def test_pushing_twice_or_again_after_a_better_round_leaves_exactly_the_plan(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    first = push(workspace=workspace, policy=Policy(count=20, overlap=0, gold=0), quiet=True)
    assert push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)["sent"] == 0
    assert ana.work(lambda task: (ACCEPT, {}), most=5) == 5
    pull(workspace=workspace, quiet=True)
    answered = {answer.key for answer in read_answers(ReviewStore(Workspace.open(workspace)))}
    refine_masks(workspace=workspace, engine="box", quiet=True)
    second = push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)
    assert (first["sent"], second["sent"], second["removed"]) == (20, 15, 15)
    there = keys_on_server(workspace, ana)
    assert sorted(there) == sorted(planned(workspace, "ana"))
    assert answered <= set(there)
    boxes = {record.id: mask_of(record.mask) for record in read_records(Workspace.open(workspace).latest()) if record.mask}
    assert ana.work(lambda task: (ACCEPT, {})) == 15
    assert pull(workspace=workspace, quiet=True)["new"] == 15
    for answer in read_answers(ReviewStore(Workspace.open(workspace))):
        assert np.array_equal(answer.mask(), boxes[answer.record]) == (answer.key not in answered)


def test_a_network_that_fails_in_every_way_loses_and_doubles_nothing(lab: Lab) -> None:
    workspace = lab()
    crew = people(workspace, "ana", "ben")
    desk = ReviewStore(Workspace.open(workspace))
    real = desk.connection()["url"]
    import risbench.review.labelstudio.projects as module

    chunk, module.CHUNK = module.CHUNK, 7  # many calls, each of which may fail
    try:
        with failing_proxy(real, 0.25, seed=3) as (url, faults):
            desk.save_connection(url=url)
            for _ in range(40):
                try:
                    push(workspace=workspace, policy=Policy(overlap=0.3, gold=0), quiet=True)
                    break
                except BusyError:
                    continue
            else:
                pytest.fail("forty pushes did not get through")
    finally:
        module.CHUNK = chunk
        desk.save_connection(url=real)
    assert sum(faults.counts.values()) >= 10
    assert len(faults.counts) >= 6
    for name, person in crew.items():
        assert sorted(keys_on_server(workspace, person)) == sorted(planned(workspace, name))
    done = {name: person.work(lambda task: (ACCEPT, {})) for name, person in crew.items()}
    with failing_proxy(real, 0.2, seed=5) as (url, faults):
        desk.save_connection(url=url)
        for _ in range(40):
            try:
                pull(workspace=workspace, quiet=True)
                break
            except BusyError:
                continue
    desk.save_connection(url=real)
    assert Counter(answer.annotator for answer in read_answers(desk)) == done
    assert {answer.key for answer in read_answers(desk)} == planned(workspace, "ana") | planned(workspace, "ben")


def test_work_moves_to_another_and_what_was_done_stays(lab: Lab) -> None:
    workspace = lab()
    crew = people(workspace, "ana", "ben")
    push(workspace=workspace, policy=Policy(count=30, overlap=0, gold=0), quiet=True)
    crew["ana"].work(lambda task: (ACCEPT, {}), most=4)
    pull(workspace=workspace, quiet=True)
    reassign("ana", "ben", workspace=workspace)
    push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)
    assert (len(keys_on_server(workspace, crew["ana"])), len(keys_on_server(workspace, crew["ben"]))) == (4, 26)
    with pytest.raises(InputError, match="annotator zoe: is not known here; there are ana, ben"):
        reassign("ana", "zoe", workspace=workspace)


def test_a_server_that_is_gone_a_wrong_token_a_deleted_project_and_a_changed_page_are_one_line_each(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    desk = ReviewStore(Workspace.open(workspace))
    push(workspace=workspace, policy=Policy(count=5, overlap=0, gold=0), quiet=True)
    ana.work(lambda task: (ACCEPT, {}), most=2)
    pull(workspace=workspace, quiet=True)
    ana.send("PATCH", f"/api/projects/{ana.project}/", {"label_config": '<View><Image name="image" value="$image"/></View>'})
    with pytest.raises(InputError, match=f"project {ana.project} of annotator ana: its labelling page is not"):
        push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)
    assert "has its labelling page again" in renew_project("ana", workspace=workspace)["said"]
    push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)
    ana.send("DELETE", f"/api/projects/{ana.project}/", None)
    with pytest.raises(InputError, match=f"project {ana.project} of annotator ana is gone from the server; what was pulled is kept"):
        push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)
    gone = pull(workspace=workspace, quiet=True)
    assert "is gone from the server" in gone["warnings"][0]
    assert gone["answers"] == 2
    renew_project("ana", workspace=workspace)
    push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)
    assert len(keys_on_server(workspace, ana)) == 3  # what was answered is not asked again
    assert pull(workspace=workspace, quiet=True)["answers"] == 2
    token = (desk.root / "token").read_text()
    (desk.root / "token").write_text("0" * 40)
    with pytest.raises(MissingRequirementError, match="the access token is refused"):
        pull(workspace=workspace, quiet=True)
    (desk.root / "token").write_text(token)
    desk.save_connection(url="http://127.0.0.1:9")
    done = cli("review", "pull", "-w", workspace)
    assert done.returncode == 75
    assert (
        done.stderr.strip()
        == "risbench: http://127.0.0.1:9: connection refused; is Label Studio running? Start it with `risbench review serve` and leave it running"
    )


def test_no_token_shows_up_anywhere(lab: Lab, tmp_path: Path) -> None:
    workspace = lab()
    crew = people(workspace, "ana", "ben", "eva")
    desk = ReviewStore(Workspace.open(workspace))
    said = ""
    for words in (
        ("push", "--count", "5", "--overlap", "1", "--yes", "--json"), ("reassign", "ana", "ben"), ("push", "--count", "0", "--yes"),
        ("pull",), ("consensus",), ("adjudicate", "eva"), ("status",), ("status", "--json"), ("backup", str(tmp_path / "b.zip"), "--desk-only"),
    ):  # fmt: skip
        done = cli("review", words[0], *words[1:], "-w", workspace)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    real = desk.connection()["url"]
    for way in ("500 before", "html", "cut body", "429"):  # and where the server says something that nobody expects
        with failing_proxy(real, 1.0, ways=(way,)) as (url, _):
            desk.save_connection(url=url)
            done = cli("review", "pull", "-w", workspace)
            assert done.returncode != 0, way
            assert "Traceback" not in done.stderr
            said += done.stdout + done.stderr
    desk.save_connection(url=real)
    secrets = [(workspace / "review" / name).read_text().strip() for name in ("token", "secret")]
    secrets += [person.password for person in crew.values()]
    assert all(len(word) >= 12 for word in secrets)
    for word in secrets:
        assert word not in said
        for path in workspace.rglob("*"):
            if path.is_file() and path.name not in ("token", "secret") and "accounts" not in path.parts and path.suffix != ".png":
                assert word.encode() not in path.read_bytes(), path
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            argv = process.read_bytes()
        except OSError:  # it ended meanwhile
            continue
        assert not any(word.encode() in argv for word in secrets), argv
    for name in ("token", "secret", "accounts/ana.txt"):
        assert (workspace / "review" / name).stat().st_mode & 0o077 == 0


def test_a_push_that_was_broken_off_is_finished_before_more_is_planned(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    desk = ReviewStore(Workspace.open(workspace))
    real = desk.connection()["url"]
    policy = Policy(count=5, overlap=0, gold=0)
    desk.save_connection(url="http://127.0.0.1:9")
    with pytest.raises(BusyError):
        push(workspace=workspace, policy=policy, quiet=True)
    desk.save_connection(url=real)
    again = push(workspace=workspace, policy=policy, quiet=True)
    assert (again["planned"], again["sent"]) == (5, 5)
    assert any("was broken off" in warning for warning in again["warnings"])
    more = push(workspace=workspace, policy=policy, quiet=True)
    assert (more["planned"], more["sent"], more["warnings"]) == (10, 5, [])
    assert sorted(keys_on_server(workspace, ana)) == sorted(item.key for item in desk.queue())


def test_nothing_goes_out_unasked_and_a_card_says_where_the_work_is(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    done = cli("review", "push", "-w", workspace, "--count", "2")
    assert (done.returncode, done.stdout) == (2, "")
    assert "add --yes" in done.stderr
    assert not (workspace / "review" / "queue.jsonl").exists()
    assert cli("review", "push", "-w", workspace, "--count", "2", "--yes").returncode == 0
    card = (workspace / "review" / "accounts" / "ana.txt").read_text()
    assert f"work      {ana.base}/projects/{ana.project}/data" in card
    with pytest.raises(OptionError, match="annotator Ana: differs from ana in capitals alone"):
        people(workspace, "Ana")
    eva = cli("review", "annotators", "add", "eva", "--expert", "-w", workspace)
    assert eva.returncode == 0
    push(workspace=workspace, policy=Policy(count=2, overlap=1.0, gold=0), quiet=True)
    assert {item.annotator for item in ReviewStore(Workspace.open(workspace)).queue()} == {"ana"}


def test_two_at_once_wait_for_each_other(lab: Lab) -> None:
    workspace = lab()
    with Workspace.open(workspace).lock("review push"):
        done = cli("review", "pull", "-w", workspace)
    assert done.returncode == 75
    assert "in use by pid" in done.stderr


def test_an_answer_that_cannot_be_used_is_asked_again_of_the_same_person_and_kept(lab: Lab) -> None:
    workspace = lab()
    crew = people(workspace, "ana", "ben")
    push(workspace=workspace, policy=Policy(count=6, overlap=0, gold=0), quiet=True)
    ana = crew["ana"]
    empty, good = ana.next(), None
    assert empty is not None
    ana.answer(empty, FIX, mask=[])
    good = ana.next()
    assert good is not None
    ana.answer(good, ACCEPT)
    assert pull(workspace=workspace, quiet=True)["quarantined"] == 1
    left = ana.work(lambda task: (ACCEPT, {}))
    out = push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)
    assert any("`risbench review reask` asks for them again" in warning for warning in out["warnings"])
    assert ana.next() is None
    found = reask(workspace=workspace, quiet=True)
    assert (found["reasked"], found["by_annotator"], found["reasons"], found["left"]) == (1, {"ana": 1}, {"mask_empty": 1}, {})
    desk = ReviewStore(Workspace.open(workspace))
    kept = [json.loads(line) for line in (desk.root / "reasked.jsonl").read_text().splitlines()]
    assert [row["answer"]["result"][-1]["value"] for row in kept] == [{"choices": [FIX]}]
    assert len(read_answers(desk)) == left + 1
    again = ana.next()
    assert again is not None
    assert again["data"]["key"] == empty["data"]["key"]
    ana.answer(again, ACCEPT)
    assert pull(workspace=workspace, quiet=True)["new"] == 1
    assert reask(workspace=workspace, quiet=True)["reasked"] == 0


def test_a_server_of_somebody_else_is_connected_to_and_says_what_it_lacks(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = lab()
    desk = ReviewStore(Workspace.open(workspace))
    there, token = desk.connection(), (desk.root / "token").read_text().strip()
    for name in ("connection.json", "token"):
        (desk.root / name).unlink()
    with pytest.raises(OptionError, match="set RISBENCH_LABEL_STUDIO_TOKEN"):
        connect(there["url"], workspace=workspace)
    monkeypatch.setenv("RISBENCH_LABEL_STUDIO_TOKEN", "0" * 40)
    with pytest.raises(MissingRequirementError, match="refused; set RISBENCH_LABEL_STUDIO_TOKEN to a valid one of its admin"):
        connect(there["url"], workspace=workspace)
    assert not (desk.root / "token").exists()
    monkeypatch.setenv("RISBENCH_LABEL_STUDIO_TOKEN", token)
    connect(there["url"], workspace=workspace, images="/nowhere/images")
    monkeypatch.delenv("RISBENCH_LABEL_STUDIO_TOKEN")
    people(workspace, "ana")
    few = Policy(count=3, overlap=0, gold=0)
    with pytest.raises(InputError, match=r"(?s)/nowhere/images.*the server is to see the workspace's images there: .* --images FOLDER"):
        push(workspace=workspace, policy=few, quiet=True)
    assert connect(there["url"], workspace=workspace, images=there["images"])["images"] == there["images"]
    assert push(workspace=workspace, policy=few, quiet=True)["sent"] == 3
    assert connect(there["url"], workspace=workspace)["images"] == there["images"]  # said before
    desk.save_connection(database="sqlite")
    with pytest.raises(OptionError, match="work is out on this workspace's own server"):
        connect(there["url"], workspace=workspace)
    desk.save_connection(database="remote")
    desk.save_connection(url="http://127.0.0.1:9")
    with pytest.raises(BusyError, match="connection refused; is Label Studio running, and does this machine reach it"):
        pull(workspace=workspace, quiet=True)


def test_nobody_to_work_and_nothing_to_review_are_said(lab: Lab) -> None:
    workspace = lab()
    looked = push(workspace=workspace, policy=Policy(overlap=0, gold=0), dry_run=True, quiet=True)
    assert sum(looked["by_annotator"].values()) == looked["planned"] > 0
    assert (sorted(looked["by_annotator"]), looked["state"]) == (["nobody else yet", "nobody yet"], "planned only")
    with pytest.raises(InputError, match="nobody to give work to; add people with"):
        push(workspace=workspace, quiet=True)
    people(workspace, "ana")
    assert add_annotators(["ana"], workspace=workspace)["said"] == "ana: already here, nothing changed"
    with pytest.raises(OptionError, match="annotator ana: gets tasks already; `risbench review annotators pause ana` ends that"):
        add_annotators(["ana"], workspace=workspace, expert=True)
    for folder in Workspace.open(workspace).rounds():
        (folder / "run.json").unlink()
    with pytest.raises(InputError, match="nothing to review: no undecided record has a mask"):
        push(workspace=workspace, quiet=True)


def test_an_account_that_a_broken_run_left_behind_works_after_the_next(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    desk = ReviewStore(Workspace.open(workspace))
    desk.save_annotators([])
    (desk.root / "accounts" / "ana.txt").unlink()
    assert people(workspace, "ana")["ana"].login == ana.login
    push(workspace=workspace, quiet=True)
    desk.save_annotators([])
    with pytest.raises(InputError, match="annotator ana: has an account and work on the server that this desk does not know"):
        people(workspace, "ana")
    (desk.root / "accounts" / "bad.txt").write_text(f"address {ana.page}\nlogin {ana.login}\npassword wrong")
    with pytest.raises(AssertionError, match="does not work"):
        Person(workspace, "bad")


def test_the_server_is_closed_to_strangers(lab: Lab, server: str) -> None:
    workspace = lab()
    record = next(iter(read_records(Workspace.open(workspace).latest())))
    assert requests.get(f"{server}/data/local-files/", params={"d": record.image.path.removeprefix("images/")}, timeout=30).status_code in (
        401,
        403,
    )
    assert requests.post(f"{server}/user/signup/", data={}, timeout=30).status_code == 403
    assert requests.get(f"{server}/api/projects/", timeout=30).status_code == 401
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=1, overlap=0, gold=0), quiet=True)
    task = ana.next()
    assert task is not None
    picture = ana.session.get(ana.base + task["data"]["image"], timeout=30)
    assert (picture.status_code, picture.content[:4]) == (200, b"\x89PNG")
    for path in ("../risbench.toml", "/etc/passwd", "..%2frisbench.toml", "world/../../risbench.toml"):
        assert ana.session.get(f"{ana.base}/data/local-files/", params={"d": path}, timeout=30).status_code >= 400


def test_an_answer_changed_after_the_consensus_is_read_against_the_mask_that_was_shown(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=2, overlap=0, gold=0), quiet=True)
    drawn = np.zeros((512, 512), bool)
    drawn[50:90, 50:90] = True
    numbers = []
    for _ in range(2):
        task = ana.next()
        assert task is not None
        numbers.append((task, ana.answer(task, FIX, mask=[brush(task, encode_brush(drawn))])))
    pull(workspace=workspace, quiet=True)
    assert consensus(workspace=workspace, quiet=True)["status"]["corrected"] == 2
    refine_masks(workspace=workspace, engine="box", quiet=True)
    shown = numbers[0][0]["predictions"][0]["result"]
    ana.send("PATCH", f"/api/annotations/{numbers[0][1]}/", {"result": [*shown, choice("verdict", ACCEPT)]})
    ana.send("DELETE", f"/api/annotations/{numbers[1][1]}/", None)
    back = pull(workspace=workspace, quiet=True)
    assert (back["changed"], back["deleted"], back["quarantined"]) == (1, 1, 0)
    # what was decided and taken back leaves nothing behind
    found = consensus(workspace=workspace, quiet=True)["status"]
    assert (found.get("accepted"), found.get("corrected")) == (1, None)
    masks = {record.id: record.mask for record in read_records(workspace / "3-review")}
    assert not any(mask and mask.engine == "review" for mask in masks.values())
    for path in (workspace / "review" / "answers").glob("*"):
        path.unlink()
    again = pull(workspace=workspace, quiet=True)  # all of it, once more
    assert (again["new"], again["quarantined"]) == (1, 0)


def test_what_someone_has_begun_is_not_taken_away(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=4, overlap=0, gold=0), quiet=True)
    task = ana.next()
    assert task is not None
    draft = {"result": [choice("verdict", FIX)], "lead_time": 3}
    assert ana.send("POST", f"/api/tasks/{task['id']}/drafts", draft).status_code == 201
    refine_masks(workspace=workspace, engine="box", quiet=True)
    done = push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)
    assert done["removed"] == 3
    there = keys_on_server(workspace, ana)
    assert task["data"]["key"] in there
    assert len(there) == 5
    studio = Studio.of(ReviewStore(Workspace.open(workspace)))
    answered = ana.next()
    assert answered is not None
    ana.answer(answered, ACCEPT)
    studio.delete_tasks(ana.project, [task["id"], answered["id"]])  # as if they had been answered since the list was made
    assert len(keys_on_server(workspace, ana)) == 5


def test_the_work_of_others_and_hostile_answers_stop_nothing(lab: Lab) -> None:
    workspace = lab()
    crew = people(workspace, "ana", "ben")
    push(workspace=workspace, policy=Policy(count=8, overlap=0, gold=0), quiet=True)
    ana = crew["ana"]
    task = ana.next()
    assert task is not None
    ana.answer(task, ACCEPT)
    crew["ben"].answer(task, REJECT)  # in a project that is not theirs
    odd: list[list[dict[str, object]]] = [
        [{"type": "rectanglelabels", "from_name": "box", "original_width": 512, "original_height": 512,
          "value": {"x": 10**400, "y": 0, "width": 1, "height": 1, "rectanglelabels": ["filled box"]}}],
        [{"type": "brushlabels", "from_name": "mask", "value": "x"}],
        [{"type": "choices", "from_name": "sentence", "value": {"choices": "wrong"}}],
    ]  # fmt: skip
    for regions in odd:
        task = ana.next()
        assert task is not None
        body = {"result": [*regions, choice("verdict", FIX)], "lead_time": 1}
        assert ana.send("POST", f"/api/tasks/{task['id']}/annotations/", body).status_code == 201
    back = pull(workspace=workspace, quiet=True)
    assert (back["new"], back["quarantined"]) == (1, 4)
    assert [answer.verdict for answer in read_answers(ReviewStore(Workspace.open(workspace)))] == [ACCEPT]
    codes = Counter(json.loads(line)["code"] for line in (workspace / "review" / "quarantine.jsonl").read_text().splitlines())
    assert codes["not_theirs"] == 1
    out = push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)
    assert any("4 answers on the server cannot be used" in warning for warning in out["warnings"])
    desk = ReviewStore(Workspace.open(workspace))
    [stale] = [row for row in quarantine_rows(desk) if row["code"] == "not_theirs"]
    assert not _take_off(desk, Studio.of(desk), {**stale, "updated": "2020-01-01T00:00:00Z"})  # mended since it was pulled
    found = reask(workspace=workspace, quiet=True)
    assert (found["reasked"], found["left"]) == (3, {"not_theirs": 1})
    assert Studio.of(desk).get(f"/api/annotations/{stale['annotation']}/")["id"] == stale["annotation"]


def test_a_project_that_is_another_ones_is_neither_read_nor_touched(lab: Lab) -> None:
    workspace, other = lab(), lab("other")
    ana, zoe = people(workspace, "ana")["ana"], people(other, "zoe")["zoe"]
    push(workspace=workspace, policy=Policy(count=3, overlap=0, gold=0), quiet=True)
    push(workspace=other, policy=Policy(count=3, overlap=0, gold=0), quiet=True)
    assert ana.work(lambda task: (ACCEPT, {})) == 3
    pull(workspace=workspace, quiet=True)
    ReviewStore(Workspace.open(workspace)).change_annotator(
        "ana", project=zoe.project
    )  # as after a server's data were lost and numbers began anew
    before = sorted(keys_on_server(other, zoe))
    number = zoe.answer(zoe.next() or {}, ACCEPT)
    write_durably(
        workspace / "review" / "quarantine.jsonl",
        b'{"annotation": %d, "annotator": "ana", "code": "mask_empty", "project": %d, "reason": "", "record": "", "task": 1}\n'
        % (number, zoe.project),
    )
    assert reask(workspace=workspace, quiet=True)["reasked"] == 0
    assert Studio.of(ReviewStore(Workspace.open(workspace))).get(f"/api/annotations/{number}/")["id"] == number
    assert "not theirs" in pull(workspace=workspace, quiet=True)["warnings"][0]
    with pytest.raises(InputError, match="is gone from the server; what was pulled is kept"):
        push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)
    renew_project("ana", workspace=workspace)
    assert len(read_answers(ReviewStore(Workspace.open(workspace)))) == 3
    assert sorted(keys_on_server(other, zoe)) == before


def test_a_project_that_was_given_another_title_is_still_theirs(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=3, overlap=0, gold=0), quiet=True)
    ana.work(lambda task: (ACCEPT, {}), most=2)
    Studio.of(ReviewStore(Workspace.open(workspace))).change("PATCH", f"/api/projects/{ana.project}/", {"title": "For Ana, thanks!"})
    assert pull(workspace=workspace, quiet=True)["new"] == 2
    assert push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)["sent"] == 0


def test_annotators_find_the_guidelines_in_their_project(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=1, overlap=0, gold=0), quiet=True)
    project = ana.session.get(f"{ana.base}/api/projects/{ana.project}/", timeout=30).json()
    assert "<h1>How to verify a mask</h1>" in project["expert_instruction"]
    assert '<table border="1"' in project["expert_instruction"]
    assert "![" not in project["expert_instruction"]
    assert "ana" not in project["title"]


def test_an_expired_personal_token_is_one_line(lab: Lab) -> None:
    workspace = lab()
    (workspace / "review" / "token").write_text("a.b.c")
    with pytest.raises(MissingRequirementError, match="the access token is refused"):
        pull(workspace=workspace, quiet=True)
