"""`make audit`: known vulnerabilities of the packages that are installed here, as https://osv.dev knows them.

Ends with 1 where there is one, with 2 where the audit itself is broken, and with 0 and a sentence where OSV cannot be
reached: that nobody could be asked says nothing about the packages. PyPI's own list is not asked, for pip-audit takes a
mirror that has none for one that knows of no vulnerability.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any, Final

ACCEPTED: Final[dict[str, str]] = {}
"""Vulnerabilities that do not touch us, each with the reason."""

_ASK: Final = ("--local", "--skip-editable", "--vulnerability-service=osv", "--format=json", "--progress-spinner=off")
_UNREACHABLE: Final = re.compile(r"requests\.exceptions\.\w+|urllib3\.exceptions\.\w+|ServiceError|ConnectionError")


def ask() -> subprocess.CompletedProcess[str]:
    """What pip-audit says of the environment that this runs in."""
    return subprocess.run(
        [sys.executable, "-m", "pip_audit", *_ASK], capture_output=True, text=True, check=False, timeout=600
    )


def verdict(said: str, complained: str) -> tuple[str, int]:
    """What to print, and what to end with.

    Args:
        said: pip-audit's report, as JSON; nothing where it made none.
        complained: What it wrote to its standard error.
    """
    try:
        packages: list[dict[str, Any]] = json.loads(said)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (complained.strip() or "it said nothing").splitlines()[-1][:120]
        if _UNREACHABLE.search(complained):
            return f"Not audited: osv.dev cannot be reached ({last})", 0
        return f"pip-audit is broken:\n{complained}", 2
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        return "Not audited: nobody knows any of the packages", 0
    found = [
        f"{each['name']} {each['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'none yet'}"
        for each in audited
        for flaw in each["vulns"]
        if not ACCEPTED.keys() & {flaw["id"], *flaw.get("aliases", ())}
    ]
    if found:
        return "\n".join(["Known vulnerabilities:", *found]), 1
    return f"No known vulnerability in {len(audited)} packages", 0


if __name__ == "__main__":
    asked = ask()
    words, code = verdict(asked.stdout, asked.stderr)
    print(words)
    sys.exit(code)
