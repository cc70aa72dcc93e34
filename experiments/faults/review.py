"""`review pull` from a real Label Studio, killed and with failing calls: what a person has answered is on the desk in the end, once."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from faults.calls import calm_run, every_failure, every_kill, row_of
from faults.stages import STAGES, Stage, prepared
from faults.table import Options, Row
from faults.trials import fresh

# pulled.json says when: to the second, so that two runs within one do not show that it differs.
_PULL: Final = Stage("review pull", ("review", "pull", "-w", "w"), unstable=("w/review/pulled.json",))
_TASKS: Final = 8


def pulls(options: Options) -> Iterator[Row]:
    """Yield rows for a first pull, and for one that brings answers that were changed and others that are new.

    One server for all points: pulling changes nothing there. Without Label Studio's environment there are no rows.
    """
    if not any(options.wants(f"{kind}: review pull") for kind in ("killed", "failed call")) or importlib.util.find_spec("requests") is None:
        return
    from risbench.core.errors import RisbenchError
    from risbench.review.labelstudio.server import running

    host = fresh(prepared(STAGES["stats"], options.scratch), options.scratch / "host") / "w"
    try:
        with running(host):
            for name, base in _with_answers(host, options.scratch / "lab"):
                calm = calm_run(_PULL, options.scratch, base)
                if options.wants("killed: review pull"):
                    yield row_of(f"killed: review pull, {name}", calm, every_kill(calm), options)
                if options.wants("failed call: review pull"):
                    yield row_of(f"failed call: review pull, {name}", calm, every_failure(calm), options)
    except RisbenchError as reason:
        print(f"review pull was not tried: {reason}", file=sys.stderr)


def _with_answers(host: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield folders with a workspace `w` to which answers can be pulled; a person works on the server in between."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from risbench.review.rules.plan import Policy
    from risbench.review.verbs.pull import pull
    from risbench.review.verbs.push import push
    from tests.review.lab import ACCEPT, REJECT, fresh_workspace, people

    folder.mkdir()
    workspace = fresh_workspace(host, folder / "w")
    ana = people(workspace, "ana")["ana"]
    push(workspace=workspace, policy=Policy(count=_TASKS, overlap=0, gold=0), quiet=True)
    done = []
    for _ in range(_TASKS // 2):
        task = ana.next()
        assert task is not None
        done.append((task, ana.answer(task, ACCEPT)))
    yield "the first", shutil.copytree(folder, folder.with_name("first"))
    pull(workspace=workspace, quiet=True)
    task, annotation = done[0]
    changed = [
        *task["predictions"][0]["result"],
        {"id": "verdict", "type": "choices", "from_name": "verdict", "to_name": "image", "value": {"choices": [REJECT]}},
    ]
    ana.send("PATCH", f"/api/annotations/{annotation}/", {"result": changed}).raise_for_status()
    ana.work(lambda task: (ACCEPT, {}), most=2)
    yield "of changed and new answers", shutil.copytree(folder, folder.with_name("second"))
