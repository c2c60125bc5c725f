"""What a user gets who installs the built wheel: all files, types, and a dashboard that needs no checkout."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from building import ROOT, Archives, Environment, alone, run

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(1_800)]

START_SECONDS = 120  # the first start compiles every module
SECONDS = 120
# Of .streamlit/config.toml, and of no theme of Streamlit's.
SIDEBAR = {"light": "rgb(243, 246, 249)", "dark": "rgb(11, 17, 23)"}
PAGES = set(re.findall(r'st\.Page\("pages/\w+\.py", title="([^"]+)"', (ROOT / "app.py").read_text()))

PROGRAM = """
from embedcache import EmbeddingsCache, HFTextVectorizer

cache = EmbeddingsCache(name="docs", ttl=3600)
key: str = cache.set("text", "model", [0.1, 0.2])
entry = cache.get("text", "model")
if entry is not None:
    found: str | bytes = entry["text"]
vectorizer = HFTextVectorizer(cache=cache)
"""


# ------------------------------------------------------------------------------------------------ what is in it


def test_the_wheel_has_the_package_and_in_it_the_dashboard(archives: Archives) -> None:
    names = set(zipfile.ZipFile(archives.wheel).namelist())
    assert {name.partition("/")[0] for name in names} == {"embedcache", "embedcache-0.1.0.dist-info"}
    inside = {f"embedcache/_dashboard/{name}" for name in dashboards_files()}
    assert {name for name in names if name.startswith("embedcache/_dashboard/")} == inside
    package = {f"embedcache/{path.relative_to(ROOT / 'embedcache')}" for path in (ROOT / "embedcache").rglob("*.py")}
    assert package <= names
    licences = {"embedcache-0.1.0.dist-info/licenses/LICENSE", "embedcache-0.1.0.dist-info/licenses/NOTICE.md"}
    assert {"embedcache/py.typed", *licences} <= names


def dashboards_files() -> set[str]:
    pages = [path for path in (ROOT / "pages").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(pages) > len(PAGES)
    return {"app.py", "dashboard.py", ".streamlit/config.toml", *(str(path.relative_to(ROOT)) for path in pages)}


def test_the_source_archive_has_what_building_and_testing_take(archives: Archives, tmp_path: Path) -> None:
    source = archives.unpack(tmp_path)
    for name in ("Makefile", "constraints.txt", "tests/conftest.py", "docs/dashboard.md", "LICENSE", "NOTICE.md"):
        assert (source / name).read_bytes() == (ROOT / name).read_bytes()
    assert not (source / ".venv").exists()


def test_types_are_told(installed: Environment, tmp_path: Path) -> None:
    assert "Success" in checked(installed, tmp_path, PROGRAM)[1]
    code, told = checked(installed, tmp_path, PROGRAM.replace("key: str", "key: int"))
    assert code == 1
    assert 'expression has type "str", variable has type "int"' in told


def checked(installed: Environment, folder: Path, program: str) -> tuple[int, str]:
    """What our mypy makes of a program with what is installed there; its exit code, and its words."""
    (folder / "program.py").write_text(program)
    words = ["-m", "mypy", "--strict", "--no-incremental", "--python-executable", str(installed.python), "program.py"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=alone(folder),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_without_extras_it_imports_and_says_how_to_get_the_dashboard(bare: Environment, tmp_path: Path) -> None:
    asked = "import embedcache, sys; print(embedcache.__file__, 'streamlit' in sys.modules)"
    assert f"{bare.folder}" in run([str(bare.python), "-c", asked], SECONDS, env=alone(tmp_path), cwd=tmp_path)
    words = [str(bare.command("embedcache")), "dashboard"]
    done = subprocess.run(
        words, cwd=tmp_path, env=alone(tmp_path), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    told = re.sub(r"[\s│]+", " ", done.stderr)  # a terminal's width may break it, in a box
    assert "streamlit" in told
    assert 'pip install "embedcache[dashboard]"' in told


# ------------------------------------------------------------------------------------------------ the dashboard


@dataclass(frozen=True, slots=True)
class Running:
    """A dashboard at work."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path
    home: Path


@pytest.fixture(scope="module")
def running(installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`embedcache dashboard`, from an empty folder, by somebody with an empty home."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("empty")
    log = tmp_path_factory.mktemp("log") / "dashboard.log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(installed.command("embedcache")), "dashboard", "--port", str(port)]
    with (
        log.open("wb") as output,
        subprocess.Popen(words, cwd=folder, env=alone(home), stdout=output, stderr=output) as process,
    ):
        try:
            started = Running(f"http://127.0.0.1:{port}", process, log, home)
            wait_until_healthy(started)
            yield started
            assert list(folder.iterdir()) == []  # nothing is left where it happened to be started
        finally:
            process.kill()


def wait_until_healthy(started: Running) -> None:
    deadline = time.monotonic() + START_SECONDS
    address = f"{started.address}/_stcore/health"
    while time.monotonic() < deadline and started.process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=1):  # noqa: S310 - ours
            return  # any other answer than 200 raises
        time.sleep(0.1)
    pytest.fail(f"the dashboard did not start:\n{started.log.read_text(errors='replace')}")


@pytest.fixture(params=["light", "dark"])
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=request.param)
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


def test_every_page_is_there_in_our_colours(page: Any, running: Running, request: pytest.FixtureRequest) -> None:
    from browser import settle  # imports playwright itself, which the fixture has found
    from playwright.sync_api import expect

    theme = request.node.callspec.params["page"]
    page.goto(running.address)
    links = page.get_by_test_id("stSidebarNav").get_by_role("link")
    expect(links).to_have_count(len(PAGES))
    assert {name.splitlines()[-1].strip() for name in links.all_inner_texts()} == PAGES
    for name in sorted(PAGES):
        page.get_by_test_id("stSidebarNav").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
        settle(page)
        assert page.get_by_test_id("stException").count() == 0
    colour = "each => getComputedStyle(each).backgroundColor"
    assert page.get_by_test_id("stSidebar").evaluate(colour) == SIDEBAR[theme]


def test_the_model_and_the_server_that_come_with_it_are_used(browser: Any, running: Running) -> None:
    from playwright.sync_api import expect

    page = browser.new_page()
    page.goto(f"{running.address}/embed")
    page.get_by_label("Text", exact=True).fill("What is machine learning?")
    for label in ("Misses", "Hits"):
        page.get_by_role("button", name="Embed").click()
        box = page.get_by_test_id("stMetric").filter(has=page.get_by_text(label, exact=True))
        expect(box.get_by_test_id("stMetricValue")).to_have_text("1", timeout=120_000)
    page.close()
    assert (running.home / "data" / "embedcache").is_dir()


def test_it_ends_when_it_is_told_to(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(SECONDS) in {0, -signal.SIGTERM}
    assert "Traceback" not in running.log.read_text(errors="replace")
