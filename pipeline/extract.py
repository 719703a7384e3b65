"""Stage one: every image once through the noised UNet, its decoder activations and its text into the cache."""

__all__ = ["ExtractConfig", "extract"]

import errno

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.options.extract import Extract
from textdiff.pipeline.extraction.config import ExtractConfig
from textdiff.pipeline.extraction.fill import Flow, fill_rows
from textdiff.pipeline.extraction.filling import Filling, begin_filling, end_filling
from textdiff.pipeline.extraction.plan import say_plan
from textdiff.pipeline.extraction.timings import Timings
from textdiff.pipeline.extraction.work import Work, plan_of, resolve_work


def extract(options: Extract) -> FeatureCache:
    """Fills the cache at ``options.cache`` with the rows it does not hold yet.

    Rows that are already there are kept if everything that determines the features is the same (the fingerprint), so
    running the same command again continues where it was stopped. If so, but the data set has changed, ``update`` makes
    a new cache beside the old one, of its rows as far as they hold, and puts it in its place once it is complete.

    Returns:
        The cache, opened; complete unless ``shard`` or ``dry_run`` says otherwise. A dry run makes none: it returns the
        one that is there, or ``FeatureCache.plan``'s. Where the time went is in its ``filled``.

    Raises:
        UserError: bad input; weights that are not there; a cache made otherwise; a disk that cannot hold the rows.
        KeyboardInterrupt: the run was stopped; the rows in progress are dropped, all others are kept.
    """
    work = resolve_work(options)
    made = plan_of(work)
    filling = begin_filling(work.config, made, work.embed)
    work.encoder = None  # its memory is for the backbone
    return _fill(work, filling)


def _fill(work: Work, filling: Filling) -> FeatureCache:
    """Takes over or makes each row that is missing, unless in a dry run; ends the filling."""
    config, cache = work.config, filling.cache
    backbone = work.extractor()
    timings: Timings | None = None
    try:
        if filling.old is not None:
            console.info(f"{config.cache}: {len(filling.taken)} rows are taken over, {len(filling.made)} are made")
        if filling.made or filling.old is None:
            say_plan(cache, filling.made, backbone, work.device, config)
        if filling.to_do and not config.dry_run:
            done = len(cache.rows) - len(cache.pending())
            flow = Flow.of(cache, work.device, config.batch)
            with console.Progress(done + len(filling.to_do), "extract", "rows", done=done) as progress:
                prepare = work.preparation(cache)
                timings = fill_rows(filling, filling.to_do, prepare, backbone, flow, progress.advance)
            console.info(f"where the time went: {timings}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        left = len(cache.pending())
        raise UserError(
            f"{config.cache}: the disk is full; the {len(cache.rows) - left} finished rows are safe. Free "
            f"{console.size(left * cache.row_nbytes)} and run the same command again to go on"
        ) from error
    if config.dry_run:
        return filling.old or cache
    complete = end_filling(filling)
    complete.filled = timings.as_json() if timings else None
    return complete
