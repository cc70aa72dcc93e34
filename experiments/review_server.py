"""Review at the real Label Studio: push, round trip, a network that fails, the assistant, fifty people at once.

    python experiments/review_server.py [--part push|trip|faults|assist|people|all] [--tasks N] [--seconds N]

NWPU VHR-10's rows with the built-in model's masks. Every part has a workspace and accounts of its own on one server, started by
`risbench review serve`'s own code in the server's own environment, SQLite on loopback.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from common import REFER, need_data, risbench

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from risbench.core.errors import BusyError
from risbench.core.masks import mask_of
from risbench.core.workspace import Workspace, read_records
from risbench.review.labelstudio import projects
from risbench.review.labelstudio.page import task_of
from risbench.review.labelstudio.server import running
from risbench.review.labelstudio.studio import Studio
from risbench.review.rules.plan import Policy
from risbench.review.store.answers import read_answers
from risbench.review.store.review_store import ReviewStore
from risbench.review.verbs.assist import assisting
from risbench.review.verbs.pull import pull
from risbench.review.verbs.push import push
from tests.review.lab import ACCEPT, failing_proxy, fresh_workspace, keys_on_server, people


def bench_push(workspace: Path, tasks: int) -> None:
    """Print how long a push takes, and the same masks by one call a task."""
    people(workspace, "ana", "ben")
    began = time.monotonic()
    done = push(workspace=workspace, policy=Policy(count=tasks // 2, overlap=1.0, gold=0), quiet=True)
    seconds = time.monotonic() - began
    print(
        f"push: {done['sent']:,} tasks with masks in {seconds:.1f} s, {done['sent'] / seconds:.0f} a second, planning and checks included"
    )
    desk = ReviewStore(Workspace.open(workspace))
    studio = Studio.of(desk)
    number = desk.annotators()[0].project
    assert number is not None
    records = [record for record in read_records(desk.workspace.latest()) if record.mask is not None][:100]
    times = []
    for index, record in enumerate(records):
        assert record.mask is not None
        began = time.monotonic()
        studio.add_tasks(number, [task_of(record, mask_of(record.mask), f"single{index}")])
        times.append(time.monotonic() - began)
    single = statistics.mean(times)
    print(f"one POST a task: {single:.3f} s each (mean of {len(times)}); {single * done['sent'] / seconds:.1f} times the push")


def bench_trip(workspace: Path, tasks: int) -> None:
    """Print how many masks come back bit for bit when nobody edits them."""
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=tasks, overlap=0, gold=0), quiet=True)
    began = time.monotonic()
    ana.work(lambda task: (ACCEPT, {}))
    middle = time.monotonic()
    pull(workspace=workspace, quiet=True)
    masks = {record.id: record.mask for record in read_records(Workspace.open(workspace).latest())}
    answers = read_answers(ReviewStore(Workspace.open(workspace)))
    same = sum(
        (mask := masks[answer.record]) is not None and (mask.size, mask.counts) == (answer.size, answer.counts) for answer in answers
    )
    print(f"round trip: {same} of {tasks} masks bit-identical;", end=" ")
    print(f"submitted in {middle - began:.0f} s, pulled in {time.monotonic() - middle:.1f} s")


def bench_faults(workspace: Path, tasks: int, share: float = 0.05) -> None:
    """Print what pushes through a failing proxy leave on the server; a desk of its own for every 2,000 tasks."""
    left = {"lost": 0, "doubled": 0, "others": 0}
    total, runs, began = 0, 0, time.monotonic()
    counts: Counter[str] = Counter()
    for number, start in enumerate(range(0, tasks, 2000)):
        desk = fresh_workspace(workspace, workspace.with_name(f"{workspace.name}{number}"))
        found = faulty_push(desk, min(2000, tasks - start), share, seed=number + 1)
        total, runs = total + found["tasks"], runs + found["runs"]
        counts.update(found["faults"])
        for name in left:
            left[name] += found[name]
    said = ", ".join(f"{count} {name}" for name, count in left.items())
    print(f"faults: {total:,} tasks through a proxy that failed {counts.total()} calls ({share:.0%}): {said};", end=" ")
    print(f"{runs} runs of the command, {time.monotonic() - began:.0f} s")
    print("  " + ", ".join(f"{way} {count}" for way, count in sorted(counts.items())))


def faulty_push(workspace: Path, tasks: int, share: float, seed: int) -> dict[str, Any]:
    """Push through a failing proxy until it succeeds, in small calls so that many of them meet a fault; return what is on the server."""
    crew = people(workspace, "ana", "ben")
    desk = ReviewStore(Workspace.open(workspace))
    real = desk.connection()["url"]
    usual, projects.CHUNK = projects.CHUNK, 5
    runs = 0
    with failing_proxy(real, share, seed=seed) as (url, faults):
        desk.save_connection(url=url)
        while True:
            runs += 1
            policy = Policy(count=tasks // 2, overlap=1.0, gold=0) if runs == 1 else Policy(count=0, gold=0)
            try:
                push(workspace=workspace, policy=policy, quiet=True)
                break
            except BusyError:
                continue
    desk.save_connection(url=real)
    projects.CHUNK = usual
    planned = {name: {item.key for item in desk.queue() if item.annotator == name} for name in crew}
    there = {name: Counter(keys_on_server(workspace, person)) for name, person in crew.items()}
    return {
        "tasks": sum(map(len, planned.values())),
        "runs": runs,
        "faults": faults.counts,
        "lost": sum(len(planned[name] - there[name].keys()) for name in crew),
        "doubled": sum(sum(count - 1 for count in there[name].values()) for name in crew),
        "others": sum(len(there[name].keys() - planned[name]) for name in crew),
    }


def bench_assist(workspace: Path, tasks: int = 20) -> None:
    """Print how long a box and a point take to come back as a mask, through the server, once and again on the same picture."""
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=tasks, overlap=0, gold=0), quiet=True)
    records = {record.id: record for record in read_records(Workspace.open(workspace).latest())}
    times: dict[str, list[float]] = {"box, picture new": [], "box": [], "point": []}
    with assisting(workspace) as found:
        [backend] = [row["id"] for row in ana.session.get(f"{ana.base}/api/ml/", params={"project": ana.project}, timeout=30).json()]
        items = {item.key: item.record for item in ReviewStore(Workspace.open(workspace)).queue()}
        for _ in range(tasks):
            task = ana.next()
            assert task is not None
            record = records[items[task["data"]["key"]]]
            x_min, y_min, x_max, y_max = record.targets[0].box
            across, down = 100 / record.image.width, 100 / record.image.height
            box = {"x": x_min * across, "y": y_min * down, "width": (x_max - x_min) * across, "height": (y_max - y_min) * down}
            point = {"x": (x_min + x_max) / 2 * across, "y": (y_min + y_max) / 2 * down, "width": 1}
            for what, name, value in (("box, picture new", "ask_box", box), ("box", "ask_box", box), ("point", "ask_point", point)):
                region = {"id": "x", "from_name": name, "to_name": "image", "value": value}
                began = time.monotonic()
                reply = ana.send("POST", f"/api/ml/{backend}/interactive-annotating", {"task": task["id"], "context": {"result": [region]}})
                assert reply.json()["data"]["result"], reply.text
                times[what].append(time.monotonic() - began)
            ana.answer(task, ACCEPT)
        said = ", ".join(f"{what} {statistics.median(took):.2f} s (slowest {max(took):.2f})" for what, took in times.items())
    print(f"assist ({found['model']}, CPU): {said}; medians of {tasks}")


def bench_people(workspace: Path, count: int, seconds: float) -> None:
    """Print whether any acknowledged work of many people at once is lost."""
    names = [f"p{index:02d}" for index in range(count)]
    crew = people(workspace, *names)
    push(workspace=workspace, policy=Policy(overlap=1.0, gold=0), quiet=True)
    acknowledged: dict[str, list[int]] = {name: [] for name in names}
    waits: list[float] = []
    refused: Counter[str] = Counter()
    until = time.monotonic() + seconds

    def work(name: str) -> None:
        random = np.random.default_rng(int(name[1:]))
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                task = crew[name].next()
                if task is None:
                    return
                acknowledged[name].append(crew[name].answer(task, ACCEPT))
            except (AssertionError, OSError) as error:
                refused[type(error).__name__] += 1
                continue
            waits.append(time.monotonic() - began)
            time.sleep(float(random.uniform(1.0, 3.0)))

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pull(workspace=workspace, quiet=True)
    kept = {(answer.annotator, answer.annotation) for answer in read_answers(ReviewStore(Workspace.open(workspace)))}
    lost = [(name, number) for name, numbers in acknowledged.items() for number in numbers if (name, number) not in kept]
    total = sum(map(len, acknowledged.values()))
    middle, slow = np.quantile(waits, (0.5, 0.95))
    print(f"people: {count} at once for {seconds:.0f} s: {total} answers acknowledged, {len(lost)} of them lost,", end=" ")
    print(f"{sum(refused.values())} calls refused; next task and submit together {middle:.1f} s (median), {slow:.1f} s (95 %)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["push", "trip", "faults", "assist", "people", "all"], default="all")
    parser.add_argument("--tasks", type=int, default=500, help="of the round trip and the faults")
    parser.add_argument("--seconds", type=float, default=120)
    words = parser.parse_args()
    need_data()
    with tempfile.TemporaryDirectory() as folder:
        host = Path(folder) / "host"
        risbench("ingest", REFER, "-w", host)
        risbench("refine-masks", "-w", host)
        with running(host):
            parts = {
                "push": lambda place: bench_push(place, 2000),
                "trip": lambda place: bench_trip(place, words.tasks),
                "faults": lambda place: bench_faults(place, words.tasks),
                "assist": lambda place: bench_assist(place),
                "people": lambda place: bench_people(place, 50, words.seconds),
            }
            for name, part in parts.items():
                if words.part in (name, "all"):
                    part(fresh_workspace(host, Path(folder) / name))
                    sys.stdout.flush()
