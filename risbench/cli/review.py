"""The commands about people: a server, accounts, what goes out, what comes back, what it comes to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from risbench.cli.base import CsvOption, JsonOption, QuietOption, SafeGroup, WorkspaceOption, save_table, show

review_app = typer.Typer(
    cls=SafeGroup, no_args_is_help=True, help="People decide, in Label Studio: serve, annotators, push, pull, consensus, status."
)
annotators_app = typer.Typer(cls=SafeGroup, no_args_is_help=True, help="The people who verify and correct.")
review_app.add_typer(annotators_app, name="annotators")


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end what runs until then: no failure, exit 0."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


@review_app.command()
def serve(
    workspace: WorkspaceOption = Path(),
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; that of last time, or 8080, or any free one when left out.")] = None,
    public_url: Annotated[str | None, typer.Option(help="The address that annotators use, such as https://label.lab.org.")] = None,
    postgres: Annotated[
        str | None,
        typer.Option(help="postgresql://user@host:port/name instead of SQLite; password: $PGPASSFILE, or URL in $RISBENCH_POSTGRES."),
    ] = None,
    environment: Annotated[
        Path | None,
        typer.Option(help="The server's Python environment; made where none is, else used as is. $RISBENCH_LABEL_STUDIO_ENV."),
    ] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Run the workspace's own Label Studio until Ctrl-C: loopback only by default, silent, data in review/server."""
    from risbench.cli.text_review import print_serve
    from risbench.review.labelstudio.server import serve as run

    with until_interrupted():
        for result in run(
            workspace=workspace, host=host, port=port, public_url=public_url, postgres=postgres, environment=environment, quiet=quiet
        ):
            if "restarted" in result:
                typer.echo(result["restarted"], err=True)
            else:
                show(result, json_, print_serve)


@review_app.command()
def connect(
    url: Annotated[str, typer.Argument(metavar="URL", help="The server's address as this machine reaches it.")],
    workspace: WorkspaceOption = Path(),
    images: Annotated[str | None, typer.Option(help="The workspace's images as the server sees them, such as /images.")] = None,
    public_url: Annotated[str | None, typer.Option(help="The address that annotators use, where it is another.")] = None,
    json_: JsonOption = False,
) -> None:
    """Use a Label Studio that somebody else runs; its admin's access token is read from $RISBENCH_LABEL_STUDIO_TOKEN."""
    from risbench.cli.text_review import print_connected
    from risbench.review.labelstudio.server import connect as run

    show(run(url, workspace=workspace, images=images, public_url=public_url), json_, print_connected)


@annotators_app.command("add")
def annotators_add(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="What the lab calls them.")],
    workspace: WorkspaceOption = Path(),
    expert: Annotated[bool, typer.Option("--expert", help="They get no tasks: only what `adjudicate` puts before them.")] = False,
    json_: JsonOption = False,
) -> None:
    """Make working accounts; each one's address, login and password go into a file of review/accounts."""
    from risbench.cli.text_review import print_annotators
    from risbench.review.labelstudio.accounts import add_annotators

    show(add_annotators(names, workspace=workspace, expert=expert), json_, print_annotators)


@annotators_app.command("pause")
def annotators_pause(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    workspace: WorkspaceOption = Path(),
    resume: Annotated[bool, typer.Option("--resume", help="Give them new work again.")] = False,
    recheck: Annotated[bool, typer.Option("--recheck", help="The next push asks others, too, of what they alone answered.")] = False,
    json_: JsonOption = False,
) -> None:
    """Give a person no new work; what they have stays, until `review reassign`."""
    from risbench.cli.text_review import print_annotators
    from risbench.review.labelstudio.accounts import pause_annotator

    show(pause_annotator(name, workspace=workspace, paused=not resume, recheck=recheck), json_, print_annotators)


@annotators_app.command("renew")
def annotators_renew(
    name: Annotated[str, typer.Argument(metavar="NAME")], workspace: WorkspaceOption = Path(), json_: JsonOption = False
) -> None:
    """Put a person's labelling page back, or give them a new project where theirs was deleted; the next push fills it."""
    from risbench.cli.text_review import print_annotators
    from risbench.review.labelstudio.projects import renew_project

    show(renew_project(name, workspace=workspace), json_, print_annotators)


@review_app.command()
def push(
    workspace: WorkspaceOption = Path(),
    count: Annotated[int | None, typer.Option(help="Plan only so many of what is not out yet: the riskiest of each class.")] = None,
    overlap: Annotated[float, typer.Option(help="Share of records that get a second opinion.")] = 0.1,
    overlap_by: Annotated[str, typer.Option(help="Which: share (drawn by hash) or risk (the riskiest).")] = "share",
    gold: Annotated[float, typer.Option(help="Known answers among everyone's tasks, half of them with a wrong mask.")] = 0.03,
    qualification: Annotated[int, typer.Option(help="Known answers that a newcomer meets before anything else.")] = 0,
    trust_source: Annotated[
        bool, typer.Option("--trust-source", help="Masks that the source brought are known answers: gold, and not asked about.")
    ] = False,
    triaged_too: Annotated[
        bool, typer.Option("--triaged-too", help="Give out what passed on sheets, too, as where it now belongs to validation or test.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go out and how long it would take; send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before work is queued.")] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Give out undecided masks, riskiest first; the same command after any failure leaves exactly the planned tasks on the server."""
    import sys

    from risbench.cli.text_review import print_plan, print_push
    from risbench.core.errors import OptionError
    from risbench.review.rules.plan import Policy
    from risbench.review.verbs.push import push as run

    if not (yes or dry_run or sys.stdin.isatty()):
        raise OptionError("nobody can be asked, as stdin is no terminal: add --yes to queue the work, or --dry-run to look")
    policy = Policy(count, overlap, overlap_by, gold, qualification, trust_source, triaged_too)  # type: ignore[arg-type]
    if dry_run or not json_:  # the hours come before anything is queued
        planned = run(workspace=workspace, policy=policy, dry_run=True, quiet=quiet)
        show(planned, json_, print_plan)
        if dry_run or (not yes and not typer.confirm("Queue this?", default=True)):
            return
    show(run(workspace=workspace, policy=policy, quiet=quiet), json_, print_push)


@review_app.command()
def reassign(
    source: Annotated[str, typer.Argument(metavar="FROM")],
    target: Annotated[str, typer.Argument(metavar="TO")],
    workspace: WorkspaceOption = Path(),
    json_: JsonOption = False,
) -> None:
    """Give one person's unanswered tasks to another; run `review push` after it to bring the server there."""
    from risbench.cli.text_review import print_plan
    from risbench.review.verbs.push import reassign as run

    show(run(source, target, workspace=workspace), json_, print_plan)


@review_app.command()
def pull(workspace: WorkspaceOption = Path(), quiet: QuietOption = False, json_: JsonOption = False) -> None:
    """Bring back what people did since the last time: new, changed and deleted answers, with their times."""
    from risbench.cli.text_review import print_pull
    from risbench.review.verbs.pull import pull as run

    show(run(workspace=workspace, quiet=quiet), json_, print_pull)


@review_app.command()
def reask(workspace: WorkspaceOption = Path(), quiet: QuietOption = False, json_: JsonOption = False) -> None:
    """Ask again what came back as an answer that cannot be used, such as `fix` without a mask; the answer is kept here."""
    from risbench.cli.text_review import print_reask
    from risbench.review.verbs.pull import reask as run

    show(run(workspace=workspace, quiet=quiet), json_, print_reask)


@review_app.command()
def consensus(workspace: WorkspaceOption = Path(), quiet: QuietOption = False, json_: JsonOption = False) -> None:
    """Decide what the answers decide, and write the review stage."""
    from risbench.cli.text_review import print_consensus
    from risbench.review.verbs.consensus import consensus as run

    show(run(workspace=workspace, quiet=quiet), json_, print_consensus)


@review_app.command()
def adjudicate(
    expert: Annotated[str, typer.Argument(metavar="EXPERT", help="One of the annotators, who answered none of these.")],
    workspace: WorkspaceOption = Path(),
    take_over: Annotated[str | None, typer.Option(metavar="NAME", help="Another expert, whose unanswered items this one gets.")] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Put what the answers leave open before an expert, with everyone's mask over the picture."""
    from risbench.cli.text_review import print_adjudicate
    from risbench.review.verbs.adjudicate import adjudicate as run

    show(run(expert, take_over=take_over, workspace=workspace, quiet=quiet), json_, print_adjudicate)


@review_app.command("audit-sample")
def audit_sample(
    auditors: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME...]", help="Who draws; nobody gets what they have seen. Without names, what was drawn is read."),
    ] = None,
    workspace: WorkspaceOption = Path(),
    count: Annotated[int, typer.Option(help="How many records are drawn anew; more adds to those there are.")] = 300,
    split: Annotated[Path | None, typer.Option(help="Split list: only of what it names (a frozen list, split.csv of a release).")] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Have a random sample drawn anew by people who see no mask; run again, it reads what they drew and says how many masks are wrong."""
    from risbench.cli.text_review import print_audit_sample
    from risbench.review.verbs.audit import audit_sample as run

    show(run(auditors or (), count=count, split=split, workspace=workspace, quiet=quiet), json_, print_audit_sample)


@review_app.command()
def status(workspace: WorkspaceOption = Path(), csv: CsvOption = None, json_: JsonOption = False) -> None:
    """Progress, hours left, agreement and a score card per annotator, from what was pulled last."""
    from risbench.cli.text_review import print_status
    from risbench.review.verbs.status import status as run

    result = run(workspace=workspace)
    save_table(result, csv, "status")
    show(result, json_, print_status)


@review_app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE.zip", help="Where it goes; it is made anew and private.")],
    workspace: WorkspaceOption = Path(),
    desk_only: Annotated[bool, typer.Option("--desk-only", help="Leave the server's data out, as where they lie in PostgreSQL.")] = False,
    json_: JsonOption = False,
) -> None:
    """Put desk and server data (SQLite) into one private file; the server may run meanwhile."""
    from risbench.cli.text_review import print_backup
    from risbench.review.verbs.backup import backup as run

    show(run(file, workspace=workspace, desk_only=desk_only), json_, print_backup)


@review_app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE.zip", help="A backup.")],
    workspace: WorkspaceOption = Path(),
    replace: Annotated[bool, typer.Option("--replace", help="Move the desk that is there aside.")] = False,
    json_: JsonOption = False,
) -> None:
    """Put a backup back, the whole of it or nothing."""
    from risbench.cli.text_review import print_restore
    from risbench.review.verbs.backup import restore as run

    show(run(file, workspace=workspace, replace=replace), json_, print_restore)


@review_app.command()
def assist(
    workspace: WorkspaceOption = Path(),
    host: Annotated[
        str | None, typer.Option(help="Address to listen at; an address of the loopback network that the server may call.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port; any free one by default.")] = 0,
    json_: JsonOption = False,
) -> None:
    """Answer boxes and points drawn on the labelling page with masks of the workspace's model, until Ctrl-C."""
    from risbench.cli.text_review import print_assist
    from risbench.review.labelstudio.server import ASSIST_HOST
    from risbench.review.verbs.assist import assisting

    with until_interrupted(), assisting(workspace, host=host or ASSIST_HOST, port=port) as result:
        show(result, json_, print_assist)
        threading.Event().wait()


@review_app.command()
def triage(
    person: Annotated[str, typer.Argument(metavar="NAME", help="Who looks: one of the annotators.")],
    split: Annotated[Path, typer.Option(help="Frozen split list (split.csv of a release): only its training scenes are triaged.")],
    workspace: WorkspaceOption = Path(),
    share: Annotated[float, typer.Option(help="Share of the undecided masks, those of lowest risk.")] = 0.3,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; any free one by default.")] = 0,
    json_: JsonOption = False,
) -> None:
    """Show masks of low risk, twenty on a screen, until Ctrl-C; those clicked go to the editor, the others become `triaged`."""
    from risbench.cli.text_review import print_triage
    from risbench.review.verbs.triage import triaging

    with until_interrupted(), triaging(person, split=split, share=share, workspace=workspace, host=host, port=port) as result:
        show(result, json_, print_triage)
        threading.Event().wait()
