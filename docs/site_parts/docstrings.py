"""Docstrings as they are written, made ready for Markdown: run by mkdocstrings when it reads the package."""

from __future__ import annotations

import re
from typing import Any, Final

import griffe

_LITERAL_BLOCK: Final = re.compile(r"[ \t]*::[ \t]*$", re.MULTILINE)
_PAGE: Final = re.compile(r"`docs/(\w+)\.md`")


class Docstrings(griffe.Extension):
    """Turns what reStructuredText writes otherwise, and the names of pages, into Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites one docstring. An indented block follows a ``::``, and is one in Markdown without it."""
        if obj.docstring is not None:
            text = _LITERAL_BLOCK.sub("", obj.docstring.value)
            # Every page of the reference lies one folder below docs/, and its address two below.
            obj.docstring.value = _PAGE.sub(r"[`docs/\1.md`](../\1.md)", text)
