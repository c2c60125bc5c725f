"""What is public: all that the reference pages show, and starting the dashboard. Found by itself."""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

from embedcache import BaseVectorizer

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference"
MORE = ("embedcache.launching",)

UNCHECKED = {
    *("Comparison", "Environment", "Measurement", "Run", "Scenario", "ScenarioResult", "SavedRuns"),
    *("Examination", "Finding", "Repair", "Convert", "GiveTTL", "RemoveEntries", "RemoveKeys", "SetPolicy"),
    *("CacheSummary", "ServerInfo", "Survey", "RemovalPlan", "RemovalReport", "AuditRecord", "Outage"),
    *("CacheStats", "SlowLookup", "Explanation", "NearState", "ExportReport", "RestoreReport", "FileSummary"),
    *("ConvertReport", "EmbedReport", "DriftReport", "DriftEntry", "KeyCounts", "Unreadable", "EntryIndex"),
    *("Sample", "Vectors", "BadRow", "WarmProgress", "WarmReport", "CacheItem", "CacheEntry", "EntrySummary"),
    *("BaseVectorizer", "Tell", "LoadedModelVectorizer", "CachedEncode"),
}
"""Classes that the package makes and hands out, and whose constructors check nothing: records, protocols, and what
`cached_encode` returns. Their methods are public all the same."""


@dataclass(frozen=True)
class Public:
    """Something that can be called.

    Attributes:
        name: As one would write it, from the room on.
        of: The class, where it is a method of an object; else None.
        call: The function or class, or the method as its class has it.
    """

    name: str
    of: str | None
    call: Callable[..., Any]

    @property
    def short_name(self) -> str:
        return self.name.rpartition(".")[2]

    @cached_property
    def _arguments(self) -> Mapping[str, inspect.Parameter]:
        # What pydantic says a class takes are its fields, whatever its constructor does.
        made = vars(self.call).get("__init__", self.call) if inspect.isclass(self.call) else self.call
        found = dict(inspect.signature(made).parameters)
        found.pop("self", None)
        return found

    @property
    def parameters(self) -> list[str]:
        """The names of its arguments, options that are spelt out among them, but for `self`."""
        found: list[str] = []
        for name, parameter in self._arguments.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD and "Unpack" in str(parameter.annotation):
                room = vars(inspect.getmodule(self.call))
                found += get_type_hints(eval(str(parameter.annotation), room).__args__[0], room)  # noqa: S307 - ours
            else:
                found.append(name)
        return found

    @property
    def is_operation(self) -> bool:
        """Whether it returns what a connection is to drive."""
        return "Operation[" in str(inspect.signature(self.call).return_annotation)

    def placed(self, given: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments by place and by name: those of which there may be any number are spread out."""
        named, placed = dict(given), list[Any]()
        names = list(self._arguments)
        for name, parameter in self._arguments.items():
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                placed = [*(named.pop(each) for each in names[: names.index(name)]), *named.pop(name)]
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD and name in named:
                named = named.pop(name) | named
        return placed, named


def rooms() -> list[str]:
    """What the reference pages show, by its full name: rooms, and classes of other rooms."""
    pages = "".join(page.read_text() for page in sorted(REFERENCE.glob("*.md")))
    found = re.findall(r"^::: (\S+)", pages, re.MULTILINE)
    return sorted({name for name in found if not name.startswith("embedcache.EmbeddingsCache.")} | set(MORE))


def public(*names: str) -> dict[str, Public]:
    """All that can be called in these rooms, or of these classes; once, though several rooms may show it."""
    found: dict[str, Public] = {}
    shown: list[object] = []
    for name in names:
        for each, value in members(name):
            if any(value is other for other in shown):
                continue
            shown.append(value)
            if inspect.isclass(value):
                found |= _of_class(each, value)
            elif inspect.isfunction(value):
                found[each] = Public(each, None, value)
    return found


def members(name: str) -> list[tuple[str, Any]]:
    """What a room holds that is public, by full names; of a class, itself."""
    try:
        room = importlib.import_module(name)
    except ImportError:
        package, _, member = name.rpartition(".")
        return [(name, getattr(importlib.import_module(package), member))]
    chosen = getattr(room, "__all__", None) or [
        each for each, value in vars(room).items() if getattr(value, "__module__", None) == name
    ]
    return [(f"{name}.{each}", getattr(room, each)) for each in chosen if not each.startswith("_")]


def _of_class(name: str, kind: type) -> dict[str, Public]:
    if issubclass(kind, Exception | enum.Enum) or getattr(kind, "_is_protocol", False):
        return {}
    found: dict[str, Public] = {}
    if kind.__name__ not in UNCHECKED:
        found[name] = Public(name, None, kind)
    for each in dir(kind):
        value = inspect.getattr_static(kind, each)
        ours = str(getattr(getattr(kind, each), "__module__", "")).startswith("embedcache")
        inherited = each not in vars(kind) and getattr(BaseVectorizer, each, None) is value
        if not ours or inherited or (each.startswith("_") and each != "__call__"):
            continue
        if isinstance(value, classmethod):
            found[f"{name}.{each}"] = Public(f"{name}.{each}", None, getattr(kind, each))
        elif inspect.isfunction(value):
            found[f"{name}.{each}"] = Public(f"{name}.{each}", kind.__name__, value)
    return found
