"""Whether what is cached is what the model at hand gives: a sample of entries, computed anew and compared.

What is compared is the cosine distance, 1 - cos of the angle between the stored and the new vector. An entry is an
outlier where that angle is larger than two together: the tolerance's, and the one by which the entry's own dtype turns
the new vector when it is stored. That is measured on each vector and not assumed for the dtype, since int8 rounds a
vector with one large component far more coarsely than one of even components.

A threshold made from the sample's own distances, as from their median and spread, was left out: where half of the
entries come from another revision, these make the spread, and none is an outlier.

Nothing is written, no TTL is restarted, nothing is counted as a lookup or as a computation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from embedcache import codec, sampling
from embedcache.arguments import check_function, check_whole, is_number, shown
from embedcache.entry import Text
from embedcache.errors import EmbeddingFailedError, InvalidInputError, InvalidTextError, VectorizerError
from embedcache.operations import Operation, ServerAbilities
from embedcache.scanning import heads
from embedcache.vectorizers.drift_report import DriftEntry, DriftReport
from embedcache.vectorizers.prompts import INPUT_TYPES, InputType
from embedcache.vectorizers.report import Matrix
from embedcache.vectorizers.steps import Compute, Exchange, Plan
from embedcache.vectorizers.work import check_computed

if TYPE_CHECKING:
    from embedcache.vectorizers.base import BaseVectorizer

WORST: Final = 10
_DRAWN_PER_ENTRY: Final = 10
_DRAWN_AT_LEAST: Final = 1_000
_FARTHEST: Final = 2.0
_OF_REDISVL: Final = "json"

Tell: TypeAlias = Callable[[int, int], None]


def comparing(
    vectorizer: BaseVectorizer, count: int, seed: int | None, tolerance: float, on_progress: Tell | None
) -> Plan[DriftReport]:
    """What `BaseVectorizer.verify` does.

    Raises:
        InvalidInputError: There is no cache, or an argument cannot be used.
    """
    cache = vectorizer.cache
    if cache is None:
        raise InvalidInputError("there is no cache to verify: pass cache=… to the vectorizer, or set its .cache")
    if not is_number(tolerance) or not 0 <= tolerance <= _FARTHEST:
        raise InvalidInputError(f"tolerance is a cosine distance from 0 to 2, not {shown(tolerance)}")
    sampling.check_count(count)
    if seed is not None:
        check_whole("seed", seed, 0)
    check_function("on_progress", on_progress, may_be_none=True)
    names = _names(vectorizer)
    samples: list[sampling.Sample] = []
    stored: list[list[Stored]] = []
    for model_name in names:
        drawn = yield Exchange(cache, sampling.drawing(cache.name, _pool(count), model_name))
        chosen = _choose(drawn, count, seed)
        dtypes = yield Exchange(cache, _dtypes([entry.key for entry, _ in chosen]))
        samples.append(drawn)
        stored.append([(replace(entry, dtype=dtype), row) for (entry, row), dtype in zip(chosen, dtypes, strict=True)])
    comparison = _Comparison(tolerance, sum(map(len, stored)), on_progress)
    for entries, input_type in zip(stored, names.values(), strict=True):
        yield from _compare(vectorizer, entries, input_type, comparison)
    whole = all(drawn.whole and drawn.entries <= count for drawn in samples)
    return comparison.report(tuple(names), cache.dtype, max(drawn.unreadable for drawn in samples), whole=whole)


def _names(vectorizer: BaseVectorizer) -> dict[str, InputType | None]:
    """The names under which entries are kept, each with the type of its texts."""
    names: dict[str, InputType | None] = {vectorizer.model_name: None}
    for input_type in INPUT_TYPES:
        names.setdefault(vectorizer.model_name_for(input_type), input_type)
    return names


Stored: TypeAlias = tuple[DriftEntry, Matrix]
"""An entry and its vector, shape (d,)."""


def _pool(count: int) -> int:
    """How many entries are drawn: more than wanted, so that another seed sees others."""
    return min(max(_DRAWN_PER_ENTRY * count, _DRAWN_AT_LEAST), sampling.MAX_COUNT)


def _choose(drawn: sampling.Sample, count: int, seed: int | None) -> list[Stored]:
    """As many of the entries drawn, at random."""
    rows = [(group, row) for group in drawn.groups for row in range(len(group))]
    rows.sort(key=lambda place: place[0].keys[place[1]])  # the order of SCAN is not the same on another day
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [
        (
            DriftEntry(
                key=group.keys[row],
                text=group.texts[row],
                model_name=group.model_names[row],
                metadata=group.metadata[row],
                inserted_at=float(group.inserted_at[row]),
                dtype="",
                dimension=group.dimension,
            ),
            group.matrix[row].astype(np.float32, copy=False),
        )
        for group, row in (rows[place] for place in chosen)
    ]


def _dtypes(keys: Sequence[str]) -> Operation[list[str]]:
    """How the vectors under these keys are stored."""
    seen = yield from heads(ServerAbilities(), keys)
    return [_OF_REDISVL if head is None else head.dtype.name for head, _ in seen]


def _chunks(entries: Sequence[Stored], size: int) -> list[Sequence[Stored]]:
    return [entries[start : start + size] for start in range(0, len(entries), size)]


def _compare(
    vectorizer: BaseVectorizer, entries: Sequence[Stored], input_type: InputType | None, comparison: _Comparison
) -> Plan[None]:
    """Embeds the entries' texts chunk by chunk; one that is refused is halved, to find the text that it is about."""
    waiting = deque(_chunks(entries, vectorizer._chunk_size))
    while waiting:
        chunk = waiting.popleft()
        given = yield from _embed(vectorizer, [entry.text for entry, _ in chunk], input_type)
        if isinstance(given, Exception) and len(chunk) > 1:
            waiting.extendleft(reversed(_chunks(chunk, -(-len(chunk) // 2))))
        else:
            comparison.add(chunk, given)


def _embed(
    vectorizer: BaseVectorizer, texts: list[Text], input_type: InputType | None
) -> Plan[Matrix | VectorizerError | InvalidInputError]:
    """The texts' new vectors, or the error with which the model refuses one of them."""
    try:
        given, _ = yield Compute(vectorizer, texts, input_type, nullcontext())
        return check_computed(given, len(texts))
    except (InvalidTextError, EmbeddingFailedError) as error:
        return error


# ------------------------------------------------------------------------------------------------ the comparison


class _Comparison:
    """What has been found so far."""

    def __init__(self, tolerance: float, total: int, on_progress: Tell | None) -> None:
        self._tolerance = float(tolerance)
        self._total = total
        self._done = 0
        self._on_progress = on_progress
        self._compared: list[tuple[DriftEntry, float, float, bool]] = []
        self._wrong_dimension: list[DriftEntry] = []
        self._refused: list[DriftEntry] = []
        self._turns: dict[str, list[float]] = {}
        self._dimension: int | None = None

    def add(self, stored: Sequence[Stored], given: Matrix | VectorizerError | InvalidInputError) -> None:
        """Compares entries with what the model gave for their texts, or takes down why it gave nothing."""
        for place, (entry, vector) in enumerate(stored):
            if isinstance(given, Exception):
                self._refused.append(replace(entry, reason=str(given)))
            else:
                self._compare(entry, vector, given[place])
        self._done += len(stored)
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)

    def _compare(self, entry: DriftEntry, stored: Matrix, given: Matrix) -> None:
        if self._dimension not in (None, len(given)):
            raise EmbeddingFailedError(
                f"the model gave vectors of {self._dimension} components, and then of {len(given)}"
            )
        self._dimension = len(given)
        if entry.dimension != len(given):
            self._wrong_dimension.append(entry)
            return
        turn = 0.0 if entry.dtype == _OF_REDISVL else _distance(_rounded(given, entry.dtype), given)
        self._turns.setdefault(entry.dtype, []).append(turn)
        distance = _distance(stored, given)
        allowed = _together(self._tolerance, turn)
        # As much longer or shorter as a vector within the tolerance may lie to the side.
        off = abs(_length(stored) - _length(given)) > np.sqrt(2 * allowed) * _length(given)
        self._compared.append((replace(entry, distance=distance), distance, allowed, bool(off)))

    def report(self, model_names: tuple[str, ...], dtype: str, unreadable: int, *, whole: bool) -> DriftReport:
        by_distance = sorted(self._compared, key=lambda each: (-each[1], each[0].key))
        everything = [*(each[0] for each in by_distance), *self._wrong_dimension, *self._refused]
        return DriftReport(
            model_names=model_names,
            checked=len(self._compared),
            distances=np.array([each[1] for each in self._compared], dtype=np.float64),
            allowed=np.array([each[2] for each in self._compared], dtype=np.float64),
            worst=tuple(each[0] for each in by_distance[:WORST]),
            outliers=tuple(entry for entry, distance, allowed, _ in by_distance if distance > allowed),
            other_length=tuple(entry for entry, distance, allowed, off in by_distance if off and distance <= allowed),
            wrong_dimension=tuple(self._wrong_dimension),
            refused=tuple(self._refused),
            other_dtype=tuple(entry for entry in everything if entry.dtype != dtype),
            too_coarse=tuple(name for name, turns in self._turns.items() if np.median(turns) > self._tolerance),
            dimension=self._dimension,
            tolerance=self._tolerance,
            unreadable=unreadable,
            whole=whole,
        )


def _rounded(vector: Matrix, dtype: str) -> Matrix:
    """The vector as it would be read back, had it been stored with this dtype."""
    rounded: Matrix = codec.rounded(vector[None], codec.stored_dtype(dtype)).astype(np.float32)[0]
    return rounded


def _distance(one: Matrix, other: Matrix) -> float:
    """The cosine distance of two vectors, 0 to 2: 0 of two zero vectors, 2 where one alone is zero, or not finite."""
    lengths = _length(one), _length(other)
    if lengths == (0.0, 0.0):
        return 0.0
    if 0.0 in lengths or not np.isfinite(lengths).all():
        return _FARTHEST
    cosine = np.dot(one.astype(np.float64), other.astype(np.float64)) / (lengths[0] * lengths[1])
    return float(np.clip(1.0 - cosine, 0.0, _FARTHEST))


def _length(vector: Matrix) -> float:
    return float(np.linalg.norm(vector.astype(np.float64)))


def _together(*distances: float) -> float:
    """The cosine distance of angles one after the other: it grows faster than the sum of the distances."""
    return float(1.0 - np.cos(min(sum(np.arccos(1.0 - np.array(distances))), np.pi)))
