"""Where the time of ``extract`` goes: for which stage the run had to wait, and how long each was at work."""

__all__ = ["STAGES", "Clock", "Timings"]

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

STAGES = {"read": "reading", "device": "the device", "write": "writing"}
"""By the stages, in their order, what is said to be the limit."""


@dataclass(frozen=True)
class Timings:
    """What filling some rows took."""

    rows: int
    """How many were filled."""
    nbytes: int
    """How large their files are, but for what is compressed."""
    seconds: float
    """From start to end."""
    waited: Mapping[str, float]
    """By stage, the seconds in which nothing else could go on. They add up to almost all."""
    busy: Mapping[str, float]
    """By stage, the seconds in which it was at work, those of its threads added up."""

    @property
    def limit(self) -> str:
        """The stage that was waited for most."""
        return max(STAGES, key=self.waited.__getitem__)

    def __str__(self) -> str:
        whole = sum(self.waited.values()) or 1.0
        shares = ", ".join(f"{stage} {100 * self.waited[stage] / whole:.0f} %" for stage in STAGES)
        return f"{shares}; limit: {STAGES[self.limit]}"

    def as_json(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        numbers = {"waited": self.waited, "busy": self.busy}
        rounded = {name: {stage: round(of[stage], 6) for stage in STAGES} for name, of in numbers.items()}
        return {"rows": self.rows, "bytes": self.nbytes, "seconds": self.seconds, **rounded, "limit": self.limit}

    @classmethod
    def total(cls, parts: Iterable["Timings"]) -> "Timings":
        """Of processes that worked side by side: seconds are those of the longest, all else is added up."""
        each = list(parts)
        waited, busy = (
            {stage: sum(getattr(one, name)[stage] for one in each) for stage in STAGES} for name in ("waited", "busy")
        )
        seconds = max((one.seconds for one in each), default=0.0)
        return cls(sum(one.rows for one in each), sum(one.nbytes for one in each), seconds, waited, busy)


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
