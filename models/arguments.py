"""The arguments of a network, for the record that makes it again."""

__all__ = ["arguments"]

from collections.abc import Mapping, Sequence
from typing import Any


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an ``__init__``, which are its ``locals()`` on its first line, as JSON has them."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return dict(value)
        return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value

    return {name: plain(value) for name, value in given.items() if name not in ("self", "__class__")}
