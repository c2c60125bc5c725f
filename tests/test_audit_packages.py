"""What `make audit` makes of pip-audit's words."""

from __future__ import annotations

import json
from typing import Any

import audit_packages
import pytest
from audit_packages import verdict

FLAW = {"id": "PYSEC-2023-74", "fix_versions": ["2.31.0"], "aliases": ["CVE-2023-32681"], "description": "…"}


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": list(packages), "fixes": []})


def package(name: str = "requests", *flaws: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": "2.30.0", "vulns": list(flaws)}


SKIPPED = {"name": "embedcache", "skip_reason": "distribution marked as editable"}


def test_a_vulnerability_is_named_and_fails() -> None:
    words, code = verdict(report(SKIPPED, package("numpy"), package("requests", FLAW)), "Found 1 known vulnerability")
    assert code == 1
    assert words.splitlines()[1:] == ["requests 2.30.0: PYSEC-2023-74, fixed in 2.31.0"]
    assert "fixed in none yet" in verdict(report(package("requests", FLAW | {"fix_versions": []})), "")[0]


@pytest.mark.parametrize("name", ["PYSEC-2023-74", "CVE-2023-32681"])
def test_one_that_does_not_touch_us_passes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(audit_packages, "ACCEPTED", {name: "we send nothing through a proxy"})
    assert verdict(report(package("requests", FLAW)), "") == ("No known vulnerability in 1 packages", 0)
    assert verdict(report(package("requests", FLAW, FLAW | {"id": "other", "aliases": []})), "")[1] == 1


def test_where_there_is_none_that_is_said() -> None:
    assert verdict(report(SKIPPED, package("a"), package("b")), "") == ("No known vulnerability in 2 packages", 0)


@pytest.mark.parametrize(
    "complained",
    [
        "Traceback\nrequests.exceptions.ConnectionError: HTTPSConnectionPool(host='api.osv.dev'): Failed to resolve",
        "ERROR:pip_audit._cli:Could not connect\npip_audit._service.interface.ConnectionError: timeout",
        "requests.exceptions.ReadTimeout: read timed out",
    ],
)
def test_where_nobody_can_be_asked_one_line_says_so_and_nothing_fails(complained: str) -> None:
    words, code = verdict("", complained)
    assert code == 0
    assert words.startswith("Not audited: osv.dev cannot be reached")
    assert len(words.splitlines()) == 1


def test_packages_that_nobody_knows_are_not_called_sound() -> None:
    assert verdict(report(SKIPPED, SKIPPED), "No known vulnerabilities found") == (
        "Not audited: nobody knows any of the packages",
        0,
    )


@pytest.mark.parametrize("said", ["", "[]", "{}", "no JSON"])
def test_an_audit_that_is_broken_fails(said: str) -> None:
    words, code = verdict(said, "No module named pip_audit")
    assert code == 2
    assert "No module named pip_audit" in words
