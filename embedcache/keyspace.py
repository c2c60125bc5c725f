"""Which key an entry lives under, for how long, and whether a key is ours.

An entry's identity is the bytes ``text:model_name`` in UTF-8, its id their SHA-256 in hex, its key ``name:id``.
That concatenation is ambiguous ("a:b" + "c" and "a" + "b:c" are one), which is why the codec stores the identity and
its cut beside the vector, and every read compares them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, cast

from embedcache.arguments import check_whole, shown, whole_number
from embedcache.entry import NEVER, TTL, Text
from embedcache.errors import (
    ForeignKeyError,
    InvalidInputError,
    InvalidModelNameError,
    InvalidNameError,
    InvalidTextError,
    InvalidTTLError,
)

MAX_TEXT_BYTES: Final = 8 * 1024 * 1024
MAX_MODEL_NAME_BYTES: Final = 1024
MAX_TTL_SECONDS: Final = 2**32 - 1  # the packed header keeps it in 32 bits: 136 years

_ID_DIGITS: Final = 64
_HEX_ID: Final = re.compile(r"[0-9a-f]{64}")
_GLOB_SPECIAL: Final = re.compile(r"([*?\[\]\\^])")


@dataclass(frozen=True, slots=True)
class Keyspace:
    """One cache's share of a server's keys, and its default TTL.

    Attributes:
        name: The cache's name; its keys are ``name:`` and 64 hex digits.
        ttl: Default TTL in seconds; None never expires.
        hex_bytes: Whether the key of bytes is that of their hex digits, as in RedisVL's layout.

    Raises:
        InvalidNameError: The name is empty, not a str or not encodable.
        InvalidTTLError: The TTL is not a whole number of seconds above zero.
    """

    name: str
    ttl: int | None = None
    hex_bytes: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InvalidNameError(f"a cache's name is a str that is not blank, not {shown(self.name)}")
        if encode_utf8(self.name) is None:
            raise InvalidNameError("the cache's name holds lone surrogates, which UTF-8 cannot encode")
        if self.ttl is not None:
            object.__setattr__(self, "ttl", check_ttl(self.ttl))

    @property
    def pattern(self) -> bytes:
        """A glob for SCAN that finds this cache's keys, the name taken literally.

        It may find strangers' keys of the same length: ask `owns` about each.
        """
        return _GLOB_SPECIAL.sub(r"\\\1", self.name).encode() + b":" + b"?" * _ID_DIGITS

    def key(self, identity: bytes) -> str:
        """The key of an identity."""
        return f"{self.name}:{sha256(identity).hexdigest()}"

    def keys(self, identities: Sequence[bytes]) -> list[str]:
        """The key of each identity, in order."""
        prefix = f"{self.name}:"  # as `key`, whose calls would be a sixth of all this
        return [prefix + sha256(identity).hexdigest() for identity in identities]

    def key_of_bytes(self, text: bytes, model: bytes) -> str:
        """The key of a text that is bytes, under a model name in UTF-8."""
        return self.key(hex_identity(text, model) if self.hex_bytes else text + b":" + model)

    def owns(self, key: str) -> bool:
        """Whether a key lies in this cache's namespace. It says nothing of whether it exists."""
        name, colon, entry_id = key.rpartition(":")
        return bool(colon) and name == self.name and _HEX_ID.fullmatch(entry_id) is not None

    def owned_keys(self, keys: Sequence[str]) -> Sequence[str]:
        """The keys, each known to be ours, for methods that change entries.

        Raises:
            ForeignKeyError: One of them lies outside the namespace.
        """
        for index, key in enumerate(check_keys(keys)):
            if not self.owns(key):
                raise ForeignKeyError(
                    f"key {key!r} is not one of cache {self.name!r}, whose keys are"
                    f" {self.name!r} + ':' + 64 hex digits",
                    index=position_in(keys, index),
                )
        return keys

    def resolve_ttl(self, ttl: TTL, *, index: int | None = None) -> int | None:
        """Seconds that an entry written with `ttl` lives, or None if it never expires.

        Raises:
            InvalidTTLError: The TTL is not a whole number of seconds above zero.
        """
        if ttl is None:
            return self.ttl
        return None if ttl is NEVER else check_ttl(ttl, index=index)


def hex_identity(text: bytes, model: bytes) -> bytes:
    """What RedisVL takes the SHA-256 of for a text that is bytes."""
    return text.hex().encode() + b":" + model


def split_key(key: str) -> tuple[str, str] | None:
    """A key's cache name and entry id, or None where it has not the form of one."""
    name, colon, entry_id = key.rpartition(":")
    return (name, entry_id) if colon and name and _HEX_ID.fullmatch(entry_id) else None


def check_ttl(ttl: object, *, index: int | None = None) -> int:
    """A TTL as a plain int of seconds.

    Raises:
        InvalidTTLError: It is not a whole number from 1 to `MAX_TTL_SECONDS`. Floats are refused rather than rounded:
            0.9 s must not become 0.
    """
    seconds = whole_number(ttl)
    if seconds is None:
        raise InvalidTTLError(f"a TTL is a whole number of seconds, None or NEVER, not {shown(ttl)}", index=index)
    if not 1 <= seconds <= MAX_TTL_SECONDS:
        raise InvalidTTLError(f"a TTL is from 1 to {MAX_TTL_SECONDS} seconds, not {shown(seconds)}", index=index)
    return seconds


def check_dimension(dimension: object) -> int:
    """A vector's length as a plain int.

    Raises:
        InvalidInputError: It is not a whole number above zero.
    """
    return check_whole("a dimension", dimension)


def check_keys(keys: Sequence[str]) -> Sequence[str]:
    """The keys, each known to be a str.

    Raises:
        InvalidInputError: One is not a str, or a single str was given where a list is meant.
    """
    check_batch(keys, "keys")
    for index, key in enumerate(keys):
        if not isinstance(key, str):
            raise InvalidInputError(f"a key is a str, not {type(key).__name__}", index=position_in(keys, index))
        if encode_utf8(key) is None:
            raise InvalidInputError("the key holds lone surrogates", index=position_in(keys, index))
    return keys


def check_batch(batch: object, what: str) -> None:
    """Checks that a batch is a list, or something like one.

    Raises:
        InvalidInputError: It is a single item, or nothing that has a length and can be gone through.
    """
    if isinstance(batch, list):
        return
    if isinstance(batch, (str, bytes, Mapping)):
        raise InvalidInputError(f"give a list of {what}, not a single one")
    if not isinstance(batch, Collection) or _has_no_length(batch):
        raise InvalidInputError(f"give a list of {what}, not {type(batch).__name__}")


def _has_no_length(batch: Collection[object]) -> bool:
    """A numpy array of no dimension and a class both look like collections."""
    try:
        len(batch)
    except TypeError:
        return True
    return False


def position_in(batch: Sequence[object], index: int) -> int | None:
    """The index that an error names: none where the batch is a single item."""
    return index if len(batch) > 1 else None


def encode_texts(texts: Sequence[Text]) -> list[bytes]:
    """Each text's bytes.

    Raises:
        InvalidTextError: One cannot be cached; the error names its index where there are several.
    """
    check_batch(texts, "texts")
    if len(texts) > 1 and set(map(type, texts)) == {str}:
        strings = cast("Sequence[str]", texts)
        try:
            encoded = [text.encode() for text in strings]
        except UnicodeEncodeError:
            encoded = []  # the loop below names which
        if encoded and all(strings) and not any(map(str.isspace, strings)) and max(map(len, encoded)) <= MAX_TEXT_BYTES:
            return encoded
    return [encode_text(text, index=position_in(texts, index)) for index, text in enumerate(texts)]


def check_texts(texts: Sequence[Text], at_once: int) -> None:
    """Checks texts as `encode_texts` does, with the bytes of only so many of them in memory.

    Raises:
        InvalidTextError: One cannot be cached; the error names its index where there are several.
    """
    try:
        for start in range(0, len(texts), at_once):
            encode_texts(texts[start : start + at_once])
    except InvalidTextError:
        encode_texts(texts)  # names its place among them all
        raise


def encode_text(text: Text, *, index: int | None = None) -> bytes:
    """A text's bytes.

    Raises:
        InvalidTextError: It is not str or bytes, blank, not encodable as UTF-8, or over `MAX_TEXT_BYTES`.
    """
    if not isinstance(text, str | bytes):
        raise InvalidTextError(f"a text is str or bytes, not {type(text).__name__}", index=index)
    encoded = text if isinstance(text, bytes) else encode_utf8(text)
    if encoded is None:
        raise InvalidTextError("the text holds lone surrogates, which UTF-8 cannot encode", index=index)
    if not text or text.isspace():
        raise InvalidTextError("the text is empty or blank", index=index)
    if len(encoded) > MAX_TEXT_BYTES:
        raise InvalidTextError(
            f"the text is {len(encoded):,} bytes long; the longest is {MAX_TEXT_BYTES:,}",
            index=index,
        )
    return encoded


def encode_model_name(model_name: str, *, index: int | None = None) -> bytes:
    """A model name's bytes.

    Raises:
        InvalidModelNameError: It is not a str, blank, not encodable, or over `MAX_MODEL_NAME_BYTES`.
    """
    if not isinstance(model_name, str) or not model_name.strip():
        raise InvalidModelNameError(f"a model name is a str that is not blank, not {shown(model_name)}", index=index)
    encoded = encode_utf8(model_name)
    if encoded is None:
        raise InvalidModelNameError("the model name holds lone surrogates", index=index)
    if len(encoded) > MAX_MODEL_NAME_BYTES:
        raise InvalidModelNameError(
            f"the model name is {len(encoded):,} bytes long; the longest is {MAX_MODEL_NAME_BYTES:,}",
            index=index,
        )
    return encoded


def encode_utf8(text: str) -> bytes | None:
    """The text in UTF-8, or None where it holds lone surrogates."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None
