"""The dashboard started by the package: from any folder, in the place of its process, or told what is not installed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedcache import launching
from embedcache.errors import DashboardUnavailableError, InvalidURLError

ROOT = Path(__file__).parent.parent
START_SECONDS = 60


def installed_as(folder: Path, *requirements: str) -> Path:
    """A folder that says that embedcache is installed, with these requirements of its extra `dashboard`."""
    about = folder / "embedcache-0.1.0.dist-info"
    about.mkdir()
    lines = [f"Requires-Dist: {each}; extra == 'dashboard'\n" for each in requirements]
    (about / "METADATA").write_text("Metadata-Version: 2.4\nName: embedcache\nVersion: 0.1.0\n" + "".join(lines))
    return folder


@pytest.mark.parametrize(
    ("requirement", "told"),
    [
        ("no-such-package>=1.0", "no-such-package"),
        ("no-such-package[extra]", "no-such-package"),
        ("numpy>=99.1", "numpy 99.1 or newer, not 2."),
    ],
)
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(
    requirement: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(installed_as(tmp_path, "redis>=8.0", requirement))
    with pytest.raises(DashboardUnavailableError) as caught:
        launching.start()
    assert told in str(caught.value)
    assert "redis" not in str(caught.value)
    assert 'pip install "embedcache[dashboard]"' in str(caught.value)


def test_nothing_is_missing_where_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launching.check_packages()
    monkeypatch.syspath_prepend(installed_as(tmp_path, "numpy>=2.0.0", "redis[hiredis]>=8", "streamlit[auth]"))
    launching.check_packages()


def test_an_address_that_cannot_be_read_is_refused_before_anything_starts() -> None:
    with pytest.raises(InvalidURLError, match="starts with one of embedded://"):
        launching.start(url="localhost:6379")


def test_in_a_checkout_its_files_are_beside_the_package() -> None:
    assert launching.folder() == ROOT
    assert launching.serving(ROOT, None, None) == ["-m", "streamlit", "run", str(ROOT / "dashboard.py")]
    words = launching.serving(ROOT, "::1", 8600)
    assert words[-2:] == ["--server.address=::1", "--server.port=8600"]


@pytest.fixture
def strange_folder(tmp_path: Path) -> Path:
    """A folder with another project's settings, and with files that are called like modules."""
    folder = tmp_path / "strange"
    (folder / ".streamlit").mkdir(parents=True)
    (folder / ".streamlit" / "config.toml").write_text('[server]\naddress = "0.0.0.0"\nenableXsrfProtection = false\n')
    for name in ("streamlit.py", "app.py", "pages.py", "numpy.py"):
        (folder / name).write_text("raise SystemExit('a file of the current folder was run')\n")
    return folder


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def started(folder: Path, port: int, url: str) -> Iterator[subprocess.Popen[bytes]]:
    call = f"from embedcache import launching; launching.start(port={port}, url={url!r})"
    with subprocess.Popen([sys.executable, "-P", "-c", call], cwd=folder, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_it_answers(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - ours
            assert answer.status == 200
            return
        time.sleep(0.1)
    pytest.fail(f"the dashboard did not start; its exit code is {process.poll()}")


def test_it_is_served_from_any_folder_by_the_same_process(strange_folder: Path, port: int) -> None:
    url = f"embedded://{strange_folder}/data"
    with started(strange_folder, port, url) as process:
        # By pages.ui.serving, once the server of the URL has answered.
        wait_until_it_answers(process, f"http://127.0.0.1:{port}/healthz")
        with pytest.raises(OSError, match=r"refused|assign|reachable"):
            socket.create_connection(("127.0.0.2", port), timeout=5)  # it would take that where it listens to all
        assert (strange_folder / "data").is_dir()
        if Path("/proc").is_dir():  # what others can read of a process
            words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            assert b"streamlit" in words
            assert url.encode() not in words
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) in {0, -signal.SIGTERM}
