"""The cache that ``extract`` fills, in its place or beside it: what there is of its rows, and whose the others are."""

__all__ = ["Filling", "begin_filling", "end_filling", "shares", "take_over"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from textdiff import console
from textdiff.cache import CacheError, FeatureCache, Row
from textdiff.cache.chunks import ChunkError
from textdiff.cache.create import CachePlan
from textdiff.cache.fingerprint import same_features
from textdiff.cache.repair import Embed, repair
from textdiff.cache.rows import DamagedError, most_views
from textdiff.cache.stores import leases, store_at
from textdiff.cache.stores.remote import RemoteStore
from textdiff.cache.stores.writers import writing
from textdiff.cache.update import can_link, clear_updates, find_rows, put_in_place, restore, update_path, updates
from textdiff.files import check_free_space
from textdiff.pipeline.extraction.config import ExtractConfig
from textdiff.pipeline.extraction.prepare import Prepared
from textdiff.places import Location

_OPTIONS = {"--views": True, "--test-views": False}
"""By the option whether it is about training images."""
# Beside the table, as what lists the group should not come across it.
_LEASE = "table/.lease-{}-of-{}"


@dataclass(frozen=True)
class Filling:
    """A cache with rows still to come, and where they come from."""

    cache: FeatureCache
    """Opened for writing; in a dry run for reading, or only planned."""
    old: FeatureCache | None
    """The cache of other samples whose place it takes once it is complete; None for one that is in its place."""
    taken: dict[int, tuple[FeatureCache, int]]
    """By rows that are taken over, the cache and the row that hold their activations."""
    made: list[int]
    """The rows that the backbone is needed for."""

    @property
    def to_do(self) -> list[int]:
        """Both, those first that take no time."""
        return [*self.taken, *self.made]


def begin_filling(config: ExtractConfig, plan: CachePlan, embed: Embed) -> Filling:
    """Opens the cache that is to be filled, repaired if it is damaged; makes it where it is not there yet.

    It grows in its place, or beside a cache that is there of other samples. A dry run changes nothing.

    Args:
        config: where, which shard's rows, and whether to overwrite or to update.
        plan: of the cache that is wanted.
        embed: makes the embeddings of texts.

    Raises:
        CacheError: what is there was made otherwise, or of other samples and is not to be updated.
        UserError: the disk has no room for the rows. Nothing was written.
    """
    planned = FeatureCache.plan(config.cache, **plan)

    def opened(path: Location) -> FeatureCache:
        if not config.dry_run:
            repair(path, plan, embed)
        return FeatureCache.open(path, writable=not config.dry_run)

    restore(config.cache)
    place: Location = config.cache
    cache, old, others = None, None, list[FeatureCache]()
    if store_at(place).occupied() and not config.overwrite:
        cache = opened(place)
        other_masks = cache.fingerprint_hash != planned.fingerprint_hash
        if not (other_masks and config.update and same_features(cache.fingerprint, planned.fingerprint)):
            cache.check_fingerprint(planned.fingerprint)
        if (changes := cache.differing_table(planned.rows, planned.texts)) or other_masks:
            if not config.update:
                raise _refuse_changed(cache, planned, changes)
            old, place = cache, update_path(place, planned.fingerprint_hash, planned.table_hash)
            begun = _begun_updates(old, config.dry_run)
            cache = opened(place) if place in begun else None
            others = [old, *(one for path, one in begun.items() if one is not None and path != place)]
            others = [one for one in others if same_features(one.fingerprint, planned.fingerprint)]

    taken, made = find_rows(cache or planned, others, config.shard)
    if old is not None:
        _check_update_space(old, planned, len(taken), len(made))
    if config.dry_run:
        return Filling(cache or planned, old, taken, made)
    if cache is None:
        tokens, token_mask = embed(planned.texts)
        rows_to_write = 0 if old else len(made)
        cache = FeatureCache.create(
            place, **plan, tokens=tokens, token_mask=token_mask, overwrite=config.overwrite, rows_to_write=rows_to_write
        )
        taken, made = find_rows(cache, others, config.shard)  # another process may have been quicker
    elif config.update:
        cache.describe(planned.about)
    cache.store.mark_in_use(cache)
    if config.durable:
        cache.make_durable()
    if old is None and (config.overwrite or config.update):
        clear_updates(config.cache)
    return Filling(cache, old, taken, made)


def take_over(filling: Filling, ready: Prepared) -> bool:
    """Takes a row over if another cache holds it, and says whether; one that is damaged there is named."""
    if ready.row not in filling.taken:
        return False
    source, place = filling.taken[ready.row]
    try:
        filling.cache.take_over(ready.row, source, place, ready.image, ready.mask, ready.truth, ready.instances)
    except ChunkError as error:
        console.warn(f"{source.path}: row {place} ({source.rows[place]}): {error}; it is made anew")
        return False
    return True


def end_filling(filling: Filling) -> FeatureCache:
    """The cache in its place: one that grew beside it is put there if it is complete, and else stays where it is."""
    cache, old = filling.cache, filling.old
    if old is None:
        return cache
    left = len(cache.pending())
    if left and cache.store.occupied():  # else another process has put it in its place
        rows = f"{console.counted(left, 'row')} of the update {console.form(left, 'is', 'are')}"
        console.info(f"{old.path}: {rows} left to other processes; until then it stays")
        return cache
    put_in_place(cache.path, old.path)
    console.info(f"{old.path}: is updated, and has {console.counted(len(cache.rows), 'row')}")
    return FeatureCache.open(old.path)


def _begun_updates(old: FeatureCache, dry_run: bool) -> dict[Location, FeatureCache | None]:
    """The caches that were begun to replace ``old``, by their places; None stands for one that has to be repaired.

    What is left of one whose removal was interrupted is removed, unless in a dry run.
    """
    begun: dict[Location, FeatureCache | None] = {}
    for place in updates(old.path):
        try:
            begun[place] = FeatureCache.open(place)
        except DamagedError:
            begun[place] = None
        except CacheError:
            if not dry_run:
                store_at(place).clear()
    return begun


def _check_update_space(old: FeatureCache, planned: FeatureCache, kept: int, made: int) -> None:
    """Checks that the disk holds the new rows beside the old cache.

    Rows taken over are files of both caches, where the file system can do that; elsewhere they are copies.

    Args:
        old: the cache that is there.
        planned: the new cache, for its sizes.
        kept: how many rows are taken over.
        made: how many are made.

    Raises:
        UserError: it does not. Nothing was written.
    """
    linked = not kept or can_link(old.path)
    of_kept = planned.image_size**2 if linked else planned.row_nbytes  # its mask is new in any case
    needed = made * planned.row_nbytes + kept * of_kept
    copies = "" if linked else f" and copies of the {kept} others"
    needs = console.form(made, "needs", "need") if linked else "need"
    what = f"beside the old cache, which stays until they are there, {console.counted(made, 'new row')}{copies} {needs}"
    check_free_space(old.path, needed, what, "free some. Nothing was written")


def _refuse_changed(old: FeatureCache, planned: FeatureCache, changes: Sequence[str]) -> CacheError:
    """What is said of a cache whose data set has changed since."""
    rows, kept = planned.rows, len(find_rows(planned, [old])[0])
    if other := _other_views(old, planned):
        return CacheError(
            f"{old.path}: repeat the command that made it; or --update keeps {kept} of {len(rows)} rows, makes the "
            f"others and drops what was not asked for, another --cache leaves this one. It was {other}"
        )
    return CacheError(
        f"{old.path}: --update keeps {kept} of {len(rows)} rows and makes the others, --overwrite makes all anew, "
        f"another --cache leaves this one; the data set is not the one it was made of: {'; '.join(changes)}"
    )


def _other_views(here: FeatureCache, asked: FeatureCache) -> str:
    """Which views, or texts of views, were asked for, if nothing else differs from what is here; otherwise nothing."""
    if _unturned(here) != _unturned(asked):
        return ""
    made = {option: [most_views(one.rows, training=t) for one in (here, asked)] for option, t in _OPTIONS.items()}
    said = [f"made with {option} {then}, and {now} asked for" for option, (then, now) in made.items() if then != now]
    return "; ".join(said) or "made with other texts for turned views (--turn-texts, --no-turn-texts)"


def _unturned(cache: FeatureCache) -> list[tuple[Row, str]]:
    """The rows of images as they are, and their texts, whatever their numbers are among those of further views."""
    return [(replace(row, text=-1), cache.text_of(row)) for row in cache.rows if row.view == 0]


def shares(filling: Filling, shard: tuple[int, int]) -> Iterator[Filling]:
    """The rows that this process is to do: its own, and then those of shards whose process shows no sign of life.

    Every process holds a lease on its shard while it works. One that has done its own watches the leases of the others,
    takes over what is left of those that are not renewed, and ends once all others are. A shard that no process has
    begun is left to the one that is to come. On a disk there are no leases, and each does its own.

    Args:
        filling: with this process's rows.
        shard: (k, n), which these are.
    """
    store, (own, count) = filling.cache.store, shard
    with writing(store):
        if not isinstance(store, RemoteStore) or count == 1:
            if filling.to_do:
                yield filling
            return
        names = {_LEASE.format(other, count): other for other in range(count)}
        mine = _LEASE.format(own, count)
        # Who is asked to do a shard does it, whoever had it before.
        if filling.to_do and (lease := leases.Lease.take(store, mine, store.tag(mine))) is not None:
            with lease:
                yield filling
        elif filling.to_do:
            yield filling
        while left := {row % count for row in filling.cache.pending()}:
            dead = leases.wait_for_dead(store, [name for name, other in names.items() if other in left])
            if dead is None:
                return
            name, tag = dead
            taken, made = find_rows(filling.cache, [filling.old] if filling.old else [], (names[name], count))
            if (lease := leases.Lease.take(store, name, tag)) is not None:
                console.info(
                    f"{filling.cache.path}: the process of --shard {names[name]}/{count} shows no sign of life; its "
                    f"{console.counted(len(taken) + len(made), 'row')} "
                    f"{console.form(len(taken) + len(made), 'is', 'are')} done here"
                )
                with lease:
                    yield replace(filling, taken=taken, made=made)
        for name in names:
            store.delete(name)  # of who was killed after its last row
