"""What others find in an exported file, and what the documentation says of it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import exporting
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from exporting import DAY, cache, export, fill
from servers import Server

from embedcache import EmbeddingsCache, transfer
from embedcache.connection import RedisConnection

# Fixtures. Imported by name, they would be hidden by the arguments that ask for them.
plain, target = exporting.plain, exporting.target


def test_pandas_reads_parquet_as_anybody_would_want_it(valkey: Server, plain: RedisConnection, tmp_path: Path) -> None:
    fill(valkey, 20, dimensions=8)
    with cache(valkey) as opened:
        opened.set(b"\x00\x01", "m", np.ones(8))
        entry = opened.get("float32 text 1", "m")
    assert entry is not None
    target = tmp_path / "a.parquet"
    export(plain, target)
    frame = pd.read_parquet(target).set_index("text")
    matrix = np.stack(frame["vector"].to_list())
    assert (matrix.shape, matrix.dtype) == ((21, 8), np.float32)
    row = frame.loc["float32 text 1"]
    np.testing.assert_array_equal(row["vector"], entry["embedding"])
    assert (row["model_name"], row["dimension"], row["dtype"], row["ttl"]) == ("m", 8, "float32", DAY + 1)
    assert row["metadata"] == '{"page":1,"ü":[1.0,null,{"deep":true}]}'
    assert row["inserted_at"] == entry["inserted_at"]
    assert row["expires_at"] == pytest.approx(time.time() + DAY + 1, abs=60)
    assert frame["text_bytes"].dropna().to_list() == [b"\x00\x01"]


def test_pandas_reads_vectors_of_several_dimensions_and_dtypes(
    valkey: Server, plain: RedisConnection, tmp_path: Path
) -> None:
    fill(valkey, 1_500, dimensions=3)
    fill(valkey, 5, dimensions=2, dtype="float64", model="wide")
    fill(valkey, 5, dimensions=3, dtype="int8", model="small")
    with cache(valkey) as opened:
        small = opened.get("int8 text 2", "small")
    assert small is not None
    target = tmp_path / "a.parquet"
    export(plain, target)
    frame = pd.read_parquet(target).set_index("text")
    assert frame["vector"].map(len).value_counts().to_dict() == {3: 1_505, 2: 5}
    np.testing.assert_array_equal(frame.loc["int8 text 2", "vector"], small["embedding"])
    assert frame.loc["int8 text 2", "scale"] > 0


def test_a_file_says_what_it_has(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 20)
    fill(valkey, 5, model="n", dtype="float16")
    started = time.time()
    report = export(plain, target)
    summary = transfer.describe_file(target)
    assert (summary.entries, summary.models) == (25, {"m": 20, "n": 5})
    assert (summary.cache_name, summary.file_format, summary.bytes) == ("c", target.suffix[1:], report.bytes)
    assert summary.server.startswith("Valkey 9.")
    assert summary.exported_at == pytest.approx(started, abs=60)


def test_the_documentation_names_every_column_and_field(valkey: Server, plain: RedisConnection, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "transfer.md").read_text()
    fill(valkey)
    export(plain, tmp_path / "a.parquet")
    schema = pq.read_schema(tmp_path / "a.parquet")
    rows = re.findall(r"^\| `(\w+)` \| (\w+)", page, flags=re.MULTILINE)
    assert [name for name, _ in rows][: len(schema.names)] == schema.names
    footer = json.loads(pq.read_metadata(tmp_path / "a.parquet").metadata[b"embedcache_export"])
    assert {name for name, _ in rows[len(schema.names) :]} | {"models"} == footer.keys()
    export(plain, tmp_path / "a.jsonl")
    *lines, last = (tmp_path / "a.jsonl").read_text().splitlines()
    assert set(json.loads(lines[0])) == set(schema.names) - {"text_bytes"}
    assert json.loads(last)["embedcache_export"].keys() == footer.keys()


def test_the_documentations_examples(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "transfer.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    fill(valkey)
    with EmbeddingsCache("answers", redis_url=valkey.url) as opened:
        opened.set("a", "m", [1.0, 2.0])
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)  # noqa: S102 - it is ours
    assert capsys.readouterr().out.splitlines() == ["1 0", "{'m': 1}", "1 0", "float32 (1.0, 2.0)"]
    files = ["again.parquet", "answers.jsonl", "answers.parquet", "many.parquet"]
    assert sorted(each.name for each in tmp_path.iterdir()) == files
    with EmbeddingsCache("copy", redis_url=valkey.url) as opened:
        assert opened.exists("a", "m")
