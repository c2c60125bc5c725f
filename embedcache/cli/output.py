"""What the command prints: tables for people, one JSON document for programs, progress on standard error.

What entries hold is shown inertly: rich's markup is not looked at, and control characters are written as Python writes
them, so that a text can move no cursor and colour no terminal.
"""

from __future__ import annotations

import json
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import typer

from embedcache.cli.exits import InterruptedWorkError
from embedcache.entry import Text

_SHOWN_CHARACTERS: Final = 60
_BINARY_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_KILO: Final = 1_024
_SPANS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_HUNDRED: Final = 100
_DECIMAL: Final = 10  # from here on, one digit behind the point says nothing

Cell = str | int | float | None
Tell = Callable[[int, int | None], None]


def plain(text: object, limit: int | None = _SHOWN_CHARACTERS) -> str:
    """A text on one line, with nothing in it that a terminal would obey.

    Args:
        text: What to show; bytes are shown as Python writes them.
        limit: Characters at most, the last one an ellipsis where there are more; None shows all.
    """
    words = repr(text) if isinstance(text, bytes) else str(text)
    if limit is not None and len(words) > limit:
        words = words[: limit - 1] + "…"
    return "".join(each if _is_inert(each) else each.encode("unicode_escape").decode() for each in words)


def _is_inert(character: str) -> bool:
    # Cc and Cf: control characters, and those that turn the direction of what follows; Cs cannot be printed at all.
    return unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def json_text(text: Text) -> dict[str, str]:
    """A text as JSON has it: ``text``, or ``text_hex`` where it was stored as bytes."""
    return {"text": text} if isinstance(text, str) else {"text_hex": text.hex()}


def show_json(document: object) -> None:
    """Prints one JSON document; non-ASCII characters are escaped, so that every terminal takes it."""
    typer.echo(json.dumps(document, default=_as_json, allow_nan=False))


def _as_json(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, empty: str) -> None:
    """Prints a table; its cells are shown as they are, numbers to the right.

    Args:
        columns: Headings.
        rows: A cell for each column. Texts must have passed `plain`.
        empty: The sentence that stands in place of a table without rows.
    """
    from rich import box  # a tenth of a second that no program with --json waits for
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as Shown

    found = list(rows)
    if not found:
        typer.echo(empty)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numbers = all(isinstance(row[index], int | float | None) for row in found)
        table.add_column(Shown(column), justify="right" if numbers else "left", overflow="fold")
    for row in found:
        table.add_row(*(Shown(_cell(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width that rows should be folded to
        console = Console(highlight=False, width=max(_KILO, console.width))
    console.print(table)


def _cell(cell: Cell) -> str:
    if cell is None:
        return "-"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def show_facts(facts: Mapping[str, Cell]) -> None:
    """Prints names and what they are, a line each."""
    width = max(map(len, facts))
    for name, cell in facts.items():
        typer.echo(f"{name:{width}}  {_cell(cell)}")


def note(sentence: str) -> None:
    """Says something on standard error, where it is in nobody's way."""
    typer.echo(plain(sentence, None), err=True)


# ------------------------------------------------------------------------------------------------ quantities


def size(value: float | None) -> str | None:
    """Bytes as people say them."""
    if value is None:
        return None
    power = 0
    while value >= _KILO and power < len(_BINARY_UNITS) - 1:
        value, power = value / _KILO, power + 1
    digits = 0 if power == 0 or value >= _HUNDRED else 1  # three say enough
    return f"{value:.{digits}f} {_BINARY_UNITS[power]}"


def span(seconds: float | None) -> str | None:
    """A length of time as people say it, in its largest unit."""
    if seconds is None or seconds != seconds:  # noqa: PLR0124 - NaN: nobody knows
        return None
    if seconds == float("inf"):
        return "never"
    for unit, length in _SPANS:
        if seconds >= length:
            count = seconds / length
            return f"{count:.0f} {unit}" if count >= _DECIMAL or unit == "s" else f"{count:.1f} {unit}"
    return f"{seconds * 1_000:.3g} ms"


def moment(seconds: float) -> str | None:
    """A point in time, in UTC; None where it is none of the calendar's, as in a file that a stranger wrote."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return None


def share(value: float | None) -> str | None:
    """A share in per cent."""
    return None if value is None else f"{value:.1%}"


# ------------------------------------------------------------------------------------------------ progress


@contextmanager
def steps(what: str) -> Iterator[Tell]:
    """A bar, as `progress` has it, for work that changes entries: Ctrl+C ends it between two steps.

    What was done is then counted and on record. A second Ctrl+C ends it on the spot.

    Raises:
        InterruptedWorkError: From what it yields, once Ctrl+C was pressed.
    """
    pressed = False

    def note_it(_number: int, _frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def told(done: int, total: int | None) -> None:
        tell(done, total)
        if pressed:
            raise InterruptedWorkError("interrupted between two steps; what was done until then stays")

    with progress(what) as tell:
        before = signal.signal(signal.SIGINT, note_it)
        try:
            yield told
        finally:
            signal.signal(signal.SIGINT, before)


@contextmanager
def progress(what: str) -> Iterator[Tell]:
    """A bar on standard error, where that is a terminal; what it yields is told how many are done, and of how many."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console  # as in `show_table`
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def tell(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield tell


def jsonable(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with NaN and infinity as null, which JSON lacks."""
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in record.items()
    }
