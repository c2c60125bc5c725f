"""The names that programs read: those that docs/cli.md lists stay; others may come."""

from __future__ import annotations

from pathlib import Path

import pytest
from openai_server import MODEL, embedding_server

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def listed(what: str) -> set[str]:
    """The names that the page lists for a command."""
    names = PAGE.read_text().partition("The names that stay")[2]
    rows = [line.split("|") for line in names.splitlines() if line.startswith(f"| {what} |")]
    (row,) = rows
    return {name.strip(" `") for name in row[2].split(",")}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("`caches`", "caches"),
        ("`ls`", "ls"),
        ("`get`", "get|text 9|--vector"),
        ("`why`", "why|text 9"),
        ("`stats`", "stats"),
        ("`drop`, `clear`, `ttl` of many", "drop|--model|other|--yes"),
        ("`drop`, `clear`, `ttl` of many", "clear|--yes"),
        ("`drop`, `clear`, `ttl` of many", "ttl|--all|--set|1h|--yes"),
        ("`drop`, `ttl` of many with `--dry-run`", "drop|--model|other|--dry-run"),
        ("`drop` of one", "drop|text 9|--yes"),
        ("`ttl` of one", "ttl|text 9"),
        ("`doctor`", "doctor"),
        ("`export`", "export|FILE"),
        ("`convert`", "convert|redisvl|--yes"),
    ],
)
def test_a_document_has_the_names_that_are_documented(run, filled, tmp_path, what, words):
    document = run("--json", *words.replace("FILE", str(tmp_path / "all.jsonl")).split("|")).json
    assert listed(what) <= set(document)


def test_what_computes_has_the_names_that_are_documented(run, cache, tmp_path):
    with embedding_server() as api:
        options = [f"--option=base_url={api.base_url}", "--option=api_key=k"]
        who = ["--kind", "openai", "--model", MODEL, *options, "--json"]
        embedded = run("embed", "one", *who).json
        verified = run("verify", *who).json
        (tmp_path / "c.txt").write_text("one\ntwo\n")
        warmed = run("warm", str(tmp_path / "c.txt"), *who).json
    assert listed("`embed`") <= set(embedded)
    assert listed("`embed`: `texts`") <= set(embedded["texts"][0])
    assert listed("`verify`") <= set(verified)
    assert listed("`warm`") <= set(warmed)


def test_a_benchmark_has_the_names_that_are_documented(run, cache):
    timed = run("bench", "batch", "--iterations", "3", "--json").json
    assert listed("`bench`") <= set(timed)
    assert listed("`bench`: `results`") <= set(timed["results"][0])
    assert listed("`bench`: `measurements`") <= set(timed["results"][0]["measurements"][0])


def test_the_embedded_servers_status_has_the_names_that_are_documented(run, url, tmp_path):
    found = run("server", "status", "--url", f"embedded://{tmp_path}/none", "--json").json
    assert listed("`server status`") <= set(found)


def test_what_lists_hold_is_documented(run, filled, tmp_path):
    assert listed("`ls`: `entries`") <= set(run("--json", "ls").json["entries"][0])
    assert listed("`caches`: `caches`") <= set(run("--json", "caches").json["caches"][0])
    filled.set_ttl(60)
    found = run("--json", "doctor", "--ttl", "1h").json["findings"]
    assert listed("`doctor`: `findings`") <= set(found[0])


def test_an_import_has_the_names_that_are_documented(run, filled, tmp_path):
    file = str(tmp_path / "all.jsonl")
    run("export", file)
    assert listed("`import`") <= set(run("--json", "import", file, "--name", "copy").json)
    assert listed("`import` with `--dry-run`") <= set(run("--json", "import", file, "--dry-run").json)
