"""Who fills the rows where that is not this process alone: a process for each device, or the workers of a cluster."""

__all__ = ["Crew", "hire"]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from textdiff.pipeline.extraction.config import ExtractConfig
from textdiff.pipeline.extraction.row_worker import Job
from textdiff.pipeline.extraction.timings import Timings


class Crew(Protocol):
    """Workers that fill a cache which is there, with all its metadata."""

    @property
    def precision(self) -> str:
        """What all of them compute in; it determines the features, so it is asked for first."""

    @property
    def where(self) -> str:
        """Who and where they are, in a few words."""

    def fill(self, job: Job) -> Timings:
        """Has the rows made; those of a worker that dies are done again by others.

        Returns:
            Where the time of all workers together went, but for what those did that died of it.

        Raises:
            UserError: bad input, or no worker is left; what is finished is kept.
        """


@contextmanager
def hire(config: ExtractConfig) -> Iterator[Crew | None]:
    """The crew that the options ask for, until the work is done; None where this process does it.

    Raises:
        UserError: there is none to be had.
    """
    if config.scheduler is not None:
        from textdiff.pipeline.extraction.dask_crew import dask_crew

        with dask_crew(config.scheduler, config.device, config.precision) as crew:
            yield crew
    elif config.devices:
        from textdiff.pipeline.extraction.device_crew import DeviceCrew

        yield DeviceCrew(config.devices, config.precision)
    else:
        yield None
