"""What other packages add to ours: a registry's names joined with those of their entry points."""

__all__ = ["added", "on_demand", "registry"]

import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any, TypeVar

from textdiff.errors import UserError
from textdiff.options.option import imported

T = TypeVar("T")
_GROUPS = "textdiff."


def registry(group: str, own: Mapping[str, T], kind: type = object) -> Mapping[str, T]:
    """``own`` and, after it, the entry points of the group ``textdiff.<group>``, as one mapping.

    The entry points are looked up when a name is, and a plug-in is imported when it is asked for by its name: listing
    the names imports none. https://packaging.python.org/en/latest/specifications/entry-points/ has the format.

    Args:
        group: what is registered, in the plural: ``backbones``.
        own: what is known without them. What is put into it later is known too.
        kind: what the entry points must be instances of.

    Returns:
        The mapping. Asking for a name raises UserError if it is taken twice, or is of a plug-in that cannot be
        imported or is of another kind; KeyError if there is none.
    """
    return _Registry(group, own, kind)


def added() -> dict[str, dict[str, str]]:
    """What other packages add, whether it can be used or not: by group and name the first package that has it.

    A group is without ``textdiff.``, and may be one that nothing looks for.
    """
    found: dict[str, dict[str, str]] = {}
    for plugin in (plugin for package in distributions() for plugin in package.entry_points):
        if plugin.group.startswith(_GROUPS):
            found.setdefault(plugin.group.removeprefix(_GROUPS), {}).setdefault(plugin.name, _origin(plugin))
    return found


def on_demand(places: Mapping[str, str]) -> Mapping[str, Any]:
    """What ``places`` name, as ``module:attribute``: a module is imported when its name is asked for."""
    return _OnDemand(places)


class _OnDemand(Mapping[str, Any]):
    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> Any:
        return imported(self._places[name])


class _Registry(Mapping[str, T]):
    def __init__(self, group: str, own: Mapping[str, T], kind: type) -> None:
        self._group, self._own, self._kind = _GROUPS + group, own, kind

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._own, *self._plugins())))

    def __len__(self) -> int:
        return len({*self._own, *self._plugins()})

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._plugins()

    def __getitem__(self, name: str) -> T:
        plugins = self._plugins().get(name, ())
        if name not in self._own and not plugins:
            raise KeyError(name)
        holders = ["textdiff itself"] * (name in self._own) + [_origin(plugin) for plugin in plugins]
        if len(holders) > 1:
            raise UserError(
                f"{name}: is the name of a plug-in of {holders[-1]} ({self._group}), and is taken by {holders[0]}; "
                "rename its entry point, or uninstall it"
            )
        return self._load(plugins[0]) if plugins else self._own[name]

    def _plugins(self) -> Mapping[str, tuple[EntryPoint, ...]]:
        return _found(self._group, tuple(sys.path))

    def _load(self, plugin: EntryPoint) -> T:
        where = f"{plugin.name}: the plug-in {plugin.value} of {_origin(plugin)} ({self._group})"
        try:
            loaded: T = plugin.load()
        except (Exception, SystemExit) as error:  # importing another's module can raise anything
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"{where} cannot be imported ({type(error).__name__}: {said}); mend it, or uninstall it"
            ) from error
        if not isinstance(loaded, self._kind):
            raise UserError(f"{where} is a {type(loaded).__name__}, and must be a {self._kind.__name__}; mend it")
        return loaded


@lru_cache
def _found(group: str, path: tuple[str, ...]) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of a group, by their names; ``path`` is where they are looked for: a notebook may change it."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for plugin in entry_points(group=group):
        found[plugin.name] = (*found.get(plugin.name, ()), plugin)
    return found


def _origin(plugin: EntryPoint) -> str:
    return f"{plugin.dist.name} {plugin.dist.version}" if plugin.dist else "an unknown package"
