"""The command line: parses, calls one function, prints. Heavy imports wait until a command needs them."""

__all__ = ["app", "main"]

import contextlib
import signal
import sys
import traceback
import warnings
from types import FrameType
from typing import Annotated

import typer

from textdiff import __version__, console
from textdiff.commands.ablate import ablate
from textdiff.commands.cache import cache_export, cache_import, cache_info, cache_verify
from textdiff.commands.compare import compare
from textdiff.commands.curve import curve
from textdiff.commands.data import data_check
from textdiff.commands.demo import demo
from textdiff.commands.extract import extract
from textdiff.commands.fit import fit
from textdiff.commands.next import next_image
from textdiff.commands.panel import panel
from textdiff.commands.predict import predict
from textdiff.commands.pretrain import pretrain
from textdiff.commands.report import report
from textdiff.commands.score import score
from textdiff.commands.setup import doctor, download
from textdiff.commands.sweep import sweep
from textdiff.errors import UserError

STOPPED = 130

# Typer carries its own copy of Click or uses the installed one, by version: this is the base class in either.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="Label-efficient segmentation of medical images from a frozen diffusion model and text.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cache_app = typer.Typer(help="Look into, check and convert a feature cache.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
data_app = typer.Typer(help="Look into a data set.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def main() -> None:
    """Entry point of ``textdiff``: status 0, 2 for a user's mistake, 130 when stopped, 1 for a defect of ours."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    signal.signal(signal.SIGTERM, _stop)
    # Pillow's remark on large images: the limit is ours, and an image beyond it gets a line that says what to do.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    try:
        with contextlib.redirect_stdout(console.SafeOutput(sys.stdout)):
            status = app(args=arguments, prog_name="textdiff", standalone_mode=False)
    except UserError as error:
        status = _fail(str(error), debug)
    except UsageError as error:
        status = _fail(f"{_describe(error)} (`textdiff --help` lists commands and options)", debug)
    except (KeyboardInterrupt, typer.Abort):
        status = STOPPED
    except SystemExit as stop:  # Typer turns a KeyboardInterrupt into one by itself
        status = stop.code
    except BrokenPipeError:
        # The reader of our output, as in `textdiff score | head`, has seen enough.
        sys.stderr.close()
        status = 0
    if status == STOPPED:
        console.info("")
        console.info(
            "stopped; finished work is kept. Run the same command again to go on "
            "(fit: add --resume, which goes on from the last checkpoint)"
        )
    sys.exit(status if isinstance(status, int) else 0)


def _describe(error: BaseException) -> str:
    message: str = error.format_message()  # type: ignore[attr-defined]
    return message.rstrip(".")


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    console.info(f"error: {' '.join(message.split())}")
    return 2


def _version(value: bool) -> None:
    if value:
        print(f"textdiff {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


app.command()(extract)
app.command()(fit)
app.command()(score)
app.command()(report)
app.command()(predict)
app.command("next")(next_image)
app.command()(pretrain)
app.command()(demo)
app.command()(ablate)
app.command()(sweep)
app.command()(curve)
app.command()(compare)
app.command()(panel)
app.command()(doctor)
app.command()(download)
data_app.command("check")(data_check)
cache_app.command("info")(cache_info)
cache_app.command("verify")(cache_verify)
cache_app.command("export")(cache_export)
cache_app.command("import")(cache_import)

if __name__ == "__main__":
    main()
