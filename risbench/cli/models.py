"""The commands about models: weights of others, truth to learn from, training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from risbench.cli.base import JsonOption, QuietOption, SafeGroup, WorkspaceOption, show

weights_app = typer.Typer(cls=SafeGroup, no_args_is_help=True, help="What others published: list it, fetch it, check it.")
FolderOption = Annotated[
    Path | None, typer.Option(help="Where weights lie; $RISBENCH_WEIGHTS (such as a team's shared folder), else the user's cache.")
]


@weights_app.command("list")
def weights_list(folder: FolderOption = None, json_: JsonOption = False) -> None:
    """List the weights that risbench can use: size, licence, what for, and whether they are here."""
    from risbench.cli.text import print_weights
    from risbench.sam.fetch import list_weights

    show(list_weights(folder=folder), json_, print_weights)


@weights_app.command("fetch")
def weights_fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names as `risbench weights list` prints them.")],
    folder: FolderOption = None,
    mirror: Annotated[str | None, typer.Option(help="Another address, or a folder, that holds the files by their names.")] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Fetch weights and check their sha256; an interrupted fetch goes on where it stopped."""
    from risbench.cli.text import print_fetched
    from risbench.sam.fetch import fetch_weights

    show(fetch_weights(names, folder=folder, mirror=mirror, quiet=quiet), json_, print_fetched)


@weights_app.command("verify")
def weights_verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Names; without any, all that are here.")] = None,
    folder: FolderOption = None,
    json_: JsonOption = False,
) -> None:
    """Read the weights that are here and compare their sha256; exit 1 where one is damaged or missing."""
    from risbench.cli.text import print_fetched
    from risbench.sam.fetch import verify_weights

    result = verify_weights(names or (), folder=folder)
    show(result, json_, print_fetched)
    if result["faults"]:
        raise typer.Exit(1)


truth_app = typer.Typer(cls=SafeGroup, no_args_is_help=True, help="True masks from elsewhere.")


@truth_app.command("link")
def truth_link(
    isaid: Annotated[Path, typer.Option(help="A folder with iSAID's *_instance_id_RGB.png files.")],
    workspace: WorkspaceOption = Path(),
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Cut iSAID's instances as VRSBench cut DOTA and link the records to them: truth for train-adapter and audit."""
    from risbench.adapt.link_isaid import link_isaid as run
    from risbench.cli.text import print_linked

    show(run(isaid=isaid, workspace=workspace, quiet=quiet), json_, print_linked)


def train_adapter(
    workspace: WorkspaceOption = Path(),
    truth: Annotated[Path | None, typer.Option(help="COCO instances of the workspace's images; else what people verified.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 3200,
    batch: Annotated[int, typer.Option(help="Objects a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Adam's, at its highest.")] = 8e-4,
    seed: Annotated[int, typer.Option(help="Seed of the adapter, the order and the boxes.")] = 0,
    box_noise: Annotated[str, typer.Option(help="measured (this workspace's own errors) or none (exact boxes).")] = "measured",
    gross: Annotated[float, typer.Option(help="Share of grossly wrong prompts: 0.6 to 1.5 times as large, moved by a quarter.")] = 0.3,
    encoder: Annotated[
        bool | None, typer.Option("--encoder/--no-encoder", help="Train the image encoder, too; by default of a compact SAM.")
    ] = None,
    prompts: Annotated[str, typer.Option(help="box, or official (PA-SAM's mix with points and masks; for SAMs of whole images).")] = "box",
    points_from: Annotated[int, typer.Option(help="Epoch from which the adapter adds points of its own; PA-SAM waits for 5.")] = 0,
    base: Annotated[
        Path | None, typer.Option(help="What to adapt: a SAM, MobileSAM or PA-SAM file, or a compact SAM; left out: the built-in one.")
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Use the CUDA device; an error where there is none.")] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Teach the model this workspace's true masks and wrong boxes; `refine-masks` then uses the adapter."""
    from risbench.cli.text import print_adapter
    from risbench.core.extras import need_packages

    need_packages("sam")
    from risbench.adapt.run import train_adapter as run
    from risbench.adapt.train_adapter import AdapterRecipe

    recipe = AdapterRecipe(
        seed=seed, steps=steps, batch=batch, learning_rate=learning_rate, encoder=encoder, prompts=prompts, points_from=points_from
    )
    made = run(workspace=workspace, truth=truth, recipe=recipe, box_noise=box_noise, gross=gross, base=base, gpu=gpu, quiet=quiet)
    if made["rank"] == 0:  # under torchrun one of them speaks
        show(made, json_, print_adapter)


def train_builtin(
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where checkpoints, log and weights go; the same call goes on there.")],
    steps: Annotated[int, typer.Option(help="Training steps.")] = 4400,
    batch: Annotated[int, typer.Option(help="Crops a step.")] = 48,
    seed: Annotated[int, typer.Option(help="Seed of the weights, the scenes and the boxes.")] = 0,
    gpu: Annotated[bool, typer.Option("--gpu", help="Use the CUDA device; an error where there is none.")] = False,
    workers: Annotated[int, typer.Option(help="Processes that draw scenes.")] = 1,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Train the built-in SAM from scratch on generated scenes (pipelines/builtin_sam.sh)."""
    from risbench.cli.text import print_trained
    from risbench.core.extras import need_packages

    need_packages("sam")
    from risbench.adapt.train_builtin import Recipe
    from risbench.adapt.train_builtin import train_builtin as run

    recipe = Recipe(seed=seed, steps=steps, batch=batch)
    show(run(output, recipe, gpu=gpu, workers=workers, quiet=quiet), json_, print_trained)
