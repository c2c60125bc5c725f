"""What an export says of itself, at its end: whoever finds it there knows that the file is whole.

Both kinds of file hold it as the same JSON (`docs/transfer.md`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from embedcache.errors import TransferError

FORMAT_VERSION: Final = 1
MAX_SHAPES: Final = 1_000
"""Models, with their dimensions, that a footer lists. Of more it says only how many entries they have together."""

NOT_AN_EXPORT: Final = "the file is not an export of embedcache, or was cut off; give one as the export wrote it"

Shape = tuple[str, int]
"""A model's name and the dimension of its vectors."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What an export says of itself.

    Attributes:
        cache_name: The cache that was exported.
        server: What it was on, such as ``Valkey 9.1.2``.
        exported_at: When the export ended, in Unix seconds by the server's clock.
        entries: How many entries it has.
        shapes: Entries by model and dimension.
    """

    cache_name: str
    server: str
    exported_at: float
    entries: int
    shapes: dict[Shape, int]

    @property
    def lists_all(self) -> bool:
        """Whether `shapes` has every entry, so that one of no shape in it cannot be in the file."""
        return sum(self.shapes.values()) == self.entries

    def check(self, shapes: Iterable[Shape], first_row: int) -> None:
        """Checks that the entries from a row on have models and dimensions that the file says it has.

        Raises:
            TransferError: One has not; it names the row.
        """
        if not self.lists_all:
            return
        for row, shape in enumerate(shapes, first_row):
            if shape not in self.shapes:
                model_name, dimension = shape
                known = sorted(each for name, each in self.shapes if name == model_name)
                said = (
                    f"{', '.join(map(str, known))} by what the file says at its end"
                    if known
                    else "not in the file's list"
                )
                raise TransferError(f"the vector has {dimension:,} components; those of its model are {said}", row=row)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a file."""
        return {
            "format_version": FORMAT_VERSION,
            "cache_name": self.cache_name,
            "server": self.server,
            "exported_at": self.exported_at,
            "entries": self.entries,
            "models": [
                {"model_name": model_name, "dimension": dimension, "entries": entries}
                for (model_name, dimension), entries in self.shapes.items()
            ],
        }


class Tally:
    """Counts entries by model and dimension while they are written, for the footer."""

    def __init__(self) -> None:
        self.entries = 0
        self.shapes: dict[Shape, int] = {}

    def add(self, shapes: Mapping[Shape, int]) -> None:
        """Counts so many entries of each of these shapes."""
        for shape, entries in shapes.items():
            self.entries += entries
            if shape in self.shapes or len(self.shapes) < MAX_SHAPES:
                self.shapes[shape] = self.shapes.get(shape, 0) + entries


def footer_from_json(text: bytes) -> Footer:
    """Reads a footer.

    Raises:
        TransferError: It is none, or of a version that this package does not know.
    """
    try:
        data = json.loads(text, parse_constant=_refuse)
        version = data["format_version"]
        if version != FORMAT_VERSION:
            raise TransferError(
                f"the file has format version {version}, and this embedcache reads version {FORMAT_VERSION}; restore it"
                " with a newer one"
            )
        return _footer(data)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise TransferError(NOT_AN_EXPORT) from error


def _footer(data: dict[str, Any]) -> Footer:
    shapes = {
        (_text(each["model_name"]), _count(each["dimension"])): _count(each["entries"]) for each in data["models"]
    }
    footer = Footer(
        _text(data["cache_name"]), _text(data["server"]), _seconds(data["exported_at"]), _count(data["entries"]), shapes
    )
    if sum(shapes.values()) > footer.entries:
        raise ValueError("the models have more entries than the file")
    return footer


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, float | int) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a time")
    return float(value)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
