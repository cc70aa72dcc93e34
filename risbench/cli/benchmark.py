"""The commands of stage 5: training, evaluation, the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from risbench.cli.base import CsvOption, JsonOption, QuietOption, WorkspaceOption, save_table, show

ReleaseArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[RELEASE]", readable=False, help="A release in any format; left out: the workspace's 4-export/release."),
]
ConfigOption = Annotated[str, typer.Option(help="One of {configs} (base is the paper's), or a TOML file.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="SECTION.NAME=VALUE changes a setting; repeatable.")]
GpuOption = Annotated[bool, typer.Option("--gpu", help="Use the CUDA device; an error where there is none.")]
CacheOption = Annotated[Path | None, typer.Option(help="Where resized images are kept; left out: `cache` beside the output folder.")]
ProtocolOption = Annotated[str, typer.Option(help="peer (480 x 480, as published figures) or native (the images' own size).")]
SplitOption = Annotated[str, typer.Option(help="train, val or test.")]
WorkersOption = Annotated[int, typer.Option(help="Processes; the figures are the same for any number.")]
PrecisionOption = Annotated[str, typer.Option(help="fp32, bf16, or auto (bf16 on a GPU, and on CPUs made for it).")]


def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="One of {models}.")],
    release: ReleaseArgument = None,
    workspace: WorkspaceOption = Path(),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run's folder; left out: 5-benchmark/MODEL-CONFIG-seedN.")] = None,
    config: ConfigOption = "base",
    set_: SetOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the order of samples.")] = 0,
    gpu: GpuOption = False,
    precision: PrecisionOption = "auto",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the model (torch.compile): takes minutes at first; not yet measured on a GPU.")
    ] = False,
    cache: CacheOption = None,
    init_from: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Begin with a run of the same model and configuration, on whatever release it was made."),
    ] = None,
    begin_with: Annotated[Path | None, typer.Option("--begin-with", hidden=True)] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Train a model of referring segmentation on a release; the same command goes on after an interruption."""
    from risbench.core.extras import need_packages

    need_packages("train")
    from risbench.benchmark.load_settings import load_settings, need_release

    learnt = release or workspace / "4-export" / "release"
    load_settings(config, model, set_ or ())  # what is refused here need not wait for PyTorch
    need_release(learnt)
    from risbench.benchmark.train.run import train as run
    from risbench.cli.text_benchmark import print_train

    made = run(
        model,
        learnt,
        out=out or workspace / "5-benchmark" / f"{model}-{Path(config).stem}-seed{seed}",
        config=config,
        changes=set_ or (),
        seed=seed,
        gpu=gpu,
        precision=precision,
        compiled=compiled,
        cache=cache,
        init_from=init_from or begin_with,
        quiet=quiet,
    )
    if made["rank"] == 0:  # under torchrun one of them speaks
        show(made, json_, print_train)


def evaluate(
    subject: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or a baseline: {baselines}.")],
    release: ReleaseArgument = None,
    workspace: WorkspaceOption = Path(),
    split: SplitOption = "test",
    protocol: ProtocolOption = "peer",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where results go; left out: the run's folder.")] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Give every sample another one's sentence of its class.")] = False,
    weights: Annotated[
        Path | None, typer.Option(help="The SAM of the box baselines; left out: the workspace's adapter, else the built-in model.")
    ] = None,
    boxes_from: Annotated[Path | None, typer.Option(help="For box-predicted: the run whose masks give the boxes.")] = None,
    workers: WorkersOption = 1,
    gpu: GpuOption = False,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    cache: CacheOption = None,
    quiet: QuietOption = False,
    csv: CsvOption = None,
    json_: JsonOption = False,
) -> None:
    """Score a trained model or a baseline on a split: figures with intervals, slices, kinds of failure, a sheet of cases."""
    from risbench.core.extras import need_packages

    need_packages("train")
    from risbench.benchmark.load_settings import need_release

    asked = release or workspace / "4-export" / "release"
    need_release(asked)
    from risbench.benchmark.eval.baseline_names import BASELINES
    from risbench.benchmark.eval.evaluate import evaluate as run
    from risbench.cli.text_benchmark import print_evaluate

    result = run(
        subject,
        asked,
        split=split,
        protocol=protocol,
        out=out or (workspace / "5-benchmark" / subject if subject in BASELINES else None),
        shuffled=shuffle,
        weights=weights or _adapter(workspace),
        boxes_from=boxes_from,
        workers=workers,
        gpu=gpu,
        precision=precision,
        cache=cache,
        quiet=quiet,
    )
    save_table(result, csv, "evaluate")
    show(result, json_, print_evaluate)


def benchmark(
    release: ReleaseArgument = None,
    workspace: WorkspaceOption = Path(),
    models: Annotated[
        str | None,
        typer.Option(
            help="Rows of the table: {models}, also with changes behind a colon (crobim:mid.attention=pwam); {baselines}; "
            "{ablations} (papers' ablations). Left out: {default models}. With --compare: one that is trained."
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Two releases: one model trained on each, scored on one test split.")
    ] = None,
    test_on: Annotated[Path | None, typer.Option(help="For --compare: the release whose split both are scored on; left out: B.")] = None,
    config: ConfigOption = "base",
    set_: SetOption = None,
    seeds: Annotated[int, typer.Option(help="How many seeds every model is trained with.")] = 3,
    rates: Annotated[str, typer.Option(help="Learning rates that every model tries, with commas; the best on val is used.")] = "",
    against: Annotated[str | None, typer.Option(help="The row that differences are taken from; left out: crobim.")] = None,
    split: SplitOption = "test",
    protocol: ProtocolOption = "peer",
    published: Annotated[str | None, typer.Option(help="Print the papers' figures beside: RRSIS-D, RefSegRS or RISBench.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The SAM of the box baselines; left out: the workspace's adapter, else the built-in model.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where runs and tables go; left out: 5-benchmark/benchmark, or compare.")
    ] = None,
    gpu: GpuOption = False,
    precision: PrecisionOption = "auto",
    workers: Annotated[
        int,
        typer.Option(help="Processes. On a CPU that many trainings run at once and share its threads, on whose number their digits hang."),
    ] = 1,
    cache: CacheOption = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Begin every model with its run of the same name and seed in another benchmark's folder; with --compare: with this run.",
        ),
    ] = None,
    begin_with: Annotated[Path | None, typer.Option("--begin-with", hidden=True)] = None,
    quiet: QuietOption = False,
    csv: CsvOption = None,
    json_: JsonOption = False,
) -> None:
    """Train and score a list of models on one release and print one table; or, with --compare, one model on two releases."""
    from risbench.core.extras import need_packages

    need_packages("train")
    from risbench.benchmark.load_settings import need_release

    folder = out or workspace / "5-benchmark" / ("compare" if compare else "benchmark")
    if compare is None and test_on is not None:
        raise typer.BadParameter("only with --compare", param_hint="--test-on")
    if compare is not None and (release is not None or rates or against or published or weights):
        raise typer.BadParameter("takes no RELEASE, --rates, --against, --published or --weights", param_hint="--compare")
    from risbench.benchmark.models.known import MODELS
    from risbench.benchmark.subjects import DEFAULT

    if compare is not None and models is not None and models not in MODELS.names():
        raise typer.BadParameter(f"{models!r}: name one of {', '.join(MODELS.names())}; changes go to --set", param_hint="--models")
    for one in compare or (release or workspace / "4-export" / "release",):
        need_release(one)
    from risbench.benchmark.compare import compare as run_compare
    from risbench.benchmark.run import benchmark as run
    from risbench.cli.text_benchmark import print_benchmark, print_compare

    if compare is not None:
        both = run_compare(
            *compare,
            out=folder,
            test_on=test_on,
            model=models or "crobim",
            config=config,
            changes=set_ or (),
            seeds=seeds,
            split=split,
            protocol=protocol,
            gpu=gpu,
            precision=precision,
            workers=workers,
            cache=cache,
            init_from=init_from or begin_with,
            quiet=quiet,
        )
        save_table(both, csv, "benchmark")
        show(both, json_, print_compare)
        return
    result = run(
        release or workspace / "4-export" / "release",
        out=folder,
        models=models or DEFAULT,
        config=config,
        changes=set_ or (),
        seeds=seeds,
        rates=_rates(rates),
        against=against,
        split=split,
        protocol=protocol,
        published_on=published,
        weights=weights or _adapter(workspace),
        gpu=gpu,
        precision=precision,
        workers=workers,
        cache=cache,
        init_from=init_from or begin_with,
        quiet=quiet,
    )
    save_table(result, csv, "benchmark")
    show(result, json_, print_benchmark)


def _rates(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: write learning rates with commas, such as 2e-4,5e-4", param_hint="--rates") from None


def _adapter(workspace: Path) -> Path | None:
    """Return the workspace's current adapter, where the folder is a workspace and has one."""
    from risbench.core.workspace import SETTINGS_FILE, Workspace

    return Workspace.open(workspace).adapter() if (workspace / SETTINGS_FILE).is_file() else None
