"""What the commands print of their results: ``show(result, options, as_json)``."""

__all__ = [
    "cache",
    "checks",
    "data",
    "demo",
    "faults",
    "info",
    "lines",
    "outcome",
    "panel",
    "paths",
    "ranking",
    "run",
    "scores",
]

import json
import os
import shlex
from collections.abc import Iterable
from typing import Any

import typer

from textdiff import console
from textdiff.errors import UserError, quoted
from textdiff.places import from_here


def paths(result: Any, options: Any, as_json: bool) -> None:
    """Prints a path, or several as they come."""
    for path in result if isinstance(result, Iterable) else [result]:
        print(os.fspath(path))


def run(result: Any, options: Any, as_json: bool) -> None:
    """Prints a run's directory, and says what to do with it."""
    print(os.fspath(result), flush=True)
    cache = getattr(options, "cache", None)
    opened, words = result.open_cache(cache), ["--run", os.fspath(result)]
    scored = any(row.split == "test" and row.has_mask for row in opened.rows)
    if scored and cache is not None and str(opened.path.resolve()) != result.config["cache"]:
        words += ["--cache", str(cache)]  # it is not where the fit began
    console.info(f"next: textdiff {'score' if scored else 'predict IMAGES'} {shlex.join(words)}")


def cache(result: Any, options: Any, as_json: bool) -> None:
    """Says what to do with a cache that is complete."""
    if not options.dry_run and not result.pending():
        if not any(row.split == "train" and row.has_mask for row in result.rows):
            if not all(row.has_mask for row in result.rows):
                console.info(
                    f"next: textdiff next --cache {quoted(result.path)}; it names the images to draw masks of first"
                )
        else:
            variant = "" if result.text_dim and any(result.texts) else " --variant no-text"
            console.info(f"next: textdiff fit --cache {quoted(result.path)}{variant}")


def scores(result: Any, options: Any, as_json: bool) -> None:
    """Prints the table, and says where the files are and what to do with them."""
    print(result.json.rstrip() if as_json else result.table)
    for file in result.files:
        console.info(f"wrote {file}")
    run = f"--run {quoted(options.directory())}"
    run += "" if options.split == "test" else f" --split {options.split}"
    run += "" if options.cache is None else f" --cache {quoted(options.cache)}"
    if options.text is None:
        console.info(f"next: textdiff report {run}")
    elif result.summary["differences"] is None:
        console.info(f"to see the difference: textdiff score {run}, and this command again")


def ranking(result: Any, options: Any, as_json: bool) -> None:
    """Prints the images to annotate next."""
    from textdiff.pipeline.prediction.ranking import format_ranking

    shown = result.candidates[: options.top]
    print(_json([line._asdict() for line in shown]) if as_json else format_ranking(shown))
    if result.file is not None:
        console.info(f"wrote {result.file}: {console.counted(len(result.candidates), 'candidate')}")
    place = from_here(result.cache)
    console.info("next, once some of them have their mask in the data set:")
    console.info(f"    textdiff extract --cache {quoted(place)} --update && textdiff fit --cache {quoted(place)}")


def demo(result: Any, options: Any, as_json: bool) -> None:
    """Prints the demonstration's table, and where to look further."""
    print(result.table)
    print(f"\nthe report is {result.report}, the overlays are {result.overlay}")


def outcome(result: Any, options: Any, as_json: bool) -> None:
    """Prints an experiment's table, and says where the files are.

    Raises:
        UserError: a job failed.
    """
    print(_json(result.summary) if as_json else result.text)
    for file in result.files:
        console.info(f"wrote {file}")
    for failure in result.failures:
        console.warn(failure)
    if result.failures:
        raise UserError("not all jobs could be done, see the warnings above; the table is of the others")


def panel(result: Any, options: Any, as_json: bool) -> None:
    """Says where the picture is."""
    console.info(f"wrote {options.out}")


def data(result: Any, options: Any, as_json: bool) -> None:
    """Prints what a data set holds; status 1 if it is not sound."""
    print(json.dumps(result.as_json(), indent=2, ensure_ascii=False) if as_json else result.table())
    if not result.sound:
        raise typer.Exit(1)


def info(result: Any, options: Any, as_json: bool) -> None:
    """Prints what a cache holds."""
    from textdiff.cache import format_info

    print(_json(result) if as_json else format_info(result))


def faults(result: Any, options: Any, as_json: bool) -> None:
    """Prints the faults of a cache; status 1 if there are any."""
    lines(result, options, as_json)
    if result:
        raise typer.Exit(1)


def checks(result: Any, options: Any, as_json: bool) -> None:
    """Prints the checks of a machine; status 1 if one fails."""
    lines(result, options, as_json)
    if any(check.status == "FAIL" for check in result):
        raise typer.Exit(1)


def lines(result: Any, options: Any, as_json: bool) -> None:
    """Prints what was found, a line each."""
    for line in [_json([line._asdict() for line in result])] if as_json else result:
        print(line)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)
