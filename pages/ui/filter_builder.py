"""The filter builder: which entries are meant, chosen the same way wherever entries are browsed or cleaned up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import streamlit as st

from embedcache import InvalidInputError
from embedcache.filtering import EntryFilter
from pages.ui import quantities, wording
from pages.ui.inputs import UnusableInputError

Q = TypeVar("Q", int, float)
T = TypeVar("T")

_SPANS: Final = ("1 hour", "1 day", "7 days", "30 days", "90 days", "1 year")
_SIZES: Final = ("1 KiB", "4 KiB", "16 KiB", "64 KiB", "1 MiB")
_AT_SOME_TIME: Final = "At some time"
_NEVER: Final = "Never"
_WITHIN: Final = "Within "
_EXPIRY: Final = (*(f"{_WITHIN}{span}" for span in ("1 hour", "1 day", "7 days")), _AT_SOME_TIME, _NEVER)
_VALUES: Final = {"all": "All", "damaged": "Damaged ones"}


def filter_builder(key: str, models: Sequence[str]) -> EntryFilter:
    """Draws the controls, and returns what they choose; all that is given must hold.

    Args:
        key: Start of the widgets' keys: what is chosen on one page is not chosen on another.
        models: The models to choose from.

    Raises:
        UnusableInputError: What was typed cannot be used.
    """
    given = _ask_words(key, models)
    with st.expander("Age, use, expiry and size", icon=":material/tune:", key=f"{key}_more"):
        given |= _ask_numbers(key)
    try:
        return EntryFilter(**{name: value for name, value in given.items() if value not in (None, "")})
    except InvalidInputError as error:
        raise UnusableInputError(_plain(error)) from error


def choose(key: str, chosen: EntryFilter) -> None:
    """Has the builder of this key choose a filter, as one that came in a link; to be called before it is drawn.

    Raises:
        UnusableInputError: The controls have no such choice.
    """
    st.session_state.update(
        {
            f"{key}_text": chosen.text_contains or "",
            f"{key}_model": chosen.model_name,
            f"{key}_field": chosen.metadata_field or "",
            f"{key}_value": chosen.metadata_value or "",
            f"{key}_older": _typeable(chosen.min_age, _SPANS, quantities.seconds_of, "s"),
            f"{key}_newer": _typeable(chosen.max_age, _SPANS, quantities.seconds_of, "s"),
            f"{key}_idle": _typeable(chosen.min_idle, _SPANS, quantities.seconds_of, "s"),
            f"{key}_expiry": _expiry_of(chosen),
            f"{key}_smallest": _typeable(chosen.min_bytes, _SIZES, quantities.bytes_of, "B"),
            f"{key}_largest": _typeable(chosen.max_bytes, _SIZES, quantities.bytes_of, "B"),
            f"{key}_values": "damaged" if chosen.unreadable else "all",
        }
    )


def _expiry_of(chosen: EntryFilter) -> str | None:
    if chosen.never_expires is not None:
        return _NEVER if chosen.never_expires else _AT_SOME_TIME
    span = _typeable(chosen.expires_within, _SPANS, quantities.seconds_of, "s")
    return None if span is None else f"{_WITHIN}{span}"


def _expiry(typed: str) -> dict[str, Any]:
    """What was chosen or typed of the expiry, as the filter's fields; a span alone means within it."""
    if typed in {_NEVER, _AT_SOME_TIME}:
        return {"never_expires": typed == _NEVER}
    starts = typed.lower().startswith(_WITHIN.lower())
    return {"expires_within": quantities.seconds_of(typed[len(_WITHIN) :] if starts else typed)}


def _typeable(amount: Q | None, options: Sequence[str], read: Callable[[str], Q], unit: str) -> str | None:
    """A quantity as the option that it is, else as it would be typed."""
    if amount is None:
        return None
    typed = f"{amount:.6f}".rstrip("0").rstrip(".")
    return next((option for option in options if read(option) == amount), f"{typed} {unit}")


def _ask_words(key: str, models: Sequence[str]) -> dict[str, Any]:
    cells = st.grid(4, min_column_width=150)
    text = cells.text_input(
        "Text contains",
        key=f"{key}_text",
        persist_state="session",
        help="In upper or lower case, anywhere in the text.",
    )
    chosen = st.session_state.get(f"{key}_model")
    model = cells.selectbox(
        "Model",
        models if chosen is None or chosen in models else [*models, chosen],
        index=None,
        placeholder="Any model",
        format_func=lambda name: wording.one_line(name, 80),
        key=f"{key}_model",
        persist_state="session",
    )
    field = cells.text_input(
        "Metadata field",
        placeholder="source.page",
        key=f"{key}_field",
        persist_state="session",
        help="A field's name; dots lead into fields of fields.",
    )
    value = cells.text_input(
        "Metadata value", key=f"{key}_value", persist_state="session", help="What the field is: a text, a number, true."
    )
    return {
        "text_contains": text,
        "model_name": model,
        "metadata_field": field,
        "metadata_value": value if field or value else None,
    }


def _ask_numbers(key: str) -> dict[str, Any]:
    cells = st.grid(4, min_column_width=150)
    with cells:
        older = _typed("Stored longer ago than", _SPANS, quantities.seconds_of, f"{key}_older")
        newer = _typed("Stored within the last", _SPANS, quantities.seconds_of, f"{key}_newer")
        idle = _typed("Not read for", _SPANS, quantities.seconds_of, f"{key}_idle")
        expiry = _typed("Expires", _EXPIRY, _expiry, f"{key}_expiry")
        smallest = _typed("Value larger than", _SIZES, quantities.bytes_of, f"{key}_smallest")
        largest = _typed("Value smaller than", _SIZES, quantities.bytes_of, f"{key}_largest")
        values = st.selectbox(
            "Values",
            list(_VALUES),
            format_func=lambda option: _VALUES[option],
            key=f"{key}_values",
            persist_state="session",
            help="Damaged are keys of this cache whose values cannot be read as entries.",
        )
    return {
        "min_age": older,
        "max_age": newer,
        "min_idle": idle,
        **(expiry or {}),
        "min_bytes": smallest,
        "max_bytes": largest,
        "unreadable": True if values == "damaged" else None,
    }


def _typed(label: str, options: Sequence[str], read: Callable[[str], T], key: str) -> T | None:
    """What is chosen or typed, as it is read; None where nothing is."""
    typed = st.selectbox(
        label,
        options,
        index=None,
        placeholder="Any, or type",
        accept_new_options=True,
        key=key,
        persist_state="session",
    )
    return read(typed) if typed else None


def _plain(error: InvalidInputError) -> str:
    """What a filter's check says, as far as the controls let it come to that: their labels in place of names."""
    words = str(error)
    for name, label in _LABELS.items():
        words = words.replace(name, label)
    return f"This filter cannot be used: {wording.plain_label(words, 200)}."


_LABELS: Final = {
    "metadata_field": "Metadata field",
    "metadata_value": "Metadata value",
    "text_contains": "Text contains",
    "min_age": "Stored longer ago than",
    "max_age": "Stored within the last",
    "min_bytes": "Value larger than",
    "max_bytes": "Value smaller than",
    "unreadable": "Damaged ones",
}


def in_words(chosen: EntryFilter, quote: Callable[[str, int], str] = wording.code_span) -> list[str]:
    """What a filter asks for, a phrase each: ``older than 7 d``.

    Args:
        chosen: The filter.
        quote: Makes what was typed fit for where the words go, cut to so many characters: by default into Markdown
            that is safe whatever was typed; `wording.quoted` into plain text.
    """
    said: list[str] = []
    if chosen.unreadable:
        said.append("damaged")
    if chosen.text_contains is not None:
        said.append(f"text contains {quote(chosen.text_contains, 80)}")
    if chosen.model_name is not None:
        said.append(f"model {quote(chosen.model_name, 80)}")
    if chosen.metadata_field is not None:
        pair = f"{chosen.metadata_field} = {chosen.metadata_value}"
        said.append(f"metadata {quote(pair, 120)}")
    for seconds, words in (
        (chosen.min_age, "stored over {} ago"),
        (chosen.max_age, "stored within the last {}"),
        (chosen.min_idle, "not read for {}"),
        (chosen.expires_within, "expires within {}"),
    ):
        if seconds is not None:
            said.append(words.format(wording.duration(seconds)))
    if chosen.never_expires is not None:
        said.append("never expires" if chosen.never_expires else "expires at some time")
    for size, words in ((chosen.min_bytes, "at least {}"), (chosen.max_bytes, "at most {}")):
        if size is not None:
            said.append(words.format(wording.size(size)))
    return said
