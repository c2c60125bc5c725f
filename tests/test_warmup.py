"""What is loaded before anybody is served: all that pages import, and nothing that only a few of them ever need."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOAD = """
import json, sys
from pages.ui import warmup
warmup.load()
from streamlit.runtime.pages_manager import PagesManager
print(json.dumps([sorted(sys.modules), PagesManager.uses_pages_directory]))
"""


@pytest.fixture(scope="module")
def loaded() -> tuple[set[str], bool]:
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=ROOT, capture_output=True, check=True, text=True)
    modules, uses_pages_directory = json.loads(done.stdout.splitlines()[-1])
    return set(modules), uses_pages_directory


def imported_by(page: Path) -> set[str]:
    """The modules that a page names at its top."""
    names: set[str] = set()
    for statement in ast.parse(page.read_text()).body:
        if isinstance(statement, ast.Import):
            names.update(alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            names.add(statement.module)
            if statement.module == "pages.ui":
                names.update(f"pages.ui.{alias.name}" for alias in statement.names)
    return names


@pytest.mark.parametrize("page", [ROOT / "app.py", *sorted((ROOT / "pages").glob("*.py"))], ids=lambda page: page.stem)
def test_a_page_imports_nothing_that_is_not_loaded(page: Path, loaded: tuple[set[str], bool]) -> None:
    assert imported_by(page) - loaded[0] == set()


def test_tables_and_figures_are_loaded_and_models_are_not(loaded: tuple[set[str], bool]) -> None:
    modules, _ = loaded
    assert {"pandas", "pyarrow", "plotly.graph_objects"} <= modules
    assert not {"torch", "transformers", "sentence_transformers", "sklearn", "scipy"} & modules


def test_pages_are_not_taken_for_apps_of_their_own(loaded: tuple[set[str], bool]) -> None:
    assert loaded[1] is False
