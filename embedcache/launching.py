"""Starting the dashboard, from a wheel and from a checkout: where its files are, and the process that serves them.

The package imports nothing of the dashboard, it only has Streamlit run its files. A wheel carries them in
``embedcache/_dashboard``, so that nothing called ``pages`` or ``app`` lies among everybody's packages; in a checkout
they are beside the package. Streamlit puts their folder first on ``sys.path``, which is how they find each other, and
takes the settings in ``.streamlit/config.toml`` beside them before those of the folder that it was started in.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Final, NoReturn

from embedcache.arguments import check_path, check_text, check_whole
from embedcache.connection import RedisConnection
from embedcache.errors import DashboardUnavailableError
from embedcache.urls import URL_VARIABLE

_PACKAGE: Final = Path(__file__).parent
_IN_WHEEL: Final = _PACKAGE / "_dashboard"
_SCRIPT: Final = "dashboard.py"
_EXTRA: Final = "dashboard"
# A requirement of an extra as wheels write it: streamlit>=1.67; extra == 'dashboard'
_REQUIREMENT: Final = re.compile(r"([\w.-]+)(?:\[[^]]*\])?(?:>=([\d.]+))?.*extra == ['\"]([\w-]+)['\"]")


def start(address: str | None = None, port: int | None = None, url: str | None = None) -> NoReturn:
    """Serves the dashboard in the place of this process, so that signals reach who they are meant for. Never returns.

    Args:
        address: Where to listen; None is what Streamlit is set to: ``127.0.0.1`` unless an environment variable such as
            ``STREAMLIT_SERVER_ADDRESS`` says otherwise.
        port: On which port; None is what Streamlit is set to, 8501 by default.
        url: The cache's server; None is ``$EMBEDCACHE_URL``, else the embedded one.

    Raises:
        DashboardUnavailableError: Packages that it needs are not installed, or its files are not there.
        InvalidURLError: The URL cannot be read.
    """
    check_packages()
    words = serving(folder(), address, port)
    if url is not None:
        RedisConnection(url).close()  # reads the URL and speaks to nobody
    _become(words, _environment(url))


def hash_password() -> NoReturn:
    """Asks for a password and prints the hash of it that the dashboard takes, in the place of this process.

    Raises:
        DashboardUnavailableError: The dashboard's files are not there.
    """
    found = _environment(None)
    found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder()), found.get("PYTHONPATH"))))
    _become(["-m", "pages.ui.passwords"], found)


def folder() -> Path:
    """Where the dashboard's files are.

    Raises:
        DashboardUnavailableError: They are in neither place.
    """
    for place in (_IN_WHEEL, _PACKAGE.parent):
        if (place / _SCRIPT).is_file() and (place / "pages" / "ui").is_dir():
            return place
    raise DashboardUnavailableError(f"the dashboard's files are neither in {_IN_WHEEL} nor in {_PACKAGE.parent}")


def check_packages() -> None:
    """Looks whether what the extra `dashboard` brings is installed. Imports none of it.

    Raises:
        DashboardUnavailableError: Something is missing or too old; the message names the command that puts it right.
    """
    lacking = [each for each in map(_lacking, _requirements()) if each is not None]
    if lacking:
        raise DashboardUnavailableError(
            f"the dashboard needs packages that are not installed ({', '.join(lacking)}): "
            f'pip install "embedcache[{_EXTRA}]"'
        )


def serving(place: Path, address: str | None, port: int | None) -> list[str]:
    """What the interpreter is told so that it serves the dashboard whose files are in that folder.

    Raises:
        InvalidInputError: The address or the port cannot be one.
    """
    if address is not None:
        check_text("address", address)
    if port is not None:
        check_whole("port", port, 0, 65_535)
    place = check_path("place", place)
    words = ["-m", "streamlit", "run", str(place / _SCRIPT)]
    if place == _IN_WHEEL:
        words.append("--server.fileWatcherType=none")  # nobody edits those files
    if address is not None:
        words.append(f"--server.address={address}")
    if port is not None:
        words.append(f"--server.port={port}")
    return words


def _environment(url: str | None) -> dict[str, str]:
    """Ours, in which no file of the current folder is taken for a module, and with the URL that was asked for.

    Unlike a command line, nobody but the user can read a password there.
    """
    return {**os.environ, "PYTHONSAFEPATH": "1", **({} if url is None else {URL_VARIABLE: url})}


def _requirements() -> list[tuple[str, str | None]]:
    """The packages of the extra, with the oldest version that will do; none where we run without being installed."""
    try:
        listed = metadata.requires("embedcache") or []
    except metadata.PackageNotFoundError:
        return []
    found = [match.groups() for match in map(_REQUIREMENT.match, listed) if match is not None]
    return [(name, oldest) for name, oldest, extra in found if extra == _EXTRA]


def _lacking(requirement: tuple[str, str | None]) -> str | None:
    name, oldest = requirement
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return name
    if oldest is None or _numbers(installed) >= _numbers(oldest):
        return None
    return f"{name} {oldest} or newer, not {installed}"


def _numbers(version: str) -> list[int]:
    """The numbers that a version starts with; what is behind them, as in 1.67.0rc1, does not make it too old."""
    return [int(each) for each in re.findall(r"\d+", (re.match(r"[\d.]*", version) or [""])[0])]


def _become(words: list[str], environment: dict[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *words], environment)  # noqa: S606 - this interpreter, and no shell
