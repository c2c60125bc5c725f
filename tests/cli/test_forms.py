"""The names that programs read: those that docs/cli.md lists stay; others may come."""

from __future__ import annotations

from pathlib import Path

import pytest

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
