"""What the command line's modules share: how errors are shown, a bare --split, options that recur, how results are printed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

DEFAULT_SPLIT = "default"


def _input_formats() -> tuple[str, ...]:
    from risbench.formats.registry import INPUT_FORMATS

    return INPUT_FORMATS.names()


def _engines() -> tuple[str, ...]:
    from risbench.refine.engines.registry import ENGINES

    return ENGINES.names()


def _checkpoints() -> tuple[str, ...]:
    from risbench.refine.engines.registry import ENGINES

    return tuple(f"for {name} {kind.checkpoint}" for name, kind in ENGINES.all().items() if kind.checkpoint)


def _release_formats() -> tuple[str, ...]:
    from risbench.export.formats.registry import RELEASE_FORMATS

    return RELEASE_FORMATS.names()


def _models() -> tuple[str, ...]:
    from risbench.benchmark.models.known import MODELS

    return MODELS.names()


def _ablations() -> tuple[str, ...]:
    from risbench.benchmark.subjects import ablations

    return tuple(ablations())


def _default_models() -> tuple[str, ...]:
    from risbench.benchmark.subjects import DEFAULT

    return (DEFAULT,)


def _baselines() -> tuple[str, ...]:
    from risbench.benchmark.eval.baseline_names import BASELINES

    return BASELINES


def _configs() -> tuple[str, ...]:
    from risbench.benchmark.load_settings import bundled

    return tuple(bundled())


# What stands between braces in a help text is filled with the names of a registry when the help is shown; no text repeats them.
NAMES: Final[dict[str, Callable[[], Sequence[str]]]] = {
    "{input formats}": _input_formats,
    "{release formats}": _release_formats,
    "{models}": _models,
    "{ablations}": _ablations,
    "{default models}": _default_models,
    "{baselines}": _baselines,
    "{configs}": _configs,
    "{engines}": _engines,
    "{checkpoints}": _checkpoints,
}


class NamingCommand(TyperCommand):
    """A command whose help names what the registries hold."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Fill the names in, then show the help."""
        for parameter in self.params:
            text = getattr(parameter, "help", None)
            for place, names in NAMES.items():
                if text is not None and place in text:
                    text = text.replace(place, ", ".join(names()))
                    parameter.help = text  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


class SplitCommand(NamingCommand):
    """A command whose --split may stand bare: at the end, or before another option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare --split its default rule before the usual parsing."""
        filled: list[str] = []
        for index, word in enumerate(args):
            filled.append(word)
            following = args[index + 1] if index + 1 < len(args) else None
            if word == "--split" and (following is None or (following.startswith("-") and not following[1:2].isdigit())):
                filled.append(DEFAULT_SPLIT)
        return super().parse_args(ctx, filled)


def at_home(word: str) -> str:
    """Return a word of a command line with a leading `~` as the home folder, which no shell does in quotes or behind `--option=`."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + equals + os.path.expanduser(value) if value == "~" or value.startswith("~/") else word


class SafeGroup(TyperGroup):
    """The command group: a user's error is one line on standard error and its exit code, never a traceback."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, `~` taken for the home folder in what it is given."""
        return super().resolve_command(ctx, [at_home(word) for word in args])

    def invoke(self, ctx: Any) -> Any:
        """Run the command and translate errors that are the user's to mend."""
        from risbench.core.errors import InvalidRowError, RisbenchError, printable
        from risbench.core.reading import is_system_failure

        try:
            return super().invoke(ctx)
        except RisbenchError as error:
            typer.echo(f"risbench: {printable(str(error), 2000)}", err=True)
            raise typer.Exit(error.exit_code) from None
        except InvalidRowError as reason:
            typer.echo(f"risbench: {printable(str(reason), 2000)}", err=True)
            raise typer.Exit(3) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            mend = "; mend that, then run the same command to go on" if is_system_failure(error) else ""
            typer.echo(f"risbench: {printable(where + str(error.strerror or error) + mend, 2000)}", err=True)
            raise typer.Exit(4) from None
        except KeyboardInterrupt:
            raise _interrupted() from None
        except Exception:
            # code of a library that was interrupted may turn that into an error of its own
            if interrupts.came:
                raise _interrupted() from None
            raise


class Interrupts:
    """Whether Ctrl-C or SIGTERM came; `handle` is what a process does on either."""

    came = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note it, and end the command as Ctrl-C does."""
        self.came = True
        raise KeyboardInterrupt


interrupts = Interrupts()


def _interrupted() -> typer.Exit:
    typer.echo("risbench: interrupted; the same command goes on from here", err=True)
    return typer.Exit(130)


# Not `readable`: whether a path can be read is for the command to find out, which tells a failing system from a wrong name.
WorkspaceOption = Annotated[Path, typer.Option("--workspace", "-w", readable=False, help="The workspace folder.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print no progress.")]
CsvOption = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE", dir_okay=False, readable=False, help="Also write the figures as a table.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def show(result: dict[str, Any], as_json: bool, printer: Callable[[dict[str, Any]], None]) -> None:
    """Print a result as JSON, or as its printer does."""
    if as_json:
        typer.echo(json.dumps(result, indent=1, sort_keys=True, ensure_ascii=True))
    else:
        printer(result)


def save_table(result: Any, path: Path | None, kind: str) -> None:
    """Write a command's figures as CSV where a file is named; `kind` is the command."""
    if path is None:
        return
    from risbench.api import tables

    frame: Callable[[Any], Any] = getattr(tables, f"{kind}_frame")
    tables.write_csv(frame(result), path)
