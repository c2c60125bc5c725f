"""What the dashboard's process loads before it serves anybody: the first visitor waits no longer than the next."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Final

from streamlit.runtime.pages_manager import PagesManager

import pages.ui

# What Streamlit itself loads when it first shows a table, a figure or a logo.
_LIBRARIES: Final = ("pandas", "pyarrow", "plotly.graph_objects", "plotly.io", "PIL.Image")


def load() -> None:
    """Imports every room of the dashboard and the libraries that draw: two seconds of work. No model is loaded."""
    PagesManager.uses_pages_directory = False  # or the first to ask for /embed would get that file with no frame
    rooms = (f"{pages.ui.__name__}.{room.name}" for room in pkgutil.iter_modules(pages.ui.__path__))
    for name in (*_LIBRARIES, *rooms):
        importlib.import_module(name)
