"""Which packed heads match what a filter asks of text and metadata, for a million of them: most need no decoding.

What is asked for must be somewhere in a head's bytes, whoever packed it: each part of the field's path as UTF-8, and
the value in one of the few forms that MessagePack has for it. Heads in which that is not found cannot match. The others
are decoded and compared, so that the bytes decide nothing but what is not worth a look.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

from embedcache import codec
from embedcache.filtering import TYPED_WORDS, EntryFilter, typed_number

_MARKERS: Final[dict[bool | None, bytes]] = {None: b"\xc0", False: b"\xc2", True: b"\xc3"}
# MessagePack's numbers past one byte, by what comes first. Other writers than ours need not take the shortest.
_INTEGERS: Final = tuple(
    (bytes([first]), struct.Struct(form))
    for first, form in zip(range(0xCC, 0xD4), (">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"), strict=True)
)
_FLOATS: Final = ((b"\xca", struct.Struct(">f")), (b"\xcb", struct.Struct(">d")))
_ONE_BYTE: Final = range(-32, 128)


class Sieve:
    """What a filter asks of text and metadata, ready to be compared with many packed heads.

    Args:
        asked: The filter; its other fields are not looked at.
    """

    def __init__(self, asked: EntryFilter) -> None:
        self._asked = asked
        field, value = asked.metadata_field, asked.metadata_value
        self._by_text = asked.text_contains is not None
        self._by_metadata = field is not None and value is not None
        self._parts = () if field is None else tuple(_utf8(part) for part in field.split(".") if part)
        self._forms = re.compile(b"|".join(map(re.escape, sorted(_forms(value or "")))))

    def matches(self, packed: bytes | None) -> bool:
        """Whether a value's bytes, from its start to its vector or further, are those of an entry that matches."""
        if packed is None or (self._by_text and not self._asked.matches_text(codec.stored_text(packed))):
            return False
        if not self._by_metadata:
            return True
        if not self._may_match(packed):
            return False
        head = codec.decode_head(packed)
        return head is not None and self._asked.matches_metadata(head.metadata)

    def _may_match(self, packed: bytes) -> bool:
        start = codec.rest_offset(packed)
        for part in self._parts:
            if packed.find(part, start) < 0:
                return False
        return self._forms.search(packed, start) is not None


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")  # which no entry's metadata holds, so that nothing matches


def _forms(typed: str) -> set[bytes]:
    """The bytes of every JSON value that is what was typed, as MessagePack packs it."""
    forms = {_utf8(typed)}
    word = typed.strip().lower()
    if word in TYPED_WORDS:
        forms.add(_MARKERS[TYPED_WORDS[word]])
    number = typed_number(typed)
    if number is not None:
        forms.update(_number_forms(number))
    return forms


def _number_forms(number: int | float) -> Iterator[bytes]:
    if isinstance(number, int) or number.is_integer():
        yield from _integer_forms(int(number))
    for first, form in _FLOATS:
        try:
            packed = form.pack(number)
        except (OverflowError, struct.error):  # too large for it
            continue
        if form.unpack(packed) == (number,):
            yield first + packed
        if number == 0:
            yield first + form.pack(-0.0)
            yield first + form.pack(0.0)


def _integer_forms(number: int) -> Iterator[bytes]:
    if number in _ONE_BYTE:
        yield bytes([number & 0xFF])
    for first, form in _INTEGERS:
        try:
            yield first + form.pack(number)
        except struct.error:  # too large for it
            continue
