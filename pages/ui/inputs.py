"""What a user typed or uploaded, turned into texts and metadata. Knows no streamlit.

Whatever cannot be used raises `UnusableInputError`, whose message is a sentence for the user in our own words: nothing
of the input is in it, so it may go where Markdown is read.
"""

from __future__ import annotations

import io
import json
from typing import Any, Final

import pandas as pd

from embedcache.entry import Metadata

MAX_TEXTS: Final = 100_000
"""Texts embedded in one go from a page: minutes of work, and 150 MB of vectors of 384 numbers."""


class UnusableInputError(Exception):
    """Something typed or uploaded cannot be used. The message says what to do."""


def lines_of(text: str) -> tuple[list[str], int]:
    """The lines that hold something, and how many were left out because they hold nothing."""
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line]
    return kept, len(lines) - len(kept)


def check_number(texts: list[str]) -> list[str]:
    """The texts, between one and `MAX_TEXTS` of them.

    Raises:
        UnusableInputError: There are none, or too many.
    """
    if not texts:
        raise UnusableInputError("There is no text here yet. Type or paste some, then press Embed.")
    if len(texts) > MAX_TEXTS:
        raise UnusableInputError(
            f"These are {len(texts):,} texts. A page embeds up to {MAX_TEXTS:,} at a time: split them, "
            "or use the Python package, which has no such limit."
        )
    return texts


def decode_file(content: bytes) -> str:
    """An uploaded file's text.

    Raises:
        UnusableInputError: It is empty, or not UTF-8.
    """
    if not content.strip():
        raise UnusableInputError("This file is empty. Choose one with a text on each line.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusableInputError(
            f"This file is not UTF-8 text (byte {error.start:,} cannot be read). Save it as UTF-8 and upload it again."
        ) from error
    if "\0" in text:
        raise UnusableInputError("This file holds binary data, not text. Choose a .txt or .csv file.")
    return text


def read_table(content: bytes) -> pd.DataFrame:
    """An uploaded .csv file; every cell as the text that stands there, so that 007 stays 007.

    Raises:
        UnusableInputError: It is empty, not UTF-8, or not a table.
    """
    text = decode_file(content)
    header = text.lstrip().split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    try:
        # Without header=None, a row longer than the header would be read as one with an index before it.
        cells = pd.read_csv(io.StringIO(text), sep=separator, header=None, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise UnusableInputError(
            "This file cannot be read as a table: is no row longer than the first, and are all quotes closed?"
        ) from error
    table = cells.iloc[1:].fillna("").set_axis(list(cells.iloc[0].fillna("")), axis="columns")
    if table.empty:
        raise UnusableInputError("This table has a header and no rows. Its first line is read as the header.")
    return table


def wordiest_column(table: pd.DataFrame) -> int:
    """The position of the column with the most characters: most likely the one to embed."""
    return max(range(table.shape[1]), key=lambda position: int(table.iloc[:, position].str.len().sum()))


def column_texts(table: pd.DataFrame, position: int) -> tuple[list[str], int]:
    """The cells of one column that hold something, and how many hold nothing."""
    cells = [str(cell).strip() for cell in table.iloc[:, position]]
    kept = [cell for cell in cells if cell]
    return kept, len(cells) - len(kept)


def read_metadata(text: str) -> Metadata | None:
    """Typed metadata; None where nothing was typed.

    Raises:
        UnusableInputError: It is not a JSON object.
    """
    if not text.strip():
        return None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UnusableInputError(
            f"The metadata is not JSON: line {error.lineno}, column {error.colno} cannot be read. "
            'It looks like {"source": "handbook", "page": 12}.'
        ) from error
    except RecursionError as error:
        raise UnusableInputError("The metadata is nested too deeply. Store it with fewer levels.") from error
    if not isinstance(value, dict):
        raise UnusableInputError('The metadata must be one JSON object, such as {"source": "handbook"}.')
    return value


def _refuse_constant(name: str) -> Any:
    raise UnusableInputError(f"The metadata holds {name}, which JSON has no word for. Use null or a number.")
