"""The documentation is built whole, asks no other host for anything, and its Python is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from servers import Server

from embedcache import EmbeddingsCache

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
LOADING = {"img": "src", "script": "src", "iframe": "src", "source": "src", "object": "data", "video": "src"}
REMOTE = re.compile(r"(?:https?:)?//")


def blocks_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)


class Loaded(HTMLParser):
    """What a browser asks for by itself when it shows a page: links that one follows by hand are not among it."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        # Relations such as "canonical" and "next" name pages, and load none.
        if tag == "link" and not set((given.get("rel") or "").split()) & {"canonical", "next", "prev", "alternate"}:
            self.addresses.append(given.get("href") or "")
        if tag in LOADING:
            self.addresses.append(given.get(LOADING[tag]) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(target)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_it_is_built_with_every_page(site: Path) -> None:
    missing = [page.stem for page in PAGES if page.stem != "index" and not (site / page.stem / "index.html").is_file()]
    assert not missing
    assert "mget_embeddings" in (site / "reference" / "cache" / "index.html").read_text()
    assert "Keep a Changelog" in (site / "changelog" / "index.html").read_text()


def test_the_reference_has_every_method_of_a_cache(site: Path) -> None:
    page = (site / "reference" / "cache" / "index.html").read_text()
    public = [name for name in dir(EmbeddingsCache) if not name.startswith("_")]
    assert [name for name in public if f'id="embedcache.EmbeddingsCache.{name}"' not in page] == []


def test_it_asks_no_other_host_for_anything(site: Path) -> None:
    asked: dict[str, list[str]] = {}
    for page in site.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(page.read_text())
        assert any("stylesheets/" in each for each in loaded.addresses), page
        asked[page.name] = [each for each in loaded.addresses if REMOTE.match(each)]
    for sheet in site.rglob("*.css"):
        asked[sheet.name] = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)", sheet.read_text())
    assert not {name: found for name, found in asked.items() if found}


def test_the_whole_site_is_in_the_navigation() -> None:
    named = set(re.findall(r"[\w./-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} <= named


@pytest.mark.parametrize("page", [page.name for page in PAGES if "```python" in page.read_text()])
def test_a_page_with_python_has_a_test(page: str) -> None:
    tests = [test for test in (ROOT / "tests").rglob("test_*.py") if re.search(rf"\b{page}\b", test.read_text())]
    assert tests, f"no test reads docs/{page}: run its blocks in one"


@pytest.mark.model
def test_the_first_page(valkey: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    names: dict[str, Any] = {}
    (code,) = blocks_of("index.md")
    exec(code, names)  # noqa: S102 - it is ours
    assert f"# {capsys.readouterr().out}" in code
    names["vectorizer"].cache.close()


def test_the_operation_on_the_page_about_architecture(
    valkey: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    names: dict[str, Any] = {}
    for code in blocks_of("architecture.md"):
        exec(code, names)  # noqa: S102 - it is ours
    assert f"# {capsys.readouterr().out}" in code
