"""``textdiff doctor`` and ``textdiff download``: what a machine has and lacks."""

__all__ = ["doctor", "download"]

import json
from pathlib import Path
from typing import Annotated

import typer

from textdiff.commands.options import AsJson


def doctor(
    cache_dir: Annotated[Path, typer.Option("--cache-dir", help="Where caches will be stored.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Check this machine: PASS, WARN or FAIL per line, with the fix."""
    from textdiff.pipeline.doctor import diagnose

    checks = diagnose(cache_dir)
    if as_json:
        print(json.dumps([check._asdict() for check in checks], indent=2))
    else:
        for check in checks:
            print(check)
    if any(check.status == "FAIL" for check in checks):
        raise typer.Exit(1)


def download(
    name: Annotated[str, typer.Argument(help="adm-256, clinical-biobert or monuseg.")],
    to: Annotated[Path | None, typer.Option(help="Where to store it; the usual place by default.")] = None,
    url: Annotated[str | None, typer.Option(help="Another place to fetch it from.")] = None,
) -> None:
    """Fetch weights or a data set ahead of time: resumed, verified, atomic."""
    from textdiff.pipeline.downloads.fetch import fetch

    print(fetch(name, to, url))
