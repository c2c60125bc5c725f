"""Junk in each argument of each public method: errors of ours alone, and where there is one, nothing is written.

Methods are found by themselves. One whose parameters are not in `PLAUSIBLE` fails, until somebody says what they are.
Each argument is drawn from junk and from what would do, so that junk in one meets good values in the others.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import Server
from toy_model import vector_of

from embedcache import NEVER, CustomVectorizer, EmbeddingsCache
from embedcache.errors import EmbedcacheError
from embedcache.vectorizers import base

MODEL = "a/model"
KEPT = "kept"


class Unfriendly:
    """Neither shown, nor measured, nor compared."""

    def __repr__(self) -> str:
        return "<unfriendly>"

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparing")

    def __hash__(self) -> int:
        return 5


ODD = {
    "an object": object(),
    "never": NEVER,
    "float32": np.float32(1),
    "NaN": float("nan"),
    "array of none": np.array(1),
    "empty array": np.zeros((1, 0)),
    "array of objects": np.array([None]),
    "array": np.array([0.5, -1.0]),
    "range": range(2),
    "class": int,
    "function": len,
    "date": datetime.datetime(2024, 1, 1),  # noqa: DTZ001 - one without a zone, as junk is
    "set": {1, 2},
    "large": 10**30,
    "surrogates": "\ud800",
    "zero byte": "\0",
    "generator": (number for number in range(3)),
}
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.sampled_from(sorted(ODD)).map(ODD.__getitem__)
    | st.lists(st.floats(), max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.fixed_dictionaries({"text": inner, "model_name": inner, "embedding": inner}, optional={"ttl": inner})
    ),
    max_leaves=6,
)
KEY = EmbeddingsCache("c").key_for(KEPT, MODEL)
PLAUSIBLE: dict[str, list[Any]] = {
    "text": [KEPT, "a", b"a"],
    "texts": [[KEPT, "a"], ["a"], []],
    "model_name": [MODEL],
    "embedding": [[0.5, -1.0], np.ones(2)],
    "metadata": [None, {"a": 1}],
    "ttl": [None, 5, NEVER],
    "items": [[{"text": "a", "model_name": MODEL, "embedding": [0.5, 1.0]}], []],
    "key": [KEY, "c:x"],
    "keys": [[KEY], []],
    "dimension": [None, 2],
    "window": ["all", "1h", "24h"],
    "step": ["1m", "1h"],
    "price": [None, 0.5],
    "seconds": [0.5],
    "tokens": [3],
    # vectorizers
    "preprocess": [None, str],
    "skip_cache": [False, True],
    "input_type": [None, "query", "document"],
    "on_progress": [None],
    "progress": [False],
    "sample": [2],
    "seed": [None, 1],
    "tolerance": [1e-3],
    "max_scan": [0, 100],
    "max_keys": [10],
    "max_names": [10],
    "name": ["c"],
    "cache_name": ["c"],
    "cache_names": ["c"],
    "limit": [5],
    "actor": ["ada"],
    "pace": [1],
    "layout": ["packed", "redisvl"],
    "dtype": ["float32", "int8"],
    "to": [None],
    "to_name": [None, "c2"],
    "big_text_bytes": [100],
    "count": [3],
    "max_bytes": [1_000],
    "plan": [],
    "finding": [],
    "file_format": ["jsonl"],
    "replace": [True],
    "on_conflict": ["skip"],
}
COUNTS_OF_TEXTS = {"record_computation", "record_flights_saved"}
"""Of these, `texts` is a number."""


def parameters_of(function: Callable[..., Any]) -> list[str]:
    found: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            options = inspect.get_annotations(function, eval_str=True, globals=vars(base))[name]
            found += get_type_hints(options.__args__[0], vars(base))
        elif name not in {"self", "connection", "cache", "tell", "path"}:
            found.append(name)
    return found


def drawn(data: st.DataObject, name: str, parameters: list[str]) -> dict[str, Any]:
    # What is called may raise what it likes.
    other = {name: junk.filter(lambda value: not callable(value)) for name in ("preprocess", "on_progress")}
    return {
        parameter: data.draw(st.sampled_from(plausible(name, parameter)) | other.get(parameter, junk), label=parameter)
        for parameter in parameters
    }


def plausible(name: str, parameter: str) -> list[Any]:
    return [0, 3] if parameter == "texts" and name in COUNTS_OF_TEXTS else PLAUSIBLE[parameter]


def digest(server: Server) -> dict[bytes, str]:
    return {key: hashlib.sha256(server.raw.dump(key) or b"").hexdigest() for key in server.raw.scan_iter()}


def refusal(call: Callable[[], Any]) -> EmbedcacheError | None:
    """The error of ours that the call raises, or None; any other error fails the test."""
    try:
        call()
    except EmbedcacheError as error:
        return error
    return None


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as started:
        yield started


def fill(server: Server) -> None:
    server.raw.flushall()
    with EmbeddingsCache("c", ttl=500, redis_url=server.url, stats=False) as cache:
        cache.set(KEPT, MODEL, [0.5, -1.0])
    server.raw.set("another's", "x")


# ------------------------------------------------------------------------------------------------ the cache

WITHOUT_ARGUMENTS = {
    *("clear", "close", "aclear", "aclose", "flush_stats", "aflush_stats", "slow_lookups", "aslow_lookups"),
    *("token_prices", "atoken_prices", "process_stats_by_model"),
}


def methods_of(kind: type) -> list[str]:
    return sorted(name for name, value in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_"))


CACHE_METHODS = [name for name in methods_of(EmbeddingsCache) if name not in WITHOUT_ARGUMENTS]
READERS = ("get", "mget", "exists", "mexists", "remaining", "stats", "astats", "aget", "amget", "aexists", "amexists")
patient = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_those_without_arguments_have_none() -> None:
    for name in WITHOUT_ARGUMENTS:
        assert not parameters_of(getattr(EmbeddingsCache, name)), name


@pytest.mark.parametrize("near_cache", [0, 10], ids=["", "near"])
@pytest.mark.parametrize("name", CACHE_METHODS)
@patient
@given(data=st.data())
def test_a_method_of_the_cache(
    valkey: Server, runner: asyncio.Runner, name: str, near_cache: int, data: st.DataObject
) -> None:
    fill(valkey)
    before = digest(valkey)
    with EmbeddingsCache("c", ttl=500, redis_url=valkey.url, stats=False, near_cache=near_cache) as cache:
        method = getattr(cache, name)
        arguments = drawn(data, name, parameters_of(method))

        def call() -> None:
            returned = method(**arguments)
            if inspect.iscoroutine(returned):
                runner.run(returned)

        error = refusal(call)
        assert error is None or str(error)
        if error is not None or name.startswith(READERS):
            assert digest(valkey) == before
        runner.run(cache.aclose())


OPTIONS = [name for name in inspect.signature(EmbeddingsCache).parameters if name != "redis_url"]


@pytest.mark.parametrize("name", OPTIONS)
@settings(max_examples=40)
@given(value=junk)
def test_an_option_of_the_cache(name: str, value: Any) -> None:
    options: dict[str, Any] = {"redis_url": "unix:///nowhere.sock", "stats": False, name: value}
    error = refusal(lambda: EmbeddingsCache(**options).close())
    assert error is None or str(error)


# ------------------------------------------------------------------------------------------------ vectorizers

VECTORIZER_METHODS = [name for name in methods_of(CustomVectorizer) if name != "model_name_for"]


@pytest.mark.parametrize("name", VECTORIZER_METHODS)
@patient
@given(data=st.data())
def test_a_method_of_a_vectorizer(valkey: Server, runner: asyncio.Runner, name: str, data: st.DataObject) -> None:
    fill(valkey)
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache:
        method = getattr(CustomVectorizer(vector_of, "toy", cache), name)
        before = digest(valkey)
        arguments = drawn(data, name, parameters_of(method))

        def call() -> None:
            returned = method(**arguments)
            if inspect.iscoroutine(returned):
                runner.run(returned)

        error = refusal(call)
        assert error is None or str(error)
        if error is not None:
            assert digest(valkey) == before
        runner.run(cache.aclose())
