"""`docs/warming.md` says what is."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from servers import Server
from toy_model import vector_of
from warmed import MODEL, computed, settings_of, write

from embedcache import CustomVectorizer, EmbeddingsCache
from embedcache.warming import BAD_ROWS_NAMED, WarmProgress, work

PAGE = (Path(__file__).parent.parent.parent / "docs" / "warming.md").read_text(encoding="utf-8")
WARM, TELL = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SETTINGS = 'VectorizerSettings(cache=CacheSettings("docs"))'


@pytest.fixture
def names(valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return {"toy": settings_of(valkey.url, tmp_path / "log")}


def run(code: str, names: dict[str, Any]) -> None:
    assert SETTINGS in code
    exec(code.replace(SETTINGS, "toy"), names)  # noqa: S102 - it is ours


def test_the_first_block(
    names: dict[str, Any], tmp_path: Path, valkey: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "corpus.csv", ["-"] * 4, body=["one", "two", "three", " "], page=[1, 2, 3, 4])
    with EmbeddingsCache("w", redis_url=valkey.url) as cache:
        CustomVectorizer(vector_of, MODEL, cache).embed("two")
        run(WARM, names)
        three = cache.get("three", MODEL)
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", WARM)
    assert three is not None
    assert (three["metadata"], three["ttl"]) == ({"page": "3"}, 86_400)


def test_the_second_block(names: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "corpus.jsonl", ["one", "two", "three"])
    run(TELL, names)
    assert re.fullmatch(r"100%: 3 computed, \d+ rows/s, 0 s left", capsys.readouterr().out.splitlines()[-1])
    assert set(computed(tmp_path / "log")) == {"one", "two", "three"}
    assert os.getpid() not in map(int, os.listdir(tmp_path / "log"))  # noqa: PTH208 - names alone


def test_it_names_what_there_is() -> None:
    described = set(re.findall(r"`(\w+)`", PAGE))
    assert described >= {each.name for each in fields(WarmProgress)} - {"seconds"}
    assert f"the first {BAD_ROWS_NAMED} are named" in PAGE
    assert f"refuses {work._REFUSED_IN_A_ROW} texts" in PAGE
