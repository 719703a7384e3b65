"""Which part of the rows the task of a SLURM job array does (https://slurm.schedmd.com/job_array.html)."""

__all__ = ["array_shard", "say_shard"]

from collections.abc import Mapping

from textdiff import console
from textdiff.errors import UserError

_ID = "SLURM_ARRAY_TASK_ID"


def array_shard(environment: Mapping[str, str]) -> tuple[int, int]:
    """The part (i, n) of the task that this process is of: ``--array=0-7``, ``1-8`` and ``0-14:2`` have eight each.

    Args:
        environment: of the process, in which SLURM tells a task which one it is.

    Raises:
        UserError: it is of no array, or of one that is no range.
    """
    if _ID not in environment:
        raise UserError(
            f"--shard slurm: {_ID} is not set, so this is no task of a job array; submit with `sbatch --array=0-7`, or "
            "give --shard I/N"
        )
    try:
        own = int(environment[_ID])
        usual = {"COUNT": 1, "MIN": own, "STEP": 1}
        count, first, step = (int(environment.get(f"SLURM_ARRAY_TASK_{name}", usual[name])) for name in usual)
        index, rest = divmod(own - first, step)
    except (ValueError, ZeroDivisionError):
        raise UserError(
            "--shard slurm: SLURM_ARRAY_TASK_ID and those beside it are no numbers; give --shard I/N"
        ) from None
    if rest or not 0 <= index < count:
        raise UserError(
            f"--shard slurm: task {own} is of an array of {count} that is no range; submit a range, as --array=0-7. "
            "Rows that are there are not made again"
        )
    return index, count


def say_shard(shard: tuple[int, int], asked: object, environment: Mapping[str, str]) -> None:
    """Says which part is done, if it is not all; and of an array whose tasks would all do the same, what shares it.

    Args:
        shard: the part (i, n).
        asked: the value of ``--shard``.
        environment: of the process.
    """
    if asked == "slurm":
        console.info(f"shard {shard[0]}/{shard[1]}: task {environment[_ID]} of the job array")
    elif shard == (0, 1) and (count := environment.get("SLURM_ARRAY_TASK_COUNT", "1")) != "1":
        console.info(f"one of {count} tasks of a job array, which does all rows; with --shard slurm they share them")
