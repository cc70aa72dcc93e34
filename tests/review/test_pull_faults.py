"""A server, or what stands between, that leaves answers out or says odd things: nothing is given up, and everything is one line."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import risbench.review.labelstudio.client as client
import risbench.review.labelstudio.studio as studio_module
from risbench.core.errors import BusyError, InvalidRowError, MissingRequirementError, OptionError
from risbench.core.workspace import Settings, Workspace
from risbench.formats.brush import encode_brush
from risbench.review.labelstudio.client import NotThere, OutcomeUnknownError
from risbench.review.labelstudio.reader import Authors, Reader, Shown
from risbench.review.labelstudio.studio import Studio, Task
from risbench.review.rules.plan import Item, Policy
from risbench.review.store.answers import read_answers
from risbench.review.store.review_store import Annotator, ReviewStore
from risbench.review.verbs.pull import pull, quarantine_rows, reask
from risbench.review.verbs.push import push
from tests.review.lab import ACCEPT, REJECT, choice, people, rewriting_proxy

Lab = Callable[..., Path]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again without a pause."""
    monkeypatch.setattr(client, "_READ_AGAIN_S", (0.0,))
    monkeypatch.setattr(studio_module, "_LOOK_AGAIN_S", (0.0, 0.0))


def test_what_the_server_leaves_out_is_asked_again_and_only_what_is_really_gone_is_given_up(lab: Lab) -> None:
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=6, overlap=0, gold=0), quiet=True)
    done = []
    for _ in range(4):
        task = ana.next()
        assert task is not None
        done.append((task["id"], ana.answer(task, ACCEPT)))
    desk = ReviewStore(Workspace.open(workspace))
    real = desk.connection()["url"]

    @contextmanager
    def rewritten(rewrite: Callable[[str, Any], Any]) -> Iterator[None]:
        with rewriting_proxy(real, rewrite) as url:
            desk.save_connection(url=url)
            try:
                yield
            finally:
                desk.save_connection(url=real)

    def refused(part: str, value: Any, said: str) -> None:
        with rewritten(lambda path, answer: value if re.search(part, path) else answer), pytest.raises(OutcomeUnknownError, match=said):
            pull(workspace=workspace, quiet=True)

    # never pulled before: nothing is written down as if it had been read
    refused(
        r"/export|/tasks/\d+/annotations",
        [],
        r"answers by the server's list: 1, and its export has fewer \(and 3 more\); the others are pulled and nothing was given up",
    )
    assert not read_answers(desk)
    assert desk.pulled() is None
    times: list[str] = []

    def once(path: str, answer: Any) -> Any:
        times.extend([path] if "/export" in path else [])
        return answer[1:] if "/export" in path and len(times) == 1 else answer

    with rewritten(once):
        assert pull(workspace=workspace, quiet=True)["new"] == 4
    assert len(times) == 2
    # pulled before: neither a short list nor an empty one takes an answer away
    refused(r"/api/tasks\?", {"tasks": [], "total": 36}, "the server lists 0 tasks and says that there are 36")
    refused(r"/api/tasks\?", {"tasks": [], "total": 0}, "is there, and the server's lists leave it out .* nothing was given up")
    refused(r"/api/tasks\?", {"tasks": []}, "total is to be a whole number")
    assert len(read_answers(desk)) == 4
    assert not (desk.root / "deleted.jsonl").exists()
    # of the export alone: answers that changed are not lost either
    shown = ana.send("GET", f"/api/tasks/{done[0][0]}/", None).json()["predictions"][0]["result"]
    ana.send("PATCH", f"/api/annotations/{done[0][1]}/", {"result": [*shown, choice("verdict", REJECT)], "lead_time": 9})
    with rewritten(lambda path, answer: [{**row, "annotations": []} for row in answer] if "/export" in path else answer):
        assert pull(workspace=workspace, quiet=True)["changed"] == 1  # one by one they come
    # what people take back is recognised, calmly
    ana.send("DELETE", f"/api/annotations/{done[1][1]}/", None)
    ana.send("DELETE", f"/api/tasks/{done[2][0]}/", None)
    back = pull(workspace=workspace, quiet=True)
    assert (back["deleted"], back["answers"]) == (2, 2)
    assert desk.pulled() is not None


def test_tasks_that_the_server_stored_without_their_mask_are_sent_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    import risbench.review.labelstudio.projects as projects

    monkeypatch.setattr(projects, "_SETTLE_S", (0.0,) * 8)
    workspace = lab()
    ana = people(workspace, "ana")["ana"]
    desk = ReviewStore(Workspace.open(workspace))
    real, imports = desk.connection()["url"], []

    def lose(path: str, body: Any) -> Any:
        if "/import" in path:
            imports.append(path)
            if len(imports) == 1:  # as Label Studio was seen to do: 201, and all predictions gone
                return [{**task, "predictions": []} for task in body[:3]] + body[3:]
        return body

    with rewriting_proxy(real, lambda path, answer: answer, lose) as url:
        desk.save_connection(url=url)
        out = push(workspace=workspace, policy=Policy(count=6, overlap=0, gold=0), quiet=True)
    desk.save_connection(url=real)
    assert (out["sent"], out["without_mask"], out["removed"], out["found_twice"]) == (9, 3, 0, 0)
    tasks = Studio.of(desk).keys(ana.project)
    assert [task.shown for task in tasks] == [1] * 6
    assert push(workspace=workspace, policy=Policy(count=0, overlap=0, gold=0), quiet=True)["sent"] == 0


def test_an_answer_that_another_changed_is_named_with_what_to_do(lab: Lab) -> None:
    workspace = lab()
    crew = people(workspace, "ana", "ben")
    push(workspace=workspace, policy=Policy(count=4, overlap=0, gold=0), quiet=True)
    task = crew["ana"].next()
    assert task is not None
    number = crew["ana"].answer(task, ACCEPT)
    assert pull(workspace=workspace, quiet=True)["new"] == 1
    body = {"result": [*task["predictions"][0]["result"], choice("verdict", REJECT)], "lead_time": 9}
    assert crew["ben"].send("PATCH", f"/api/annotations/{number}/", body).status_code == 200
    assert pull(workspace=workspace, quiet=True)["quarantined"] == 1
    desk = ReviewStore(Workspace.open(workspace))
    [row] = quarantine_rows(desk)
    assert (row["code"], row["annotator"]) == ("changed_by_another", "ana")
    assert row["reason"].startswith("changed_by_another: updated_by = ben; ana gave this answer; ana opens the task")
    assert not read_answers(desk)
    assert crew["ana"].send("PATCH", f"/api/annotations/{number}/", body).status_code == 200  # looks at it and presses Update
    assert pull(workspace=workspace, quiet=True)["new"] == 1
    assert not quarantine_rows(desk)
    assert reask(workspace=workspace, quiet=True)["reasked"] == 0


def odd_studio(answers: dict[str, Any]) -> Studio:
    """Return a studio whose server answers the paths that end so with these."""
    studio = Studio("http://127.0.0.1:9", "0" * 40)

    def get(path: str, **params: Any) -> Any:
        for end, value in answers.items():
            if path.endswith(end):
                if isinstance(value, Exception):
                    raise value
                return value
        return {"id": 1, "title": "t", "label_config": ""}

    studio.get = get  # type: ignore[method-assign]
    return studio


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, "x", 5, {"tasks": 5, "total": 1}, {"tasks": []}, {"tasks": [], "total": "1"}, {"tasks": [{"id": 1}], "total": 1},
     {"tasks": [None], "total": 1}, {"tasks": [{"id": True}], "total": 1}, {"tasks": [], "total": True}, {"tasks": [], "total": 3}],
    ids=repr,
)  # fmt: skip
def test_an_odd_list_of_tasks_is_one_line(answer: Any) -> None:
    with pytest.raises(OutcomeUnknownError, match="run the same command again"):
        odd_studio({"/api/tasks": answer}).keys(1)


@pytest.mark.parametrize("answer", [None, {"results": []}, "x", [None], [{"email": 1, "id": 1}], [{"email": "a@x", "id": "1"}]], ids=repr)
def test_an_odd_list_of_users_is_one_line(answer: Any) -> None:
    with pytest.raises(OutcomeUnknownError, match="/api/users/: answered"):
        odd_studio({"/api/users/": answer}).users()


@pytest.mark.parametrize("answer", [None, {}, [], {"title": 5, "label_config": ""}, {"title": "t"}], ids=repr)
def test_an_odd_project_is_one_line(answer: Any) -> None:
    with pytest.raises(OutcomeUnknownError, match="GET /api/projects/1/: answered"):
        odd_studio({"/api/projects/1/": answer}).project(1)


@pytest.mark.parametrize(
    "answer", [None, {}, "x", ["x"], [{}], [{"id": "1"}], [{"id": 1, "annotations": None}], [{"id": 2, "annotations": [1]}]]
)
@pytest.mark.parametrize("alone", [NotThere("gone"), None, [], "x"], ids=repr)
def test_an_odd_export_is_one_line_and_no_answer(answer: Any, alone: Any) -> None:
    studio = odd_studio({"/export": answer, "/annotations/": alone})
    try:
        found, doubts = studio.annotations(1, [Task(1, "k", "2026", 1, False)])
    except OutcomeUnknownError as error:
        assert str(error).endswith("run the same command again")
    else:
        assert (found, doubts) == ({}, {1: "http://127.0.0.1:9: task 1: answers by the server's list: 1, and its export has fewer"})


def test_a_task_in_doubt_keeps_no_other_back() -> None:
    rows = [{"id": 1, "annotations": [{"id": 7}]}, {"id": 2, "annotations": None}]
    studio = odd_studio({"/export": rows, "/tasks/2/annotations/": NotThere("gone")})
    found, doubts = studio.annotations(1, [Task(number, "k", "2026", 1, False) for number in (1, 2)])
    assert (found, list(doubts)) == ({1: [{"id": 7}]}, [2])


@pytest.mark.parametrize("text", ["[" * 100_000, "<html>", "9" * 5000, '{"a": 1', "\x00"], ids=["deep", "html", "digits", "cut", "zero"])
def test_what_is_no_json_is_one_line(text: str) -> None:
    class Odd:
        status_code, content = 200, b"x"

        def __init__(self) -> None:
            self.text = text

        def json(self) -> Any:
            return json.loads(text)

    with pytest.raises(OutcomeUnknownError, match="answered with something that is not JSON"):
        client._checked(Odd(), "GET /x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://user:hunter2@host", "holds a user name or a password"),
        ("https://user@host:8080/x", "holds a user name or a password"),
        ("http://user:hunter2@[::1", "holds a user name or a password"),
        ("user:hunter2@host", "holds a user name or a password"),
        ("ftp://host", "is no URL of a server"),
        ("http://", "is no URL of a server"),
        ("http://host:hunter2", "is no URL of a server"),
        ("http://host:99999", "is no URL of a server"),
    ],
)
def test_an_address_that_is_none_or_holds_a_password_is_refused_without_it(url: str, said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        Studio(url, "0" * 40)
    assert "user:" not in str(caught.value)


@pytest.mark.parametrize("token", ["t\u00f6ken", "\u20ac" * 40, "two words", "line\nline", "", "\ud800"], ids=ascii)
def test_a_token_that_cannot_be_one_is_one_line_without_it(token: str) -> None:
    with pytest.raises(MissingRequirementError, match="the access token: ") as caught:
        Studio("http://host", token)
    assert "oken," not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """A reader of one item that shows a square of 16 pixels."""
    desk = ReviewStore(Workspace.create(tmp_path, Settings(name="w")))
    item = Item("k", "r", "m", "ana", "task", 1, 0.5)
    shown = Shown(desk, {"k": item})
    shown.mask = lambda item: np.pad(np.ones((16, 16), bool), 8)  # type: ignore[method-assign]
    return Reader(desk, Annotator("ana", "a@x"), Authors({"ana": 2}, {2: "ana", 3: "ben"}), {"k": item}, shown)


def annotation(number: int = 7, verdict: str = ACCEPT) -> dict[str, Any]:
    """Return an annotation as Label Studio 1.23.2 exports it."""
    size = {"original_width": 32, "original_height": 32, "image_rotation": 0}
    mask = np.pad(np.ones((16, 16), bool), 8)
    value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": ["object"]}
    box = {"x": 10.0, "y": 10.0, "width": 50.0, "height": 50.0, "rotation": 0, "rectanglelabels": ["filled box"]}
    outline = {"points": [[1, 1], [50, 1], [50, 50]], "polygonlabels": ["outline"]}
    return {
        "id": number,
        "completed_by": 2,
        "updated_by": 2,
        "was_cancelled": False,
        "updated_at": f"2026-11-30T22:25:4{number % 10}.353342Z",
        "lead_time": 5.0,
        "result": [
            choice("verdict", verdict),
            {"id": "mask", "type": "brushlabels", "from_name": "mask", "to_name": "image", **size, "value": value},
            {"id": "b", "type": "rectanglelabels", "from_name": "box", "to_name": "image", **size, "value": box},
            {"id": "p", "type": "polygonlabels", "from_name": "outline", "to_name": "image", **size, "value": outline},
            {"id": "t", "type": "textarea", "from_name": "better", "to_name": "image", "value": {"text": ["Better."]}},
        ],
    }


ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    float("nan"),
    "",
    "x",
    [],
    {},
    [[]],
    [None],
    {"id": 1},
    "\x1b[31m",
    [{}],
    2**63,
    "9" * 5000,
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a tree; of long lists of numbers the first few."""
    inside: list[Any] = list(value) if isinstance(value, dict) else list(range(min(len(value), 6))) if isinstance(value, list) else []
    for key in inside:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def changed(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """Return a copy of a tree with one value replaced; with `...`, taken away."""
    copied = copy.deepcopy(value)
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    if odd is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = odd
    return copied


def test_no_odd_annotation_ends_a_pull_and_each_is_read_or_listed(reader: Reader) -> None:
    good, draw = annotation(), random.Random(21)
    every = [changed(good, path, odd) for path in places(good) for odd in (..., *draw.sample(ODD, 6))]
    every += ODD
    for _ in range(200):  # and two at once
        first, second = draw.sample(list(places(good)), 2)
        if first != second[: len(first)] and second != first[: len(second)]:
            every.append(changed(changed(good, second, draw.choice(ODD)), first, draw.choice(ODD)))
    task, read = Task(1, "k", "2026", 2, False), 0
    for number, odd in enumerate(every):
        reader.bad.clear()
        answer = reader.newest(task, [odd])
        assert (answer is None) == bool(reader.bad), odd
        read += answer is not None
        for row in reader.bad:
            assert row["reason"].isprintable()
            assert len(row["reason"]) < 500
            json.dumps(row, allow_nan=False)
        if number % 10 == 0:  # and another one beside it is read
            assert reader.newest(task, [odd, annotation(1)]) is not None
    assert read > 100
    assert not (reader.desk.root / "errors.log").exists()


def test_an_error_that_nobody_thought_of_is_listed_and_logged_with_its_traceback(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(row: Any, shown: Any) -> Any:
        raise ZeroDivisionError("in a library")

    monkeypatch.setattr("risbench.review.labelstudio.reader.read_annotation", broken)
    assert reader.newest(Task(1, "k", "2026", 1, False), [annotation()]) is None
    [row] = reader.bad
    assert (row["code"], row["annotation"]) == ("reader_error", 7)
    assert "ZeroDivisionError" in (reader.desk.root / "errors.log").read_text()


def test_a_server_that_fails_is_asked_again_and_then_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    studio, calls = Studio("http://127.0.0.1:9", "0" * 40), []

    def failing(method: str, path: str, more: Any) -> Any:
        calls.append(path)
        raise OutcomeUnknownError("no")

    monkeypatch.setattr(studio, "_once", failing)
    with pytest.raises(BusyError):
        studio.users()
    assert len(calls) == 2


def test_who_changed_an_answer_counts_also_where_the_servers_list_lacks_its_author() -> None:
    ana = Annotator(name="ana", email="ana@example.org", project=1)
    authors = Authors({}, {})
    authors.check({"completed_by": 5, "updated_by": 5}, ana)
    with pytest.raises(InvalidRowError, match="changed_by_another"):
        authors.check({"completed_by": 5, "updated_by": 9}, ana)
