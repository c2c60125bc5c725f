"""How numbers, times and strangers' text read. Knows no streamlit, so that frames and charts may use it.

Text, metadata, model names and keys come from whoever wrote the entry. Three ways to show one, by where it goes:
`visible` for widgets that show plain text, `code_span` for what is read as Markdown, `chart_text` for Plotly, which
reads a subset of HTML.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from datetime import UTC, datetime, tzinfo
from math import floor, log10
from typing import Final

from embedcache.entry import Text
from embedcache.explain import Reason

MAX_TEXT_SHOWN: Final = 10_000
"""Characters of an entry's text that a page shows. A browser takes seconds to lay out a megabyte in one block."""

_SIZE_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_PLAIN: Final = frozenset("\n\t")
_BACKTICKS: Final = re.compile(r"`+")
_JSON_ESCAPES: Final = re.compile(r"\\(?:u[0-9a-f]{4}|.)")
_UNPLAIN: Final = re.compile(r"[^\w .+-]|_")
_LEAST_MILLISECONDS: Final = 0.1
_LEAST_AMOUNT: Final = 0.0001
_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400
_YEAR: Final = 365 * _DAY
_MAX_SPAN: Final = 1e12  # more than any clock; infinity cannot be rounded


# ------------------------------------------------------------------------------------------------ numbers


def count(number: int) -> str:
    """A number with its thousands apart: 12,480."""
    return f"{number:,}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number of things: 1 entry, 12,480 entries."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def size(number: int) -> str:
    """Bytes as people say them: 412 B, 18.4 MiB."""
    unit, unit_bytes = size_unit(number)
    return f"{number:,} B" if unit_bytes == 1 else f"{number / unit_bytes:,.1f} {unit}"


def size_unit(number: int) -> tuple[str, int]:
    """The unit in which people say so many bytes, and how many bytes it is: ("MiB", 1,048,576)."""
    power = 0
    while number >= 1024 ** (power + 1) and power < len(_SIZE_UNITS) - 1:
        power += 1
    return _SIZE_UNITS[power], 1024**power


def share(part: float) -> str:
    """A share from 0 to 1 in per cent: 93.1%. What is not quite all never reads as 100.0%, nor what is some as 0.0%."""
    return f"{min(max(part, 0.001), 0.999) if 0 < part < 1 else part:.1%}"


def amount(number: float) -> str:
    """A sum of money, in no currency: 1,240.50, 0.0031."""
    if 0 < number < _LEAST_AMOUNT:
        return f"under {_LEAST_AMOUNT}"
    digits = 2 if number == 0 or number >= 1 else max(2, 1 - floor(log10(number)))
    return f"{number:,.{digits}f}"


def elapsed(seconds: float) -> str:
    """How long something took: 2.1 µs, 0.31 ms, 3.2 ms, 412 ms, 1.24 s, 2 min 5 s."""
    milliseconds = seconds * 1000
    if 0 < milliseconds < _LEAST_MILLISECONDS:
        return f"{1000 * milliseconds:.1f} µs"
    for limit, digits in ((1, 2), (100, 1), (1000, 0)):
        if milliseconds < limit:
            return f"{milliseconds:.{digits}f} ms"
    return f"{seconds:.2f} s" if seconds < 2 * _MINUTE else duration(seconds)


def duration(seconds: float) -> str:
    """A span in its two largest units: 45 s, 1 h 30 min, 3 d."""
    return " ".join(_parts(seconds)[:2])


def _parts(seconds: float) -> list[str]:
    left = max(0, round(seconds))
    parts: list[str] = []
    for length, unit in ((_YEAR, "y"), (_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"), (1, "s")):
        amount, left = divmod(left, length)
        if amount:
            parts.append(f"{amount:,} {unit}")
        elif parts:
            break  # 1 h 5 s says no more than 1 h
    return parts or ["0 s"]


def until(seconds: float | None) -> str:
    """When something ends: in 2 h, never."""
    return "never" if seconds is None else f"in {duration(seconds)}"


def ago(seconds: float) -> str:
    """How long since: just now, 3 min ago. A writer's clock may run ahead of ours."""
    if not seconds >= 1:  # NaN too: what the entry says may be anything
        return "just now"
    return f"{_parts(min(seconds, _MAX_SPAN))[0]} ago"


def moment(unix_seconds: float, zone: tzinfo | None = None) -> str:
    """A time in the viewer's zone: 23 Nov 2026, 14:03:12."""
    try:
        local = datetime.fromtimestamp(unix_seconds, UTC).astimezone(zone or UTC)
    except (OverflowError, ValueError, OSError):
        return "a time out of range"  # what the entry says may be anything
    return f"{local.day} {local:%b %Y, %H:%M:%S}"


def clock(unix_seconds: float, zone: tzinfo) -> str:
    """The time of day in the viewer's zone: 14:03."""
    return f"{datetime.fromtimestamp(unix_seconds, UTC).astimezone(zone):%H:%M}"


# ------------------------------------------------------------------------------------------------ strangers' text


def visible(text: Text, limit: int = MAX_TEXT_SHOWN) -> str:
    """Text with nothing hidden in it, cut to `limit` characters: control characters get their pictures (␛, ⟨U+202E⟩).

    Bytes are decoded where they are UTF-8, else shown in hex.
    """
    if isinstance(text, bytes):
        try:
            text = text[: 4 * limit].decode()
        except UnicodeDecodeError as error:
            text = error.object[: limit // 2].hex(" ", 2)
    shown = text[:limit]
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(character if _is_plain(character) else _picture(character) for character in shown)


def visible_json(written: str) -> str:
    """JSON, as `json.dumps` writes it, whose strings hide nothing: what it spells as escapes gets its picture too."""
    return _JSON_ESCAPES.sub(_escape_or_picture, visible(written, len(written)))


def _escape_or_picture(found: re.Match[str]) -> str:
    character = json.loads(f'"{found[0]}"')
    return found[0] if _is_plain(character) else _picture(character)


def _is_plain(character: str) -> bool:
    # Cc: controls, Cf: marks that reorder or hide text, Cs: lone surrogates, Zl and Zp: line ends that few expect.
    # The joiners are Cf too, and emoji and several scripts need them.
    return character in _PLAIN or character in "\u200c\u200d" or unicodedata.category(character) not in _HIDDEN


_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def _picture(character: str) -> str:
    code = ord(character)
    if character == "\r":
        return "␍"
    return chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"  # noqa: PLR2004 - Unicode's control pictures


def one_line(text: Text, limit: int = 120) -> str:
    """The start of a text on one line, with … where it goes on."""
    flat = " ".join(visible(text, 2 * limit).split())
    longer = len(flat) > limit or len(text) > 2 * limit
    return flat[:limit].rstrip() + "…" if longer else flat


def code_span(text: Text, limit: int = 300) -> str:
    """Text for a place that reads Markdown, as inline code: nothing in it is read as Markdown, HTML, link or emoji."""
    inner = one_line(text, limit) or " "
    fence = "`" * (max(map(len, _BACKTICKS.findall(inner)), default=0) + 1)
    return f"{fence} {inner} {fence}" if "`" in inner else f"{fence}{inner}{fence}"


def quoted(text: Text, limit: int = 80) -> str:
    """Text in quotation marks, for places that show plain text, as cells of tables do."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{one_line(text, limit)}\N{RIGHT DOUBLE QUOTATION MARK}"


def plain_label(text: str, limit: int = 60) -> str:
    """Words for a label that reads Markdown: letters, digits, spaces and .-+ alone."""
    return _UNPLAIN.sub("", text)[:limit]


def chart_text(text: Text, limit: int = 60) -> str:
    """Text for Plotly, which reads a subset of HTML, and $…$ as formulas."""
    return html.escape(one_line(text, limit), quote=False).replace("$", "&#36;")


# ------------------------------------------------------------------------------------------------ misses

MISSES: Final = {
    Reason.HIT: "It was stored this moment. Look it up again.",
    Reason.CORRUPT: "There is a value under its key, but {detail}. Embed the text again to replace it.",
    Reason.OTHER_ENTRY: "Another text and model share its key, since together they spell the same.",
    Reason.EXPIRED: "It was stored, and **its TTL ran out** {ago}.",
    Reason.GONE: "It was stored {ago}, and then **evicted, or removed by another program**.",
    Reason.OTHER_OPTIONS: "The text is there **under the same model with other options**, which make other vectors.",
    Reason.OTHER_MODEL: "The text is there **under another model**.",
    Reason.OTHER_SPELLING: "A text is there that **differs only in case, white space or Unicode form**. "
    "For the cache that is another text.",
    Reason.NEVER_STORED: "The cache {name} has **never stored** exactly this text under this model, as far as is on "
    "record: it may have been dropped, or have expired long ago.",
}
NEVER_UNDER_KEY: Final = (
    "The cache {name} holds nothing under this key, and has **never stored** anything there, as far as is on record: "
    "it may have been dropped, or have expired long ago."
)
"""Why a text missed, in Markdown with places for the cache's ``name``, a ``detail``, and how long ``ago``."""
