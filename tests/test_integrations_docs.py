"""The Python in `docs/integrations.md` does what it says; an integration without its library says what to install."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from servers import Server

from embedcache.vectorizers.base import CHUNK_TEXTS

PAGE = (Path(__file__).parent.parent / "docs" / "integrations.md").read_text(encoding="utf-8")
FUNCTION, LANGCHAIN, EMBEDDINGS, LLAMAINDEX, TRANSFORMERS, SKLEARN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def own_server(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)


def run(code: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What a block has named in the end; what it prints is what it says that it prints."""
    names: dict[str, Any] = {"__name__": "docs"}
    exec(code, names)  # noqa: S102 - it is ours
    said = re.findall(r"print\(.*\)  # (.*)", code)
    assert capsys.readouterr().out.splitlines() == said
    return names


def test_a_function_of_yours(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(FUNCTION, capsys)
    assert names["vectors"].tolist() == [[3, 1, 1, 0, 0], [2, 1, 1, 1, 0]]
    assert names["cache"].stats().texts_computed == 3
    assert f"at most {CHUNK_TEXTS} distinct texts" in PAGE
    names["cache"].close()


def test_embeddings_of_langchain(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(EMBEDDINGS, capsys)
    assert names["query"] == names["vectors"][0]
    cache = names["embeddings"].vectorizer.cache
    assert cache.stats().texts_computed == 2
    cache.close()


@pytest.mark.model
@pytest.mark.parametrize(
    ("code", "name"), [(LANGCHAIN, "embeddings"), (LLAMAINDEX, "embed_model"), (TRANSFORMERS, "encode")]
)
def test_blocks_with_a_model(code: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cache = run(code, capsys)[name].vectorizer.cache
    computed = cache.stats().texts_computed
    assert computed > 0
    run(code, capsys)[name].vectorizer.cache.close()
    assert cache.stats().texts_computed == computed  # the second time it is read
    cache.close()


@pytest.mark.model
def test_a_grid_embeds_each_text_once(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(SKLEARN, capsys)
    cache = names["vectorizer"].cache
    assert cache.stats().texts_computed == len(names["texts"]) + 1
    cache.close()


@pytest.mark.parametrize(
    ("module", "library", "package"),
    [
        ("langchain", "langchain_core", "langchain-core"),
        ("llamaindex", "llama_index", "llama-index-core"),
        ("sklearn", "sklearn", "scikit-learn"),
    ],
)
def test_without_the_library_the_error_says_what_to_install(module: str, library: str, package: str) -> None:
    code = f"import sys; sys.modules['{library}'] = None; import embedcache.integrations.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"ImportError: embedcache.integrations.{module} needs {package}: pip install 'embedcache[" in done.stderr
    assert f'`pip install "embedcache[{module}]"`' in PAGE
    assert f"embedcache[{module}]'" in done.stderr


def test_importing_the_package_imports_none_of_them() -> None:
    code = (
        "import sys, embedcache, embedcache.vectorizers.decorator;"
        "print([name for name in ('langchain_core', 'llama_index', 'sklearn', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
