"""Users with few rights on a server, as docs/security.md gives them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sentinels import Sentinel
from servers import Server

PASSWORD = "s3cret-word"  # noqa: S105 - of users that live as long as their test


def lines(heading: str) -> dict[str, list[str]]:
    """The rules under a heading of the page, by the user that they are for."""
    page = (Path(__file__).parent.parent / "docs" / "security.md").read_text()
    (section,) = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", page, re.DOTALL | re.MULTILINE)
    return {user: rules.split() for user, rules in re.findall(r"^    ACL SETUSER (\w+) (.+)$", section, re.MULTILINE)}


class User:
    """A user of a server or a sentinel, whose name is their role."""

    def __init__(self, server: Server | Sentinel, name: str) -> None:
        if isinstance(server, Server):
            self.url = f"unix://{name}:{PASSWORD}@{server.socket}"
        self._server = server
        self._name = name
        self._known = {name.lower() for name in server.raw.command()}

    def may(self, rules: Sequence[str]) -> None:
        """Gives the user these rights, and forgets what was denied."""
        filled = [rule.replace("PASSWORD", PASSWORD).replace("name:", "c:") for rule in rules]
        known = [rule for rule in filled if self.knows(rule)]
        self._server.raw.execute_command("ACL", "SETUSER", self._name, *known)
        self._server.raw.execute_command("ACL", "LOG", "RESET")

    def knows(self, rule: str) -> bool:
        """Whether this is no command that the server is too old for."""
        return rule[0] not in "+-" or rule[1:].partition("|")[0] in self._known

    def denied(self) -> set[str]:
        """The commands that were refused since then."""
        return {entry["object"].partition("|")[0] for entry in self._server.raw.acl_log()} - {"client"}
