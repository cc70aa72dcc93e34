"""The command line: each command parses, makes one call, prints. Stages are imported inside their commands."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from risbench.cli.base import (
    DEFAULT_SPLIT,
    CsvOption,
    JsonOption,
    NamingCommand,
    QuietOption,
    SafeGroup,
    SplitCommand,
    WorkspaceOption,
    interrupts,
    save_table,
)
from risbench.cli.base import show as show_result
from risbench.cli.benchmark import benchmark, evaluate, train
from risbench.cli.models import train_adapter, train_builtin, truth_app, weights_app
from risbench.cli.review import review_app
from risbench.core.streams import safe_streams

app = typer.Typer(
    cls=SafeGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From boxes and sentences on overhead images to reviewed, split, auditable referring-segmentation data sets.\n\n"
    "The stages, in order: ingest, refine-masks, (people review), export, benchmark. One data set lives in one workspace folder (-w).",
    epilog="Exit codes: 0 done, 1 a check found problems, 2 usage, 3 input refused, 4 environment, 75 try again later.",
)


@app.command(cls=NamingCommand)
def ingest(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", readable=False, help="A folder, zip or annotation file.")],
    workspace: WorkspaceOption = Path(),
    format: Annotated[
        str | None,
        typer.Option(help="One of {input formats}; guessed when left out."),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="A further folder or zip to look for images in.")] = None,
    fit: Annotated[str, typer.Option(help="How images become 512 x 512: auto, window, pad or keep.")] = "auto",
    multi_target: Annotated[str, typer.Option(help="Sentences that name several objects: aside or keep.")] = "aside",
    uninformative: Annotated[str, typer.Option(help="Sentences that do not find their object: filter or keep.")] = "filter",
    map_class: Annotated[list[str] | None, typer.Option(help="NAME=CLASS for a class name that is not known; repeatable.")] = None,
    class_field: Annotated[str | None, typer.Option(help="The GeoJSON property or CSV column that holds the class.")] = None,
    bands: Annotated[str | None, typer.Option(help="Bands of a TIFF to show as red, green, blue, such as 5,3,2.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set in ids and folders.")] = None,
    limit: Annotated[int | None, typer.Option(help="Read only the first N rows.")] = None,
    scene: Annotated[
        str,
        typer.Option(
            help="What a scene is, of which no part may be in two splits: auto (windows named by known producers), image (each its own), "
            "folder, or a regular expression, searched in the image's path, whose group (?P<scene>...) names it."
        ),
    ] = "auto",
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Read what links lead to outside the source, such as linked image folders.")
    ] = False,
    exif: Annotated[
        str, typer.Option(help="Pictures with an EXIF orientation: upright, as annotation tools show them, or as stored.")
    ] = "upright",
    box_scale: Annotated[
        str | None,
        typer.Option(help="What the boxes' numbers are: pixels, shares, hundredths or thousandths; else judged by file."),
    ] = None,
    box_order: Annotated[str | None, typer.Option(help="How the bbox of COCO and REFER is written: xywh, or xyxy for two corners.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Only say, for every format, which files are read as it, or why the source is not in it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do all the work, write nothing.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Throw away the records of another source or other options.")] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Read boxes and sentences into repaired, de-duplicated records on 512 x 512 images."""
    from risbench.cli.text import print_explained, print_ingest
    from risbench.ingest import explain_source
    from risbench.ingest import ingest as run

    if explain:
        show_result(explain_source(source, images=images, follow_links=follow_links), json_, print_explained)
        return
    result = run(
        source,
        workspace=workspace,
        format=format,
        images=images,
        fit=fit,  # type: ignore[arg-type]
        multi_target=multi_target,  # type: ignore[arg-type]
        uninformative=uninformative,  # type: ignore[arg-type]
        map_class=map_class or (),
        class_field=class_field,
        bands=_bands(bands),
        name=name,
        limit=limit,
        scene=scene,
        follow_links=follow_links,
        exif=exif,  # type: ignore[arg-type]
        box_scale=box_scale,  # type: ignore[arg-type]
        box_order=box_order,  # type: ignore[arg-type]
        dry_run=dry_run,
        replace=replace,
        quiet=quiet,
    )
    show_result(result, json_, print_ingest)
    if faults := result["quarantined_by_code"].get("reader_error", 0):
        log = "run without --dry-run for the tracebacks" if dry_run else f"tracebacks: {workspace / '1-ingest' / 'errors.log'}"
        typer.echo(f"risbench: {faults:,} rows could not be read by a fault of risbench (reader_error); {log}", err=True)
        raise typer.Exit(1)


def _bands(value: str | None) -> list[int] | None:
    if value is None:
        return None
    if not all(part.strip().isascii() and part.strip().isdigit() for part in value.split(",")):
        raise typer.BadParameter(f"{value!r}: write band numbers with commas, such as 5,3,2", param_hint="--bands")
    return [int(part) for part in value.split(",")]


@app.command("refine-masks", cls=NamingCommand)
def refine_masks(
    workspace: WorkspaceOption = Path(),
    engine: Annotated[
        str, typer.Option(help="auto (the workspace's; else builtin, or grabcut without torch), or one of {engines}.")
    ] = "auto",
    checkpoint: Annotated[str | None, typer.Option(help="What the engine loads: {checkpoints}.")] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Use the CUDA device; an error where there is none.")] = False,
    workers: Annotated[int | None, typer.Option(help="Worker processes; all cores by default, 1 for networks.")] = None,
    min_fragment: Annotated[float, typer.Option(help="Drop pieces smaller than this share of the largest; 0 keeps all.")] = 0.2,
    max_hole: Annotated[float, typer.Option(help="Fill holes smaller than this share of the mask; 0 fills none.")] = 0.05,
    max_outside: Annotated[
        float, typer.Option(help="Cut what is further outside the box than this share of its sides; -1 cuts none.")
    ] = 0.25,
    redo_given: Annotated[bool, typer.Option("--redo-given", help="Make new masks also where the source brought some.")] = False,
    max_reprompts: Annotated[
        int, typer.Option(help="For pasam: how often a box is replaced by its mask's own where the two disagree.")
    ] = 3,
    prompt_again: Annotated[int | None, typer.Option("--prompt-again", hidden=True)] = None,
    precision: Annotated[
        str, typer.Option(help="Of a network's matrix products: fp32, bf16, or auto (bf16 on a GPU, and on CPUs made for it).")
    ] = "auto",
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Make a mask from every box; each image is read and encoded once."""
    from risbench.cli.text import print_refine
    from risbench.refine import refine_masks as run
    from risbench.refine.clean import CleanRules

    result = run(
        workspace=workspace,
        engine=engine,
        checkpoint=checkpoint,
        gpu=gpu,
        workers=workers,
        rules=CleanRules(min_fragment, max_hole, max_outside),
        redo_given=redo_given,
        max_reprompts=max_reprompts if prompt_again is None else prompt_again,
        precision=precision,
        quiet=quiet,
    )
    show_result(result, json_, print_refine)


@app.command(cls=SplitCommand)
def export(
    split: Annotated[
        str | None,
        typer.Option(
            help="Bare: the workspace's rule, at first 'scene' (by scene, .501/.191/.308 as in the paper, even by class and size); else "
            "fractions (.7,.1,.2), counts (26300,10013,16159), or a frozen list (a file, or a name in manifests/splits).",
        ),
    ] = None,
    workspace: WorkspaceOption = Path(),
    format: Annotated[str, typer.Option(help="Of {release formats}: one, several with commas, or all.")] = "risbench",
    name: Annotated[str, typer.Option(help="Name of the release, a folder in 4-export.")] = "release",
    seed: Annotated[int | None, typer.Option(help="Seed of the split; the workspace's by default.")] = None,
    include_unreviewed: Annotated[bool, typer.Option("--include-unreviewed", help="Release masks that no person has looked at.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a release of this name.")] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Write the release though a split that was asked for holds no triplet.")
    ] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Split by scene and write a release: whole or not at all."""
    from risbench.cli.text import print_export
    from risbench.export import export as run

    result = run(
        workspace=workspace,
        split=None if split in (None, DEFAULT_SPLIT) else split,
        formats=[part.strip() for part in format.split(",")],
        name=name,
        seed=seed,
        include_unreviewed=include_unreviewed,
        replace=replace,
        allow_empty=allow_empty,
        quiet=quiet,
    )
    show_result(result, json_, print_export)


@app.command()
def audit(
    truth: Annotated[Path, typer.Option(help="COCO instances with the true masks, in pixels of the source images.")],
    workspace: WorkspaceOption = Path(),
    links: Annotated[
        Path | None, typer.Option(help="JSON that maps source_key to annotation id; else rows match by image, class, overlap.")
    ] = None,
    round_: Annotated[int | None, typer.Option("--round", help="Score this refine round instead of the latest masks.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Where the sheet of worst cases goes (PNG); audit/worst.png in the workspace by default.")
    ] = None,
    quiet: QuietOption = False,
    csv: CsvOption = None,
    json_: JsonOption = False,
) -> None:
    """Score the workspace's masks against true ones, with intervals, by class, size, box tier and engine."""
    from risbench.cli.text import print_audit
    from risbench.inspect.audit import audit as run

    result = run(truth=truth, workspace=workspace, links=links, round_number=round_, sheet=sheet, quiet=quiet)
    save_table(result, csv, "audit")
    show_result(result, json_, print_audit)


@app.command()
def validate(workspace: WorkspaceOption = Path(), quiet: QuietOption = False, json_: JsonOption = False) -> None:
    """Check every record, image and count of the workspace; exit 1 where something is wrong."""
    from risbench.cli.text import print_validate
    from risbench.inspect.validate import validate as run

    result = run(workspace=workspace, quiet=quiet)
    show_result(result, json_, print_validate)
    if result["faults"]:
        raise typer.Exit(1)


@app.command()
def verify(
    release: Annotated[Path, typer.Argument(metavar="RELEASE", readable=False, help="A release's folder.")],
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Check a release, wherever it was copied to: every byte, every file, every count; exit 1 where something is wrong."""
    from risbench.cli.text import print_verify
    from risbench.export.verify import verify as run

    result = run(release, quiet=quiet)
    show_result(result, json_, print_verify)
    if result["faults"]:
        raise typer.Exit(1)


@app.command()
def report(
    release: Annotated[
        Path | None, typer.Argument(metavar="[RELEASE]", readable=False, help="A release's folder; without it the workspace.")
    ] = None,
    workspace: WorkspaceOption = Path(),
    output: Annotated[
        Path | None, typer.Option(help="The report's folder; 'report' in the workspace, or RELEASE-report, by default.")
    ] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Write a page that opens without a server: figures, and every record with its mask, the doubtful ones first, to filter and page."""
    from risbench.cli.text import print_report
    from risbench.inspect.report import report as run

    show_result(run(release, workspace=workspace, output=output, quiet=quiet), json_, print_report)


@app.command()
def stats(
    workspace: WorkspaceOption = Path(),
    output: Annotated[Path | None, typer.Option(help="Folder for the figures; 'stats' in the workspace by default.")] = None,
    csv: CsvOption = None,
    json_: JsonOption = False,
) -> None:
    """Print the paper's Table I row and draw its Fig. 3 and 4 for this workspace."""
    from risbench.cli.text import print_stats
    from risbench.inspect.stats import stats as run

    result = run(workspace=workspace, output=output)
    save_table(result, csv, "stats")
    show_result(result, json_, print_stats)


@app.command()
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The record's id, or the end of it where that is unique.")],
    workspace: WorkspaceOption = Path(),
    output: Annotated[Path | None, typer.Option(help="Where the PNG goes; 'show' in the workspace by default.")] = None,
    json_: JsonOption = False,
) -> None:
    """Draw one record with its whole history: box given, box used, mask of every round, review."""
    from risbench.cli.text import print_show
    from risbench.inspect.show import show as run

    show_result(run(id, workspace=workspace, output=output), json_, print_show)


app.add_typer(weights_app, name="weights")
app.add_typer(truth_app, name="truth")
app.add_typer(review_app, name="review")
app.command("train-adapter")(train_adapter)
app.command("train-builtin")(train_builtin)
app.command(cls=NamingCommand)(train)
app.command(cls=NamingCommand)(evaluate)
app.command(cls=NamingCommand)(benchmark)


@app.command()
def doctor(json_: JsonOption = False) -> None:
    """Say what is installed: versions, extras, CUDA, cores, memory."""
    from risbench.cli.doctor import doctor as run
    from risbench.cli.text import print_doctor

    show_result(run(), json_, print_doctor)


@app.command()
def demo(
    workspace: WorkspaceOption = Path("demo-workspace"),
    scenes: Annotated[int, typer.Option(help="How many scenes to draw.")] = 24,
    seed: Annotated[int, typer.Option(help="Seed of the drawn world.")] = 0,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Draw a small world with known masks and run every stage on it."""
    from risbench.cli.demo import demo as run
    from risbench.cli.text import print_demo

    show_result(run(workspace=workspace, scenes=scenes, seed=seed, quiet=quiet), json_, print_demo)


@app.callback(invoke_without_command=True)
def _version(ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from risbench.core.version import VERSION

        typer.echo(f"risbench {VERSION}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main() -> None:
    """Entry point: SIGTERM ends a run as Ctrl-C does, between two durable writes, with exit 130.

    A reader of what is printed who has seen enough (`| head`) changes nothing; output that cannot be written is one line and exit 4.
    """
    output = safe_streams()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and `&` of a script leave it
            signal.signal(number, interrupts.handle)
    # PyTorch's threads wait by spinning; beside any other program that made masks seven times slower. So short a spin costs nothing alone.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except SystemExit as ended:
        sys.stdout.flush()
        if output.failure is not None and ended.code in (None, 0, 1):
            said = output.failure.strerror or str(output.failure)
            sys.stderr.write(f"risbench: standard output cannot be written: {said}; the command's work is done\n")
            sys.exit(4)
        raise
