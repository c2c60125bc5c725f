"""What the dashboard's process loads before it serves anybody: the first visitor waits no longer than the next."""

from __future__ import annotations

import ctypes
import importlib
import pkgutil
import sys
from typing import Final

from streamlit.runtime.pages_manager import PagesManager

import pages.ui

# What Streamlit itself loads when it first shows a table, a figure or a logo.
_LIBRARIES: Final = ("pandas", "pyarrow", "plotly.graph_objects", "plotly.io", "PIL.Image")

# glibc's mallopt(3). By itself it raises the first whenever a large block is freed, and keeps what is freed below it;
# and it has eight heaps to a processor, of which each keeps what its threads once needed.
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 1024 * 1024
_HEAPS: Final = 2


def give_memory_back() -> None:
    """Has memory of columns and matrices given back to the system as soon as it is freed, where glibc manages it."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        library.mallopt(_M_ARENA_MAX, _HEAPS)


def load() -> None:
    """Imports every room of the dashboard and the libraries that draw: two seconds of work. No model is loaded."""
    PagesManager.uses_pages_directory = False  # or the first to ask for /embed would get that file with no frame
    rooms = (f"{pages.ui.__name__}.{room.name}" for room in pkgutil.iter_modules(pages.ui.__path__))
    for name in (*_LIBRARIES, *rooms):
        importlib.import_module(name)
