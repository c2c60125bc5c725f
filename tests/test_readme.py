"""The README's Python does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from servers import Server

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.model
def test_the_ten_lines_of_python(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - it is ours
    assert names["vectors"].shape == (2, 384)
    assert names["entry"]["metadata"] == {"source": "faq"}
    assert names["entry"]["ttl"] == 3600
    assert names["hits"].tolist() == [True, False]
    assert len(valkey.plain_keys()) == 2
    names["cache"].close()


def test_its_links_and_pictures_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    assert len(targets) > 8
    assert [target for target in targets if not (README.parent / target).is_file()] == []


def test_it_is_one_screen() -> None:
    assert len(README.read_text().splitlines()) <= 60
