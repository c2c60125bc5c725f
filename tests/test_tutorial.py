"""`docs/tutorial.md` does what it says, on the embedded server and the bundled model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(
    r"^```python\n(.*?)^```\n\n```text( title=\"for example\")?\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE
)


def without_figures(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", text)


def test_every_block_of_python_says_what_it_prints() -> None:
    assert len(BLOCKS) == PAGE.count("```python") > 10


@pytest.mark.model
def test_the_whole_journey(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for code, example, said in BLOCKS:
        exec(code, names)  # noqa: S102 - it is ours
        printed = capsys.readouterr().out
        if example:  # figures of the machine
            assert without_figures(printed) == without_figures(said), code
        else:
            assert printed == said, code
    assert names["cache"].connection.is_embedded
