"""Identities, keys, namespaces and TTLs."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from servers import Server

from embedcache import NEVER, EmbeddingsCache
from embedcache.errors import (
    EmbedcacheError,
    ForeignKeyError,
    InvalidInputError,
    InvalidModelNameError,
    InvalidNameError,
    InvalidTextError,
    InvalidTTLError,
)
from embedcache.keyspace import (
    MAX_MODEL_NAME_BYTES,
    MAX_TEXT_BYTES,
    MAX_TTL_SECONDS,
    Keyspace,
    check_ttl,
    encode_model_name,
    encode_text,
    split_key,
)

ID = "0123456789abcdef" * 4
GLOB_NAMES = ["*", "?", "a*", "[ab]", "[^a]", "a?c", "\\", "\\*", "a\\", "^", "-", "[", "]", "[a-z]*?\\"]
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12).filter(
    str.strip
)


# ------------------------------------------------------------------------------------------------ keys


def test_the_key_of_the_guide() -> None:
    cache = EmbeddingsCache()
    key = cache.key_for("What is machine learning?", "redis/langcache-embed-v1")
    assert key.startswith("embedcache:909f463a")
    assert key[:15] == "embedcache:909f"


def test_a_key_is_the_name_and_the_sha_256_of_text_and_model() -> None:
    cache = EmbeddingsCache("ünïcode 名")
    assert cache.key_for("Wörter", "m") == "ünïcode 名:" + sha256("Wörter:m".encode()).hexdigest()
    assert cache.key_for(b"\xff\x00", "m") == "ünïcode 名:" + sha256(b"\xff\x00:m").hexdigest()


@given(name=names, text=names, model=names)
def test_a_cache_owns_the_keys_it_makes(name: str, text: str, model: str) -> None:
    cache = EmbeddingsCache(name)
    key = cache.key_for(text, model)
    assert cache.owns(key)
    assert split_key(key) == (name, key[-64:])


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a", f"a:b:{ID}"),
        ("a", f"ab:{ID}"),
        ("a:b", f"a:{ID}"),
        ("b", f"a:b:{ID}"),
        ("a", f"A:{ID}"),
        ("a", f"a{ID}"),
        ("a", f"a:{ID[:-1]}"),
        ("a", f"a:{ID}0"),
        ("a", f"a:{ID.upper()}"),
        ("a", f"a:{ID[:-1]}g"),
        ("a", f"a:{ID}\n"),
        ("a", f"a:{ID[:-1]}٣"),  # a digit elsewhere in the world
        ("a", "a:"),
        ("a", ""),
        ("*", f"a:{ID}"),
        ("a?", f"ab:{ID}"),
    ],
)
def test_a_cache_does_not_own_another_ones_keys(name: str, key: str) -> None:
    space = Keyspace(name)
    assert not space.owns(key)
    with pytest.raises(ForeignKeyError, match="is not one of cache"):
        space.owned_keys([key])


def test_a_foreign_key_in_a_batch_is_named() -> None:
    with pytest.raises(ForeignKeyError, match=r"^item 1: key 'strange' is not one of cache 'a'") as caught:
        Keyspace("a").owned_keys([f"a:{ID}", "strange"])
    assert caught.value.index == 1


@pytest.mark.parametrize("key", ["", ":", ID, f":{ID}", f"a:{ID}x", "a:b"])
def test_what_is_no_key_is_not_split(key: str) -> None:
    assert split_key(key) is None


# ------------------------------------------------------------------------------------------------ patterns


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names)
@example("[a-z]*?\\")
def test_the_server_finds_by_a_pattern_the_own_keys_alone(valkey: Server, name: str) -> None:
    valkey.raw.flushall()
    own = f"{name}:{ID}".encode()
    others = [own + b"0", own[:-1], b"x" + own, f"{name}x:{ID}".encode(), f"{name[:-1]}\0:{ID}".encode()]
    valkey.raw.mset(dict.fromkeys([own, *others], b""))
    assert set(valkey.raw.scan_iter(match=Keyspace(name).pattern, count=1000)) == {own}


@pytest.mark.parametrize("name", GLOB_NAMES)
def test_a_pattern_takes_the_name_literally(name: str) -> None:
    escaped = Keyspace(name).pattern.decode().removesuffix(":" + "?" * 64)
    assert re.sub(r"\\(.)", r"\1", escaped) == name
    assert not re.search(r"(?<!\\)(?:\\\\)*[*?\[]", escaped)


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("name", ["", " ", "\n\t", None, 5, b"bytes", ["a"], "\ud800"])
def test_a_name_that_cannot_be_one(name: Any) -> None:
    with pytest.raises(InvalidNameError, match="name"):
        EmbeddingsCache(name)


# ------------------------------------------------------------------------------------------------ texts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty or blank"),
        (" \n\t", "empty or blank"),
        (b"", "empty or blank"),
        (b"  ", "empty or blank"),
        (None, "not NoneType"),
        (5, "not int"),
        (["a"], "not list"),
        (bytearray(b"a"), "not bytearray"),
        ("a\ud800b", "lone surrogates"),
        ("a" * (MAX_TEXT_BYTES + 1), "8,388,609 bytes long; the longest is 8,388,608"),
        (b"a" * (MAX_TEXT_BYTES + 1), "8,388,609 bytes long"),
        ("é" * (MAX_TEXT_BYTES // 2 + 1), "8,388,610 bytes long"),
    ],
)
def test_a_text_that_cannot_be_cached(text: Any, words: str) -> None:
    with pytest.raises(InvalidTextError, match=words):
        encode_text(text)


def test_the_longest_text_is_taken() -> None:
    assert len(encode_text("a" * MAX_TEXT_BYTES)) == MAX_TEXT_BYTES


@pytest.mark.parametrize("name", ["", "  ", None, 5, b"m", "a\udfff", "m" * (MAX_MODEL_NAME_BYTES + 1)])
def test_a_model_name_that_cannot_be_used(name: Any) -> None:
    with pytest.raises(InvalidModelNameError, match="model name"):
        encode_model_name(name)


# ------------------------------------------------------------------------------------------------ TTLs


@pytest.mark.parametrize(
    "ttl", [0, -1, 1.5, 1.0, True, False, "5", b"5", [5], MAX_TTL_SECONDS + 1, 10**40, np.float64(2)]
)
def test_a_ttl_that_cannot_be_one(ttl: Any) -> None:
    for refused in (
        lambda: check_ttl(ttl),
        lambda: Keyspace("a", ttl),
        lambda: Keyspace("a", 60).resolve_ttl(ttl),
        lambda: EmbeddingsCache(ttl=ttl),
        lambda: EmbeddingsCache().set_ttl(ttl),
    ):
        with pytest.raises(InvalidTTLError, match=r"a TTL is .* not "):
            refused()


@pytest.mark.parametrize("ttl", [NEVER, np.bool_(True), float("nan"), pytest.param(object(), id="object")])
def test_a_default_ttl_is_a_number_or_none(ttl: Any) -> None:
    with pytest.raises(InvalidTTLError, match="whole number of seconds"):
        EmbeddingsCache(ttl=ttl)


@pytest.mark.parametrize("ttl", [1, MAX_TTL_SECONDS, np.int8(7), np.uint32(2**32 - 1), np.int64(60)])
def test_whole_seconds_become_a_plain_int(ttl: Any) -> None:
    for seconds in (check_ttl(ttl), Keyspace("a").resolve_ttl(ttl), EmbeddingsCache(ttl=ttl).ttl):
        assert seconds == int(ttl)
        assert type(seconds) is int


def test_a_refused_ttl_names_its_item() -> None:
    with pytest.raises(InvalidTTLError, match=r"^item 3: a TTL is from 1 to 4294967295 seconds, not 0$") as caught:
        check_ttl(0, index=3)
    assert caught.value.index == 3


def test_which_ttl_an_entry_gets() -> None:
    space = Keyspace("a", 60)
    assert (space.resolve_ttl(None), space.resolve_ttl(5), space.resolve_ttl(NEVER)) == (60, 5, None)
    assert Keyspace("a").resolve_ttl(None) is None


def test_the_default_ttl_can_be_changed() -> None:
    cache = EmbeddingsCache(ttl=60)
    cache.set_ttl(5)
    assert cache.ttl == 5
    cache.set_ttl(None)
    assert cache.ttl is None
    assert cache.name == "embedcache"


# ------------------------------------------------------------------------------------------------ errors


def test_input_errors_are_value_errors_too() -> None:
    for kind in (InvalidNameError, InvalidTextError, InvalidModelNameError, InvalidTTLError, ForeignKeyError):
        assert issubclass(kind, InvalidInputError)
    assert issubclass(InvalidInputError, ValueError)
    assert issubclass(InvalidInputError, EmbedcacheError)


def test_never_reads_as_its_name() -> None:
    assert repr(NEVER) == str(NEVER) == "NEVER"
