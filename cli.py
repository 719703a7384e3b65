"""The command line: parses, calls one function, prints. Heavy imports wait until a command needs them."""

__all__ = ["app", "main"]

import contextlib
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated

import typer

from textdiff import __version__, console
from textdiff.commands import show
from textdiff.commands.make import Command, add, usage
from textdiff.errors import explain
from textdiff.options.experiments import Ablate, Compare, Curve, Panel, Sweep, Table1, TextCheck
from textdiff.options.extract import Extract
from textdiff.options.fit import Fit
from textdiff.options.pretrain import Pretrain
from textdiff.options.run import Combine, Predict, Rank, Report, Score
from textdiff.options.tools import (
    CacheExport,
    CacheGc,
    CacheImport,
    CacheInfo,
    CacheRepair,
    CacheVerify,
    DataCheck,
    Demo,
    Doctor,
    Download,
    Start,
)
from textdiff.stopping import how_to_go_on, stop_on_signals

STOPPED = 130

# Typer carries its own copy of Click or uses the installed one, by version: this is the base class in either.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

COMMANDS = {
    "start": Command(Start, "commands.start:start", show.paths),
    "extract": Command(Extract, "pipeline.extract:extract", show.cache),
    "fit": Command(Fit, "pipeline.fit:fit_or_resume", show.run),
    "combine": Command(Combine, "pipeline.combine:combine", show.run),
    "score": Command(Score, "pipeline.score:score", show.scores, as_json=True),
    "report": Command(Report, "pipeline.reporting.report:write_report", show.paths),
    "predict": Command(Predict, "pipeline.predict:predict", show.paths),
    "next": Command(Rank, "pipeline.prediction.ranking:rank", show.ranking, as_json=True),
    "pretrain": Command(Pretrain, "pipeline.pretrain:pretrain", show.paths),
    "demo": Command(Demo, "pipeline.demo:demo", show.demo, takes=("out", "device")),
    "ablate": Command(Ablate, "experiments.ablate:ablate", show.outcome, as_json=True),
    "table1": Command(Table1, "experiments.table1:table1", show.outcome, as_json=True),
    "sweep": Command(Sweep, "experiments.sweep:sweep", show.outcome, as_json=True),
    "curve": Command(Curve, "experiments.curve:curve", show.outcome, as_json=True),
    "compare": Command(Compare, "experiments.compare:compare", show.outcome, as_json=True),
    "text-check": Command(TextCheck, "experiments.text_check:text_check", show.outcome, as_json=True),
    "panel": Command(Panel, "experiments.panel:panel", show.panel),
    "doctor": Command(Doctor, "pipeline.doctor:diagnose", show.checks, as_json=True, takes=("cache_dir",)),
    "download": Command(Download, "pipeline.fetch:download", show.paths),
    "data check": Command(DataCheck, "commands.tools:data_check", show.data, as_json=True),
    "cache info": Command(CacheInfo, "commands.tools:cache_info", show.info, as_json=True),
    "cache verify": Command(CacheVerify, "cache.verify:verify_cache", show.faults, as_json=True, takes=("path",)),
    "cache repair": Command(CacheRepair, "cache.repair:repair_cache", show.lines, as_json=True, takes=("path",)),
    "cache gc": Command(CacheGc, "cache.gc:collect", show.lines, as_json=True, takes=("path", "delete")),
    "cache export": Command(CacheExport, "commands.tools:cache_export", show.paths),
    "cache import": Command(CacheImport, "cache.hdf5:import_hdf5", show.paths, takes=("path", "out")),
}
GROUPS = {"data": "Look into a data set.", "cache": "Look into, check and convert a feature cache."}


def main() -> None:
    """Entry point of ``textdiff``.

    The status is 0, 2 for what the user can mend (a mistake, a full disk, too little memory), 130 when stopped, and 1
    for a defect of ours.
    """
    for stream in ("stdin", "stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by the caller
            setattr(sys, stream, Path(os.devnull).open("r" if stream == "stdin" else "w"))  # noqa: SIM115
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if not arguments or (len(arguments) == 1 and arguments[0] in GROUPS):
        arguments.append("--help")  # who names no command asks which there are; Typer makes an error of it
    # Pillow's remark on large images: the limit is ours, and an image beyond it gets a line that says what to do.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    with stop_on_signals() as received:
        status = _run(arguments, debug, received)
    sys.exit(status if isinstance(status, int) else 0)


def _run(arguments: list[str], debug: bool, received: list[int]) -> object:
    status: object
    try:
        with contextlib.redirect_stdout(console.SafeOutput(sys.stdout)):
            status = app(args=arguments, prog_name="textdiff", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        status = STOPPED
    except SystemExit as stop:  # Typer turns a KeyboardInterrupt into one by itself
        status = STOPPED if received else stop.code
    except BrokenPipeError:
        # The reader of our output, as in `textdiff score | head`, has seen enough.
        sys.stderr.close()
        status = 0
    except Exception as error:
        # PyTorch fails to close the file whose writing was interrupted, and ours may take a half for a damaged one.
        status = STOPPED if received or _interrupted(error) else _failure(error, debug)
    if status == STOPPED:
        console.info("")
        console.info(f"stopped; finished work is kept. Run the same command again {how_to_go_on() or 'to go on'}")
    return status


def _interrupted(error: BaseException | None) -> bool:
    """Whether an error came of a stop that was put off until the step under way was finished."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _failure(error: Exception, debug: bool) -> int:
    """Says what the user can mend; a defect goes on as it is."""
    if isinstance(error, UsageError):
        return _fail(usage(error), debug)
    _name_output(error)
    if (line := explain(error)) is None:
        raise error
    return _fail(line, debug)


def _name_output(error: Exception) -> None:
    """Names the standard output in an error that came of writing to it, and keeps Python from trying again."""
    if isinstance(error, OSError) and error.filename is None:
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            error.filename = "standard output"


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    with contextlib.suppress(OSError):  # a full disk may be where the messages go, too
        console.info(f"error: {' '.join(message.split())}")
    return 2


def _version(value: bool) -> None:
    if value:
        print(f"textdiff {__version__}")
        raise typer.Exit


def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


def _app() -> typer.Typer:
    app = typer.Typer(
        help="Label-efficient segmentation of medical images from a frozen diffusion model and text.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_global)
    groups = {name: typer.Typer(help=text, no_args_is_help=True) for name, text in GROUPS.items()}
    for name, command in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        add(groups[group] if group else app, last, command)
    for name, group_app in groups.items():
        app.add_typer(group_app, name=name)
    return app


app = _app()

if __name__ == "__main__":
    main()
