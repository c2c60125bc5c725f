"""Checks of arguments that many rooms take: the error names the argument, what it may be, and what it was.

Each returns the value as what it is from then on taken for. A value is never compared before its type is known, nor
shown as it is: an array compares item by item, and an object of somebody else's may refuse to be shown.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, SupportsIndex, TypeGuard, TypeVar

from embedcache.errors import InvalidInputError

T = TypeVar("T")

LONGEST_SECONDS: Final = 1e9
"""Thirty years; what waits for longer than some 300, the system refuses."""
_SHOWN_CHARACTERS: Final = 200


def shown(value: object) -> str:
    """A value in an error message: as it shows itself, the start of what is long, or its type where it does not."""
    try:
        words = repr(value)
    except Exception:  # noqa: BLE001 - whatever others' objects raise; a number may be too long to be written, too
        return f"a value of type {type(value).__name__}"
    return words if len(words) <= _SHOWN_CHARACTERS else f"{words[: _SHOWN_CHARACTERS - 1]}…"


def whole_number(value: object) -> int | None:
    """The value as a plain int, numpy's integers too; None for anything else, bools and floats among it."""
    # An array has __index__ too, which works where it holds one number.
    if isinstance(value, bool) or not isinstance(value, SupportsIndex) or hasattr(value, "__len__"):
        return None
    try:
        return int(operator.index(value))
    except TypeError:
        return None  # a class, or torch's tensor of several numbers


def check_whole(name: str, value: object, least: int = 1, most: int | None = None) -> int:
    """A whole number within its bounds.

    Raises:
        InvalidInputError: It is something else.
    """
    number = whole_number(value)
    if number is None or number < least or (most is not None and number > most):
        from_least = "above zero" if least == 1 else f"from {least:,} on"
        bounds = from_least if most is None else f"from {least:,} to {most:,}"
        raise InvalidInputError(f"{name} is a whole number {bounds}, not {shown(value)}")
    return number


def is_number(value: object) -> TypeGuard[float]:
    """Whether this is a plain number of Python's: no bool, nothing complex, none of numpy's but its float64."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_seconds(name: str, value: object) -> None:
    """Checks how long something takes at most.

    Raises:
        InvalidInputError: It is no number above zero.
    """
    if not is_number(value) or not 0 < value <= LONGEST_SECONDS:
        raise InvalidInputError(f"{name} is a number of seconds above zero, not {shown(value)}")


def check_switch(name: str, value: object) -> None:
    """Checks what is on or off: ``read_only="no"`` would be on.

    Raises:
        InvalidInputError: It is neither True nor False.
    """
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name} is True or False, not {shown(value)}")


def check_choice(name: str, value: object, choices: Iterable[str], *, may_be_none: bool = False) -> None:
    """Checks one of a few words.

    Raises:
        InvalidInputError: It is none of them.
    """
    known = list(choices)
    if (value is None and may_be_none) or (isinstance(value, str) and value in known):
        return
    *first, last = [*known, "None"] if may_be_none else known
    raise InvalidInputError(f"{name} is {', '.join(first)} or {last}, not {shown(value)}")


def check_text(name: str, value: object, *, encodable: bool = True) -> str:
    """A text, and unless that does not matter, one that UTF-8 can encode.

    Raises:
        InvalidInputError: It is none.
    """
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} is a str, not {type(value).__name__}")
    if not encodable:
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"{name} holds lone surrogates, which UTF-8 cannot encode") from None
    return value


def check_function(name: str, given: object, *, may_be_none: bool = False) -> None:
    """Checks that what is to be called can be.

    Raises:
        InvalidInputError: It is no function.
    """
    if not callable(given) and not (may_be_none and given is None):
        raise InvalidInputError(f"{name} is a function{' or None' if may_be_none else ''}, not {type(given).__name__}")


def check_kind(name: str, value: T, kind: type) -> T:
    """An object of the package, or of a library, that only they make.

    Raises:
        InvalidInputError: It is another.
    """
    if not isinstance(value, kind):
        raise InvalidInputError(f"{name} is of type {kind.__name__}, not {type(value).__name__}")
    return value


def check_path(name: str, value: object) -> Path:
    """The path of a file.

    Raises:
        InvalidInputError: No file can have it.
    """
    if not isinstance(value, str | os.PathLike):
        raise InvalidInputError(f"{name} is a path, as str or pathlib.Path, not {type(value).__name__}")
    try:
        path = Path(value)
        encoded = os.fsencode(path)
    except (TypeError, ValueError):
        encoded = b"\0"
    if b"\0" in encoded:
        raise InvalidInputError(f"{name} is a path that no file can have: {shown(value)}")
    return path


def check_host(name: str, value: object) -> None:
    """Checks the name of a host, or its address: what no resolver can be asked for.

    Raises:
        InvalidInputError: It can be none.
    """
    try:
        check_text(name, value).encode("idna")
    except UnicodeError as error:
        raise InvalidInputError(f"{name} is the name of a host or its address, not {shown(value)}: {error}") from None


def gone_through(name: str, given: Any) -> Iterator[Any]:
    """The items of something to go through once.

    Raises:
        InvalidInputError: There is nothing to go through.
    """
    if isinstance(given, str | bytes):
        raise InvalidInputError(f"give several of {name}, not a single one")
    try:
        return iter(given)
    except Exception as error:  # whatever others' objects raise
        raise InvalidInputError(f"{name} are several, to be gone through; {type(given).__name__} is not") from error


def check_plain(name: str, given: object) -> None:
    """Checks a dict of strings, numbers, booleans and None, lists and dicts of them, as JSON has them.

    Raises:
        InvalidInputError: It is none.
    """
    if not isinstance(given, Mapping):
        raise InvalidInputError(f"{name} are a dict, not {type(given).__name__}")
    try:
        json.dumps(given)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name} are plain values, which can be sent to another process: {error}") from error
