"""Where the time of ``extract`` goes: for which stage the run had to wait, and how long each was at work."""

__all__ = ["STAGES", "Clock", "Timings"]

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

from textdiff import console

STAGES = {"read": "reading", "device": "the device", "write": "writing"}
"""By the stages, in their order, what is said to be the limit."""

_WORTH_SAYING = 0.05


@dataclass(frozen=True)
class Timings:
    """What filling some rows took."""

    rows: int
    """How many were filled."""
    nbytes: int
    """How large their files are, but for what is compressed."""
    seconds: float
    """From start to end; of several processes, those of each added up."""
    waited: Mapping[str, float]
    """By stage, the seconds in which the run could do nothing but wait for it."""
    busy: Mapping[str, float]
    """By stage, the seconds in which it was at work, those of its threads added up."""

    @property
    def limit(self) -> str:
        """The stage that was waited for most."""
        return max(STAGES, key=self.waited.__getitem__)

    def __str__(self) -> str:
        parts = dict(self.waited) | {"rest": max(0.0, self.rest)}
        if parts["rest"] < _WORTH_SAYING * sum(parts.values()):
            del parts["rest"]
        found = ", ".join(
            f"{name} {share} %" for name, share in zip(parts, console.shares([*parts.values()]), strict=True)
        )
        # Of a handful of rows it says nothing which of three small numbers is the largest.
        limit = "none of these" if parts.get("rest", 0) > self.waited[self.limit] else STAGES[self.limit]
        return f"{found}; limit: {limit}"

    @property
    def rest(self) -> float:
        """The seconds in which none was waited for: handing rows from one to the next."""
        return self.seconds - sum(self.waited.values())

    def as_json(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        named = {"rows": self.rows, "bytes": self.nbytes, "seconds": self.seconds}
        return named | {"waited": dict(self.waited), "busy": dict(self.busy), "rest": self.rest, "limit": self.limit}

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> "Timings":
        """What ``as_json`` gave, as in another process."""
        return cls(found["rows"], found["bytes"], found["seconds"], found["waited"], found["busy"])

    @classmethod
    def total(cls, parts: Sequence["Timings"]) -> "Timings":
        """Of several fillings, one after the other or each in its own process."""
        waited, busy = (
            {stage: sum(getattr(one, name)[stage] for one in parts) for stage in STAGES} for name in ("waited", "busy")
        )
        rows, nbytes = sum(one.rows for one in parts), sum(one.nbytes for one in parts)
        return cls(rows, nbytes, sum(one.seconds for one in parts), waited, busy)


class Clock:
    """Adds up seconds by stage; threads may share one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = Lock()

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        """Counts what is done meanwhile for a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            with self._lock:
                self.seconds[stage] += spent
