"""Why a lookup hits or misses: the question that nobody can answer by looking at a missing key."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from itertools import product
from typing import Final

from embedcache import codec
from embedcache.arguments import check_whole
from embedcache.buckets import Standing, read_standing, read_write
from embedcache.entry import Text
from embedcache.entry_layout import EntryLayout, LayoutName
from embedcache.keyspace import Keyspace, check_keys
from embedcache.operations import Operation, ServerAbilities, checked, mexists
from embedcache.packed_layout import PACKED
from embedcache.packing import pack_text
from embedcache.redisvl_format import HashHead
from embedcache.scanning import hash_heads, heads

MAX_SCAN: Final = 100_000
MAX_SIMILAR: Final = 10
_MAX_MODELS_ASKED: Final = 100
_SCAN_BATCH: Final = 1_000
_LONGEST_GUESSED: Final = 10_000
_LONGEST_SORTED: Final = 1_000
_FORMS: Final = ("NFC", "NFD", "NFKC", "NFKD")


class Reason(Enum):
    """What a lookup comes to."""

    HIT = "hit"
    CORRUPT = "corrupt"
    OTHER_ENTRY = "other entry"
    EXPIRED = "expired"
    GONE = "gone"
    OTHER_OPTIONS = "other options"
    OTHER_MODEL = "other model"
    OTHER_SPELLING = "other spelling"
    NEVER_STORED = "never stored"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a lookup hits, or misses. As a str, a sentence for people.

    Attributes:
        reason: Which of the `Reason` it is.
        key: The key that was looked at.
        similar: What is stored instead, as (text, model name): under another model, or spelt otherwise; at most 10.
        stored_at: For `EXPIRED` and `GONE`, when the entry was written last, in Unix seconds by the server's clock.
        expired_at: When its TTL ran out, or for `GONE` would have; later hits may have put it off. None where it had
            none.
        detail: What is wrong with a corrupt entry.
    """

    reason: Reason
    key: str
    similar: tuple[tuple[Text, str], ...] = ()
    stored_at: float | None = None
    expired_at: float | None = None
    detail: str = ""

    @property
    def is_hit(self) -> bool:
        """Whether a lookup finds the entry."""
        return self.reason is Reason.HIT

    def __str__(self) -> str:
        return _SENTENCES[self.reason].format(
            detail=self.detail,
            stored=_moment(self.stored_at),
            ended=_moment(self.expired_at),
            models=", ".join(sorted({repr(model) for _, model in self.similar})),
            texts=", ".join(repr(text if len(text) <= 80 else text[:80]) for text, _ in self.similar[:3]),  # noqa: PLR2004 - a sentence's width
        )


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


_SENTENCES: Final = {
    Reason.HIT: "Hit: the entry is there.",
    Reason.CORRUPT: "Miss: there is a value under the key, but {detail}.",
    Reason.OTHER_ENTRY: "Miss: another text and model share this key, since together they spell the same: {texts}.",
    Reason.EXPIRED: "Miss: the entry was stored at {stored}, and its TTL ran out at {ended}.",
    Reason.GONE: "Miss: the entry was stored at {stored}, and then evicted, or removed by another program.",
    Reason.OTHER_OPTIONS: "Miss: the text is stored under the same model with other options: {models}.",
    Reason.OTHER_MODEL: "Miss: the text is stored under another model: {models}.",
    Reason.OTHER_SPELLING: "Miss: a text that differs only in case, white space or Unicode form is stored: {texts}.",
    Reason.NEVER_STORED: "Miss: never stored in this cache, or dropped since, or gone too long ago to be on record.",
}


def why(
    space: Keyspace,
    able: ServerAbilities,
    text: Text,
    model_name: str,
    *,
    max_scan: int,
    layout: EntryLayout = PACKED,
) -> Operation[Explanation]:
    """Why a lookup of this text and model hits, or misses."""
    max_scan = check_whole("max_scan", max_scan, 0)
    key, tag = pack_text(space, text, model_name)
    value = yield from layout.examine(key)
    if value is not None:
        return _explain_value(key, tag, value)
    if (explained := (yield from _explain_write(space, key))) is not None:
        return explained
    similar = yield from _guess(space, text, model_name, layout)
    if not similar and max_scan > 0:
        similar = yield from _scan(space, able, text, max_scan, layout)
    return _explain_similar(key, text, model_name, similar)


def why_by_key(space: Keyspace, key: str, *, layout: EntryLayout = PACKED) -> Operation[Explanation]:
    """Why a lookup by this key hits, or misses. A key does not tell its text, and so not what is stored instead."""
    (key,) = check_keys([key])
    if not space.owns(key):
        return Explanation(Reason.NEVER_STORED, key)
    value = yield from layout.examine(key)
    if value is None:
        return (yield from _explain_write(space, key)) or Explanation(Reason.NEVER_STORED, key)
    if isinstance(value, str):
        return Explanation(Reason.CORRUPT, key, detail=value)
    if codec.decode_by_key(value, key) is None:
        return Explanation(Reason.CORRUPT, key, detail="the text and the model in it belong under another key")
    return Explanation(Reason.HIT, key)


def _explain_write(space: Keyspace, key: str) -> Operation[Explanation | None]:
    """What became of an entry that was written under a key where nothing is now, as far as that is on record."""
    now, write = yield from read_write(space, key)
    if write is None:
        return None
    reason = Reason.EXPIRED if write.is_over(now) else Reason.GONE
    return Explanation(reason, key, stored_at=write.at, expired_at=write.ends)


def _explain_value(key: str, tag: bytes, value: bytes | str) -> Explanation:
    if isinstance(value, str):
        return Explanation(Reason.CORRUPT, key, detail=value)
    if not value.startswith(tag, codec.TAG_OFFSET) and (head := codec.decode_head(value)) is not None:
        return Explanation(Reason.OTHER_ENTRY, key, similar=((head.text, head.model_name),))
    return Explanation(Reason.HIT, key)


def _explain_similar(key: str, text: Text, model_name: str, similar: list[tuple[Text, str]]) -> Explanation:
    exact = [(found, model) for found, model in similar if found == text]
    options = [each for each in exact if _base(each[1]) == _base(model_name)]
    spelt = [each for each in similar if each[0] != text]
    for reason, chosen in (
        (Reason.OTHER_OPTIONS, options),
        (Reason.OTHER_SPELLING, [each for each in spelt if each[1] == model_name]),
        (Reason.OTHER_MODEL, exact),
        (Reason.OTHER_SPELLING, spelt),
    ):
        if chosen:
            return Explanation(reason, key, similar=tuple(chosen[:MAX_SIMILAR]))
    return Explanation(Reason.NEVER_STORED, key)


def _base(model_name: str) -> str:
    """The model's name without the options that vectorizers add."""
    return model_name.partition("?")[0]


# ------------------------------------------------------------------------------------------------ looking around


def _guess(space: Keyspace, text: Text, model_name: str, layout: EntryLayout) -> Operation[list[tuple[Text, str]]]:
    """What would be near and can be asked for by its key, however large the cache."""
    standing = yield from read_standing(space)
    models = _most_used(standing, model_name)
    asked: list[tuple[Text, str]] = [(text, model) for model in models]
    if isinstance(text, str) and len(text) <= _LONGEST_GUESSED:
        asked += [(variant, model_name) for variant in _variants(text)]
    found: list[tuple[Text, str]] = []
    for model, texts in _by_model(asked):
        there = yield from mexists(space, texts, model, layout=layout)
        found += [(each, model) for each, is_there in zip(texts, there, strict=True) if is_there]
    return found


def _most_used(standing: Standing, but: str) -> list[str]:
    """The models with most entries stored: asking for each is a round trip."""
    others = [(counts.sets, name) for name, counts in standing.total.items() if name is not None and name != but]
    return [name for _, name in sorted(others, reverse=True)[:_MAX_MODELS_ASKED]]


def _by_model(pairs: Iterable[tuple[Text, str]]) -> Iterator[tuple[str, list[Text]]]:
    texts: dict[str, list[Text]] = {}
    for text, model in pairs:
        texts.setdefault(model, []).append(text)
    yield from texts.items()


def _variants(text: str) -> list[str]:
    """The text in other cases, with other white space, in other Unicode forms, and with all of these together."""
    forms = {text, *(unicodedata.normalize(form, text) for form in _FORMS)}
    spaces: tuple[Callable[[str], str], ...] = (str, str.strip, lambda each: " ".join(each.split()))
    cases: tuple[Callable[[str], str], ...] = (str, str.lower, str.upper, str.casefold, str.capitalize, str.title)
    made = {case(space(form)) for form, space, case in product(sorted(forms), spaces, cases)}
    return sorted(each for each in made - {text} if each.strip())


def _scan(
    space: Keyspace, able: ServerAbilities, text: Text, max_scan: int, layout: EntryLayout
) -> Operation[list[tuple[Text, str]]]:
    """Entries of the same text or one spelt alike, among about the first `max_scan` keys of the server."""
    wanted = fold(text)
    found: list[tuple[Text, str]] = []
    cursor = 0
    for _ in range(0, max_scan, _SCAN_BATCH):
        reply = yield from checked(("SCAN", cursor, "MATCH", space.pattern, "COUNT", _SCAN_BATCH))
        cursor = int(reply[0])
        names = [name.decode(errors="surrogateescape") for name in reply[1]]
        seen = yield from _HEADS[layout.name](able, [name for name in names if space.owns(name)])
        found += [(head.text, head.model_name) for head in seen if head is not None and fold(head.text) == wanted]
        if cursor == 0 or len(found) >= MAX_SIMILAR:
            break
    return list(dict.fromkeys(found))


def _packed_heads(able: ServerAbilities, keys: Sequence[str]) -> Operation[list[codec.Head | None]]:
    return [head for head, _ in (yield from heads(able, keys))]


def _hash_heads(_able: ServerAbilities, keys: Sequence[str]) -> Operation[list[HashHead | None]]:
    return (yield from hash_heads(keys))


_HEADS: Final[
    dict[LayoutName, Callable[[ServerAbilities, Sequence[str]], Operation[Sequence[codec.Head | HashHead | None]]]]
] = {"packed": _packed_heads, "redisvl": _hash_heads}


def fold(text: Text) -> Text:
    """The text without what `Reason.OTHER_SPELLING` disregards: case, white space and Unicode form. Bytes stay."""
    if isinstance(text, bytes):
        return text
    if len(text) > _LONGEST_SORTED and not text.isascii() and _many_marks().search(text):
        return " ".join(text.casefold().split())
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


@cache
def _many_marks() -> re.Pattern[str]:
    """More combining marks in a row than any language writes (UAX #15 allows 30 in its Stream-Safe Text Format).

    Normalising sorts such a row in quadratic time: hours, for a text of 8 MiB.
    """
    characters = map(chr, range(0x20000))
    marks = [each for each in characters if unicodedata.combining(unicodedata.normalize("NFKD", each)[0])]
    return re.compile(f"[{''.join(marks)}]{{100}}")
