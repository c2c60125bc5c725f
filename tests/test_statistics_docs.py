"""`docs/statistics.md` says what is."""

from __future__ import annotations

import re
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from servers import Server

from embedcache import buckets, histogram
from embedcache.statistics import CacheStats

PAGE = (Path(__file__).parent.parent / "docs" / "statistics.md").read_text()


def test_its_python_prints_what_it_says(
    valkey: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - it is ours
    printed = capsys.readouterr().out
    assert printed.startswith("50% of 2 texts, p95 ")
    assert "Miss: a text that differs only in case, white space or Unicode form is stored: 'What is AI?'" in printed
    assert sum(step.texts for step in names["cache"].stats_series("24h", "1h")) == 2
    names["cache"].close()


def test_it_names_every_field() -> None:
    described = {each.name for each in fields(CacheStats)} - {"start", "end", "model_name", "latencies"}
    assert described == described & set(re.findall(r"`(\w+)`", PAGE))


def test_its_codes_keys_and_slots_are_those_that_are_written(valkey: Server) -> None:
    assert f"docs:stats:{{{sha256(b'docs').hexdigest()[:8]}}}:" in PAGE
    words = dict(re.findall(r"`(\w)` \| ([\w ]+?) \|", PAGE))
    said = {name.replace("_", " "): code for name, code in buckets._CODES.items()}
    said["nanoseconds of computing"] = said.pop("compute nanoseconds")
    assert words == {code: name for name, code in said.items()}
    for nanoseconds in (5, 31, 32, 1_000_000):
        spare_bits = nanoseconds.bit_length() - 5
        leading = nanoseconds >> max(spare_bits, 0)
        assert histogram.slot_of(nanoseconds) == (nanoseconds if nanoseconds < 32 else 16 * spare_bits + leading)
