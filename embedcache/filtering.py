"""Which entries of a cache are meant: what people choose by when they browse and clean up. No I/O.

`embedcache.index.EntryIndex.where` applies the parts that an index has columns for, `matches_head` those that need the
text or the metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Final

from embedcache.arguments import check_kind, is_number, shown, whole_number
from embedcache.entry import Metadata, Text
from embedcache.errors import InvalidInputError

MAX_ASKED_CHARACTERS: Final = 1_000

_TEXTS: Final = ("text_contains", "model_name", "metadata_field")
_SECONDS: Final = ("min_age", "max_age", "min_idle", "expires_within")
_BYTES: Final = ("min_bytes", "max_bytes")
_LONGEST_SECONDS: Final = 1e15
_MOST_BYTES: Final = 2**62
"""What columns of numpy can be compared with."""
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
TYPED_WORDS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """A choice of entries; all that is given must hold, and what is None does not matter.

    Attributes:
        text_contains: The text contains this, in upper or lower case. Images and other bytes that are no UTF-8 do not.
        model_name: The model's exact name.
        metadata_field: Where in the metadata `metadata_value` is to be; ``source.page`` is the field ``page`` of the
            object in the field ``source``, or the field that is itself named ``source.page``.
        metadata_value: What that field is, as people type it: ``3`` is the number and the string, ``true``, ``false``
            and ``null`` are JSON's and the strings; other strings are compared exactly. A list has it if an item is it.
        min_age: Seconds since it was inserted, at least.
        max_age: Seconds since it was inserted, at most.
        min_idle: Seconds since it was last read or written, at least. Where the server does not tell, nothing matches.
        expires_within: Seconds until it expires, at most.
        never_expires: True for entries that never expire, False for those that do.
        min_bytes: Length of the value in bytes, at least.
        max_bytes: Length of the value in bytes, at most.
        unreadable: True for keys of the cache whose values are damaged or are no entries. Without it, those are
            matched as far as they are known: they have an expiry and a length, but no text, model or age.

    Raises:
        InvalidInputError: A field cannot be used, or contradicts another; the message names it.
    """

    text_contains: str | None = None
    model_name: str | None = None
    metadata_field: str | None = None
    metadata_value: str | None = None
    min_age: float | None = None
    max_age: float | None = None
    min_idle: float | None = None
    expires_within: float | None = None
    never_expires: bool | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None
    unreadable: bool | None = None

    def __post_init__(self) -> None:
        for name in (*_TEXTS, "metadata_value"):
            _check_text(name, getattr(self, name), may_be_empty=name == "metadata_value")
        for name in _SECONDS:
            object.__setattr__(self, name, _seconds(name, getattr(self, name)))
        for name in _BYTES:
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        if self.never_expires is not None and not isinstance(self.never_expires, bool):
            raise InvalidInputError(f"never_expires is True, False or None, not {shown(self.never_expires)}")
        if self.unreadable is not None and self.unreadable is not True:
            raise InvalidInputError(f"unreadable is True or None, not {shown(self.unreadable)}")
        self._check_together()

    def _check_together(self) -> None:
        if (self.metadata_field is None) != (self.metadata_value is None):
            raise InvalidInputError("metadata_field and metadata_value go together: give both, or neither")
        for low, high in (("min_age", "max_age"), ("min_bytes", "max_bytes")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise InvalidInputError(f"{low} is {least:,}, which is more than {high}, {most:,}: nothing could match")
        if self.never_expires and self.expires_within is not None:
            raise InvalidInputError("expires_within and never_expires exclude each other: give one of them")
        if self.unreadable and (self.needs_heads or self.model_name is not None):
            raise InvalidInputError("unreadable goes with no text, model or metadata: such values have none to read")

    @property
    def is_empty(self) -> bool:
        """Whether every entry matches."""
        return not self.to_dict()

    @property
    def needs_heads(self) -> bool:
        """Whether text or metadata is asked for, which an index does not hold."""
        return self.text_contains is not None or self.metadata_field is not None

    def matches_head(self, text: Text, metadata: Metadata | None) -> bool:
        """Whether a text and its metadata are as asked; the other fields are not looked at."""
        return self.matches_text(text) and self.matches_metadata(metadata)

    def matches_text(self, text: Text) -> bool:
        """Whether a text contains what is asked for. A str and its UTF-8 are the same text."""
        if not isinstance(text, str | bytes):
            raise InvalidInputError(f"a text is str or bytes, not {type(text).__name__}")
        if self.text_contains is None:
            return True
        asked, in_utf8 = _folded(self.text_contains)
        if isinstance(text, bytes):
            if text.isascii():
                return in_utf8 in text.lower()  # three times as fast as decoding, where a million are looked through
            try:
                text = text.decode()
            except UnicodeDecodeError:
                return False
        return asked in text.casefold()

    def matches_metadata(self, metadata: Metadata | None) -> bool:
        """Whether the metadata has the value that is asked for in the field that is asked for."""
        if self.metadata_field is None or self.metadata_value is None:
            return True
        typed = self.metadata_value
        return any(_is_typed(value, typed) for value in _values_at(metadata, self.metadata_field))

    def to_dict(self) -> dict[str, str | float | bool]:
        """What is asked for, by field, without what is None: JSON's types alone. `from_dict` takes it back."""
        given = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in given if value is not None}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> EntryFilter:
        """The filter that `to_dict` described.

        Raises:
            InvalidInputError: A field is none of a filter's, or cannot be used; the message names it.
        """
        known = {field.name for field in fields(cls)}
        for name in check_kind("given", given, Mapping):
            if name not in known:
                raise InvalidInputError(f"{shown(name)} is no field of a filter; they are {', '.join(sorted(known))}")
        return cls(**given)


# ------------------------------------------------------------------------------------------------ checks


def _check_text(name: str, value: object, *, may_be_empty: bool) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} is a str or None, not {type(value).__name__}")
    if not value and not may_be_empty:
        raise InvalidInputError(f"{name} is empty: give some characters, or None where it does not matter")
    if len(value) > MAX_ASKED_CHARACTERS:
        raise InvalidInputError(f"{name} has {len(value):,} characters; the most is {MAX_ASKED_CHARACTERS:,}")


def _seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    if not is_number(value):
        raise InvalidInputError(f"{name} is a number of seconds or None, not {shown(value)}")
    if not 0 <= value < _LONGEST_SECONDS:
        raise InvalidInputError(f"{name} is a number of seconds from 0 up, not {shown(value)}")
    return float(value)


def _whole(name: str, value: object) -> int | None:
    if value is None:
        return None
    number = whole_number(value)
    if number is None or not 0 <= number < _MOST_BYTES:
        raise InvalidInputError(f"{name} is a whole number of bytes from 0 up, not {shown(value)}")
    return number


# ------------------------------------------------------------------------------------------------ comparing


@lru_cache(maxsize=64)
def _folded(asked: str) -> tuple[str, bytes]:
    folded = asked.casefold()
    return folded, folded.encode(errors="surrogatepass")


def _values_at(value: object, path: str) -> Iterator[object]:
    """What is found at a dotted path. A field's own name may hold dots, so every cut is tried that leads somewhere."""
    if not isinstance(value, Mapping):
        return
    if path in value:
        yield value[path]
    cut = path.find(".")
    while cut != -1:
        if (field := path[:cut]) in value:
            yield from _values_at(value[field], path[cut + 1 :])
        cut = path.find(".", cut + 1)


def _is_typed(value: object, typed: str) -> bool:
    """Whether a JSON value is what was typed."""
    if isinstance(value, list):
        return any(not isinstance(item, list) and _is_typed(item, typed) for item in value)
    if isinstance(value, str):
        return value == typed
    if value is None or isinstance(value, bool):
        word = typed.strip().lower()
        return word in TYPED_WORDS and TYPED_WORDS[word] is value
    return isinstance(value, int | float) and value == typed_number(typed)


@lru_cache(maxsize=64)
def typed_number(typed: str) -> int | float | None:
    """What was typed as a number, a whole one exactly; None where it is none."""
    typed = typed.strip()
    if not _NUMBER.fullmatch(typed):
        return None
    try:
        return int(typed)
    except ValueError:
        return float(typed)
