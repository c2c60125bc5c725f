"""RedisVL's hashes without a server: entries there and back, and everything that is none."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playing import written

from embedcache import codec, redisvl_format
from embedcache.keyspace import Keyspace
from embedcache.packing import pack_texts
from embedcache.redisvl_format import ENTRY_FIELDS, HEAD_FIELDS

SPACE = Keyspace("c", hex_bytes=True)
MODEL = "a/model"
FLOAT64 = codec.stored_dtype("float64")
FLOAT32 = codec.stored_dtype("float32")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


texts = st.text(min_size=1, max_size=40).filter(lambda text: text.strip() and _is_utf8(text)) | st.binary(
    min_size=1, max_size=40
).filter(lambda text: text.strip())
numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | numbers | st.text().filter(_is_utf8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text().filter(_is_utf8), inner),
    max_leaves=8,
)


def item(text: Any = "a text", **fields: Any) -> dict[str, Any]:
    return {"text": text, "model_name": MODEL, "embedding": [0.5, -1.0], **fields}


def fields_of(given_item: dict[str, Any], now: float = 5.5) -> tuple[str, dict[str, bytes]]:
    key, value = written(given_item, space=SPACE, dtype="float64", now=now)
    fields = redisvl_format.from_packed(value, key)
    assert fields is not None
    return key, fields


def read(fields: dict[str, bytes], key: str, dtype: codec.StoredDtype = FLOAT64) -> dict[str, Any] | None:
    value = redisvl_format.to_packed([fields.get(name) for name in ENTRY_FIELDS], key, dtype)
    return codec.decode_by_key(value, key)


# ------------------------------------------------------------------------------------------------ there and back


@given(
    text=texts,
    embedding=st.lists(numbers, min_size=1, max_size=5),
    metadata=st.none() | st.dictionaries(st.text().filter(_is_utf8), json_values, max_size=3),
    ttl=st.none() | st.integers(1, 2**32 - 1),
    now=st.floats(0, 1e11),
)
def test_any_entry_comes_back(
    text: str | bytes, embedding: list[float], metadata: dict[str, Any] | None, ttl: int | None, now: float
) -> None:
    given_item = item(text, embedding=embedding, metadata=metadata, ttl=ttl)
    key, value = written(given_item, space=SPACE, dtype="float64", now=now)
    fields = redisvl_format.from_packed(value, key)
    assert redisvl_format.to_packed([fields.get(name) for name in ENTRY_FIELDS], key, FLOAT64) == value


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_float32_comes_back_bit_by_bit(embedding: list[float]) -> None:
    key, value = written(item(embedding=np.array(embedding, np.float32)), space=SPACE)
    fields = redisvl_format.from_packed(value, key)
    assert read(fields, key, FLOAT32)["embedding"].tobytes() == np.array(embedding, np.float32).tobytes()
    assert json.loads(fields["embedding"]) == embedding


def test_without_orjson_the_same_is_written_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    vector = np.random.default_rng(1).standard_normal(100).astype(np.float32)
    key, value = written(item(embedding=vector), space=SPACE)
    fast = redisvl_format.from_packed(value, key)
    monkeypatch.setattr(redisvl_format, "orjson", None)
    slow = redisvl_format.from_packed(value, key)
    assert json.loads(slow["embedding"]) == json.loads(fast["embedding"])
    assert read(slow, key)["embedding"].tolist() == vector.tolist()
    assert read(slow | {"embedding": b"[NaN]"}, key) is None
    assert read(slow | {"embedding": b"[" * 100_000}, key) is None


def test_the_fields_are_redisvls_own_and_one_of_ours() -> None:
    key, fields = fields_of(item("ü", metadata={"n": 1}, ttl=60))
    assert fields == {
        "entry_id": sha256("ü:a/model".encode()).hexdigest().encode(),
        "content": "ü".encode(),
        "text": "ü".encode(),
        "model_name": b"a/model",
        "embedding": b"[0.5,-1.0]",
        "inserted_at": b"5.5",
        "metadata": b'{"n": 1}',
        "own_ttl": b"60 5.5",
    }
    assert key == f"c:{fields['entry_id'].decode()}"


def test_bytes_lie_under_the_key_of_their_digits() -> None:
    key, fields = fields_of(item(b"\xff\x00"))
    assert key == "c:" + sha256(b"ff00:a/model").hexdigest()
    assert "text" not in fields
    assert read(fields, key)["text"] == b"\xff\x00"


# ------------------------------------------------------------------------------------------------ what is no entry

WRONG: dict[str, dict[str, bytes | None]] = {
    "no vector": {"embedding": None},
    "an empty vector": {"embedding": b"[]"},
    "a number": {"embedding": b"0.5"},
    "an object": {"embedding": b'{"0": 0.5}'},
    "NaN": {"embedding": b"[0.5, NaN]"},
    "infinity": {"embedding": b"[Infinity]"},
    "a number past any float": {"embedding": b"[1e999]"},
    "a number of many digits": {"embedding": b"[1" + b"0" * 400 + b"]"},
    "null": {"embedding": b"[0.5, null]"},
    "strings": {"embedding": b'["0.5"]'},
    "true": {"embedding": b"[0.5, true]"},
    "false": {"embedding": b"[false]"},
    "a matrix": {"embedding": b"[[0.5], [1.0]]"},
    "a ragged matrix": {"embedding": b"[[0.5], 1.0]"},
    "a truncated vector": {"embedding": b"[0.5, -1"},
    "no JSON": {"embedding": b"\x80\x04\x95"},
    "too many brackets": {"embedding": b"[" * 100_000},
    "too many components": {"embedding": b"[" + b"0," * codec.MAX_DIMENSION + b"0]"},
    "no text": {"content": None, "text": None},
    "an empty text": {"content": b"", "text": b""},
    "another text": {"content": b"another", "text": b"another"},
    "a text that is no UTF-8": {"content": b"\xff", "text": b"\xff"},
    "no model": {"model_name": None},
    "an empty model": {"model_name": b""},
    "another model": {"model_name": b"another"},
    "a model of a megabyte": {"model_name": b"m" * 2**20},
    "no time": {"inserted_at": None},
    "a time that is none": {"inserted_at": b"yesterday"},
    "an endless time": {"inserted_at": b"inf"},
    "metadata that is no JSON": {"metadata": b"{"},
    "metadata that is no object": {"metadata": b"[1]"},
    "metadata with NaN": {"metadata": b'{"n": NaN}'},
    "metadata with lone surrogates": {"metadata": b'{"n": "\\ud800"}'},
    "metadata past 64 bits": {"metadata": b'{"n": 100000000000000000000}'},
    "deep metadata": {"metadata": b'{"a":' * 50_000},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=list(WRONG))
def test_what_is_no_entry_is_none(change: dict[str, Any]) -> None:
    key, fields = fields_of(item())
    assert read(fields, key) is not None
    changed: Any = fields | change
    assert read(changed, key) is None


@pytest.mark.parametrize("metadata", [b"null", None])
def test_metadata_may_be_none(metadata: bytes | None) -> None:
    key, fields = fields_of(item())
    changed: Any = fields | {"metadata": metadata}
    assert read(changed, key)["metadata"] is None


@given(st.dictionaries(st.sampled_from([*ENTRY_FIELDS, "other"]), st.binary(max_size=30)))
def test_fuzzed_hashes_are_never_an_error(changes: dict[str, bytes]) -> None:
    key, fields = fields_of(item(metadata={"n": 1}, ttl=60))
    entry = read(fields | changes, key)
    assert entry is None or (entry["text"] == "a text" and np.isfinite(entry["embedding"]).all())
    redisvl_format.decode_head([(fields | changes).get(name) for name in HEAD_FIELDS], key)


@given(st.data())
def test_damaged_fields_give_no_other_text(data: st.DataObject) -> None:
    key, fields = fields_of(item(metadata={"n": 1}, ttl=60))
    name = data.draw(st.sampled_from(sorted(fields)))
    at = data.draw(st.integers(0, len(fields[name]) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    value = bytearray(fields[name])
    value[at] ^= bit
    entry = read(fields | {name: bytes(value)}, key)
    assert entry is None or (entry["text"], entry["model_name"]) == ("a text", MODEL)


# ------------------------------------------------------------------------------------------------ fields left over


@pytest.mark.parametrize("older", [True, False])
def test_either_name_of_the_text_is_enough(older: bool) -> None:
    key, fields = fields_of(item())
    del fields["content" if older else "text"]
    assert read(fields, key)["text"] == "a text"


@pytest.mark.parametrize("field", ["content", "text"])
def test_a_text_left_over_from_another_model_is_passed_over(field: str) -> None:
    key, fields = fields_of({**item("a"), "model_name": "b:c"})
    assert fields_of({**item("a:b"), "model_name": "c"})[0] == key
    assert read(fields | {field: b"a:b"}, key)["text"] == "a"


def test_where_both_texts_fit_the_vector_is_nobodys() -> None:
    key, fields = fields_of(item("616263"))
    assert read(fields, key)["text"] == "616263"
    assert read(fields | {"content": b"abc"}, key) is None


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"60 5.5", 60),
        (b"4294967295 5.5", 2**32 - 1),
        (b"60 5.50", None),
        (b"60 4.5", None),
        (b"60", None),
        (b"0 5.5", None),
        (b"-1 5.5", None),
        (b"4294967296 5.5", None),
        (b"9" * 10_000 + b" 5.5", None),
        (b"", None),
        ("٦ 5.5".encode(), None),
        (None, None),
    ],
)
def test_a_ttl_counts_if_it_is_of_this_entry(field: bytes | None, expected: int | None) -> None:
    key, fields = fields_of(item())
    changed: Any = fields | {"own_ttl": field}
    assert read(changed, key)["ttl"] == expected
    assert redisvl_format.decode_head([changed.get(name) for name in HEAD_FIELDS], key).ttl == expected


# ------------------------------------------------------------------------------------------------ packed values


@pytest.mark.parametrize("dtype", ["float16", "int8", "float32"])
def test_values_of_any_dtype_become_numbers(dtype: str) -> None:
    key, value = written(item(embedding=[1.0, -0.5]), space=SPACE, dtype=dtype)
    expected = codec.decode_by_key(value, key)["embedding"].astype(float).tolist()
    assert json.loads(redisvl_format.from_packed(value, key)["embedding"]) == expected


def test_damaged_values_become_nothing() -> None:
    key, value = written(item(), space=SPACE)
    assert redisvl_format.from_packed(value[:-1], key) is None
    assert redisvl_format.from_packed(value, "c:" + "0" * 64) is None


def test_values_that_json_has_no_words_for_become_nothing() -> None:
    (key,), (tag,) = pack_texts(SPACE, ["a"], MODEL)
    nan = np.array([np.nan], "<f4").tobytes()
    rest = codec.pack_rest(1.0, b"\xc0")
    assert redisvl_format.from_packed(codec.encode(tag, nan, FLOAT32, None, rest), key) is None
    one = np.array([1.0], "<f4").tobytes()
    not_json = codec.pack_rest(1.0, b"\x81\xa1n\xc4\x01x")  # {"n": bytes}
    assert redisvl_format.from_packed(codec.encode(tag, one, FLOAT32, None, not_json), key) is None
    assert redisvl_format.from_packed(codec.encode(tag, one, FLOAT32, None, rest), key) is not None
