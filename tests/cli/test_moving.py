"""Export, import and convert from the shell."""

from __future__ import annotations

import json

import pytest

from embedcache import EmbeddingsCache
from embedcache.vectorizers import DEFAULT_MODEL


@pytest.mark.parametrize("more", [(), ("--processes", "2")])
@pytest.mark.parametrize("name", [("all.parquet",), ("all.jsonl",), ("all.jsonl", "--vectors", "base64")])
def test_an_export_is_imported_whole(run, filled, url, tmp_path, name, more):
    file = str(tmp_path / name[0])
    exported = run("export", file, *name[1:], *more)
    assert exported.code == 0
    assert "10 entries are in" in exported.out
    assert run("import", file, "--name", "copy", "--dry-run", "--json").json["entries"] == 10
    report = run("import", file, "--name", "copy", "--json", *more).json
    assert (report["restored"], report["skipped_existing"]) == (10, 0)
    assert run("import", file, "--name", "copy", "--json").json["skipped_existing"] == 10
    with EmbeddingsCache("copy", redis_url=url) as copy:
        entry = copy.get("text 9", DEFAULT_MODEL)
    assert entry is not None
    assert (entry["metadata"], entry["ttl"], entry["embedding"].tolist()) == ({"page": 9}, 600, [9.0, 1.0])


def test_an_export_takes_what_matches_and_keeps_a_file_that_is_there(run, filled, tmp_path):
    file = tmp_path / "some.jsonl"
    assert run("export", str(file), "--model", "other", "--json").json["entries"] == 5
    before = file.read_bytes()
    assert run("export", str(file)).code == 5
    assert file.read_bytes() == before
    assert run("export", str(file), "--replace").code == 0


def test_vectors_are_numbers_or_base64_in_lines_alone(run, filled, tmp_path):
    file = tmp_path / "all.jsonl"
    for words, kind in (((), list), (("--vectors", "numbers"), list), (("--vectors", "base64"), dict)):
        assert run("export", str(file), "--replace", *words).code == 0
        lines = file.read_text().splitlines()[:-1]
        assert {type(json.loads(line)["vector"]) for line in lines} == {kind}
    refused = run("export", str(tmp_path / "all.parquet"), "--vectors", "base64")
    assert refused.code == 2
    assert "vectors is a choice for jsonl alone; leave it out for parquet" in refused.err
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_is_no_export_ends_with_5(run, filled, tmp_path):
    file = tmp_path / "foreign.parquet"
    file.write_bytes(b"PAR1 and then something else")
    ended = run("import", str(file))
    assert ended.code == 5
    assert "embedcache: " in ended.err
    assert run("import", str(tmp_path / "missing.parquet")).code == 5


def test_replacing_entries_by_an_import_needs_a_yes(run, filled, tmp_path):
    file = str(tmp_path / "all.jsonl")
    run("export", file)
    filled.set("text 1", DEFAULT_MODEL, [5.0, 5.0])
    assert run("import", file, "--on-conflict", "overwrite").code == 4
    assert run("import", file, "--on-conflict", "overwrite", "--yes").code == 0
    entry = filled.get("text 1", DEFAULT_MODEL)
    assert entry is not None
    assert entry["embedding"].tolist() == [1.0, 1.0]


def test_a_cache_is_converted_to_redisvls_layout_and_back(run, filled, url):
    assert run("convert", "redisvl", "--dry-run", "--json").json["to_convert"] == 10
    assert run("convert", "redisvl").code == 4
    assert run("convert", "redisvl", "--yes", "--json").json["converted"] == 10
    assert run("get", "text 9", "--layout", "redisvl", "--json").json["metadata"] == {"page": 9}
    assert run("convert", "packed", "--yes", "--json").json["converted"] == 10
    assert run("convert", "redisvl", "--to-name", "theirs", "--json").json["converted"] == 10
    assert run("get", "text 9", "--json").json["ttl"] == 600
