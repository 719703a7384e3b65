"""``extract`` under faults, injected at random: rows lost, rows wrong, and whether the bytes are equal.

    python benchmarks/faults.py [--kills 50] [--times 10] [--only WORD ...] [--seed 0] [--images 8] [--bucket]
        [--flips 26] [-- OPTION ...]

With ``--bucket`` caches are in a bucket of moto's S3 on loopback, and kinds of faults those of a network. What follows
``--`` goes to extract: ``-- --devices cpu,cpu``. After every fault all rows in the ledger are verified and compared
with those of an undisturbed run; then the same command goes on, and the whole cache is compared byte for byte. Prints
Markdown, and the notes of what was not as it should be; the status is 1 then.
"""

import argparse
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from textdiff import console
from textdiff.tables import markdown_table
from textdiff.tests.bucket_faults import BUCKET_FAULTS, BucketScene
from textdiff.tests.fault_cases import FAULTS, Outcome, Scene, try_fault
from textdiff.tests.fault_server import Server
from textdiff.tests.object_store import bucket

NAMES = ("kind", "times", "rows lost", "rows wrong", "bytes equal", "one line or none")


def times(kind: str, options: argparse.Namespace) -> int:
    """How often a kind is tried: of flipped bytes, each kind of object at least once."""
    return (
        max(options.times, options.flips)
        if "flipped" in kind
        else options.kills
        if "SIGKILL" in kind
        else options.times
    )


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", nargs="*", default=[], help="kinds of faults that contain one of these words")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--flips", type=int, default=26, help="flipped bytes at least, of as many kinds of objects")
    parser.add_argument("--bucket", action="store_true")
    parser.add_argument("--notes", action="store_true", help="also where all is as it should be")
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, more = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    faults = BUCKET_FAULTS if options.bucket else FAULTS
    kinds = [kind for kind in faults if not options.only or any(word in kind for word in options.only)]
    if not any(option in more for option in ("--devices", "--scheduler")):
        kinds = [kind for kind in kinds if "one worker" not in kind]
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder, bucket() if options.bucket else nullcontext() as proxy:
        server = Server()  # in the environment that leads to the bucket
        arguments = (Path(folder) / "scene", server, more, options.images, options.seed)
        scene = BucketScene(*arguments, proxy=proxy) if options.bucket else Scene(*arguments)
        rows = len([name for name in scene.bytes if name.startswith("ledger/c.")])
        print(f"extract {' '.join(more)}: {rows} rows, {len(scene.bytes)} files, {scene.seconds:.1f} s undisturbed\n")
        with console.Progress(len(kinds), "faults", "kinds") as progress:
            for kind in kinds:
                try:
                    outcomes.append(try_fault(kind, scene, times(kind, options), faults))
                except PermissionError as error:
                    console.warn(f"{kind}: {error}")
                progress.advance(note=str(outcomes[-1:]))
        server.close()
    lines = [
        (
            outcome.kind,
            str(outcome.times),
            str(outcome.lost),
            str(outcome.wrong),
            "yes" if not outcome.unequal else f"no, {outcome.unequal}",
            "yes" if not outcome.untold else f"no, {outcome.untold}",
        )
        for outcome in outcomes
    ]
    print(markdown_table(NAMES, lines, "lrrrrr"))
    for outcome in outcomes:
        if options.notes or not outcome.sound:
            print(f"\n{outcome.kind}:", *outcome.notes, sep="\n")
    return 0 if all(outcome.sound for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
