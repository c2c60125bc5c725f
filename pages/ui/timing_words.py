"""What a benchmark found, in words and on cards. Knows no streamlit.

Names of variants and models may come from the server, where anybody may have written them: in what is Markdown here,
each goes through `code_span` or `plain_label`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from embedcache.benchmark.records import Comparison, Measurement, Run, ScenarioResult
from embedcache.benchmark.scenarios import SCENARIOS
from pages.ui.wording import count, counted, elapsed, plain_label, share, size

OPERATIONS: Final = {"embed": "Embed", "read": "Read", "write": "Write"}

_DIGITS_FROM: Final = 10
_ALIKE: Final = 1.05


@dataclass(frozen=True, slots=True)
class Card:
    """A number worth a card of its own, and what it means."""

    label: str
    value: str
    meaning: str


def times(ratio: float) -> str:
    """How many times: 1.4, 5.6, 36, 1,240."""
    return f"{ratio:,.0f}" if ratio >= _DIGITS_FROM else f"{ratio:.1f}"


def title(key: str) -> str:
    """A scenario's name; that of a later version's is its key."""
    return SCENARIOS[key].title if key in SCENARIOS else plain_label(key)


def rate(per_second: float) -> str:
    """How many a second, in three digits: 173,000."""
    return f"{float(f'{per_second:.3g}'):,.0f}" if per_second >= _DIGITS_FROM else f"{per_second:.2g}"


def named(key: str, measurements: Sequence[Measurement]) -> list[Measurement]:
    """The measurements under names that say what they are beside a box: a batch size is more than a number."""
    if key != "sizes":
        return list(measurements)
    return [replace(each, variant=f"{count(each.texts)} per call") for each in measurements]


# ------------------------------------------------------------------------------------------------ sentences


def answer(result: ScenarioResult) -> str:
    """What came of a scenario, as one or two sentences in Markdown; empty where there is nothing to compare."""
    tell = _ANSWERS.get(result.key)
    return tell(result) if tell else ""


def _about_cache(result: ScenarioResult, what: str = "The cache") -> str:
    return " ".join(
        f"**{what} answers {_faster(each)}**: {elapsed(each.variant.per_text)} instead of "
        f"{elapsed(each.baseline.per_text)} per text, {_latency(each)}."
        for each in result.comparisons()
    )


def _about_batch(result: ScenarioResult) -> str:
    pairs = [("Reading", each) for each in result.comparisons("read")]
    pairs += [("Writing", each) for each in result.comparisons("write")]
    return " ".join(
        f"**{deed} {counted(each.variant.texts, 'text')} in one call is {_faster(each)}** than in a call each: "
        f"{elapsed(each.variant.p50)} instead of {elapsed(each.baseline.p50)}, {_latency(each)}."
        for deed, each in pairs
    )


def _about_sizes(result: ScenarioResult) -> str:
    reads = result.of("read")
    if not reads:
        return ""
    best = _fastest(reads)
    found = f"{rate(best.texts_per_second)} entries a second"
    if len(reads) == 1 or best is reads[0]:
        return f"**Reading is fastest with {counted(best.texts, 'entry', 'entries')} per call**: {found}."
    pair = Comparison(reads[0], best)
    return (
        f"**Reading is fastest with {counted(best.texts, 'entry', 'entries')} per call**: {found}, "
        f"{times(pair.speedup)} times as many as with {count(reads[0].texts)} per call, and {_latency(pair)} per entry."
    )


def _about_dtypes(result: ScenarioResult) -> str:
    return " ".join(filter(None, (_least_memory(result), _time_of_dtypes(result))))


def _least_memory(result: ScenarioResult) -> str:
    least, usual = _smallest(result), result.measurements[0]
    if least is None or least.bytes_per_entry is None or not usual.bytes_per_entry:
        return ""
    name = plain_label(least.variant)
    found = f"**{name} takes the least memory**: {size(round(least.bytes_per_entry))} per entry"
    if least.variant == usual.variant:
        return f"{found}."
    saved = share(1 - least.bytes_per_entry / usual.bytes_per_entry)
    return f"{found}, {saved} less than {plain_label(usual.variant)}."


def _time_of_dtypes(result: ScenarioResult) -> str:
    pairs = result.comparisons("read")
    if not pairs:
        return ""
    told = "; ".join(f"{plain_label(each.variant.variant)} {_faster(each)}, {_latency(each)}" for each in pairs)
    return f"Reading beside {plain_label(pairs[0].baseline.variant)}: {told}."


def _about_layouts(result: ScenarioResult) -> str:
    pairs = [("read", each) for each in result.comparisons("read")]
    pairs += [("written", each) for each in result.comparisons("write")]
    return " ".join(
        f"**{counted(each.variant.texts, 'entry', 'entries')} are {deed} {_faster(each)} in our own layout**: in "
        f"{elapsed(each.variant.p50)} instead of {elapsed(each.baseline.p50)} in RedisVL's, {_latency(each)}."
        for deed, each in pairs
    )


_ANSWERS: Final[dict[str, Callable[[ScenarioResult], str]]] = {
    "cache": _about_cache,
    "batch": _about_batch,
    "sizes": _about_sizes,
    "dtypes": _about_dtypes,
    "layouts": _about_layouts,
    "near": lambda result: _about_cache(result, "The near cache"),
}


def _faster(each: Comparison) -> str:
    if each.speedup >= _ALIKE:
        return f"{times(each.speedup)} times faster"
    return f"{times(1 / each.speedup)} times slower" if each.speedup <= 1 / _ALIKE else "about as fast"


def _latency(each: Comparison) -> str:
    reduction = each.latency_reduction
    return f"{share(reduction)} less latency" if reduction >= 0 else f"{share(-reduction)} more latency"


def _fastest(measurements: tuple[Measurement, ...]) -> Measurement:
    return max(measurements, key=lambda each: each.texts_per_second)


def _smallest(result: ScenarioResult) -> Measurement | None:
    weighed = [each for each in result.measurements if each.bytes_per_entry is not None]
    return min(weighed, key=lambda each: each.bytes_per_entry or 0.0, default=None)


# ------------------------------------------------------------------------------------------------ cards


def cards(run: Run) -> list[Card]:
    """The run's most telling numbers, two for each scenario that compared something."""
    return [card for result in run.results if (tell := _CARDS.get(result.key)) for card in tell(result)]


def _cache_cards(result: ScenarioResult) -> list[Card]:
    return [
        card
        for each in result.comparisons()[:1]
        for card in (
            Card(
                "Speedup",
                f"{times(each.speedup)} times",
                "How many times less a text takes from the cache than from the model, by the medians.",
            ),
            Card(
                "Latency saved",
                share(each.latency_reduction),
                f"Per text {elapsed(each.variant.per_text)} from the cache, {elapsed(each.baseline.per_text)} from the "
                "model, by the medians.",
            ),
        )
    ]


def _batch_cards(result: ScenarioResult) -> list[Card]:
    return [
        Card(
            label,
            f"{times(each.speedup)} times",
            f"{counted(each.variant.texts, 'text')} in one call take {elapsed(each.variant.p50)}, in a call each "
            f"{elapsed(each.baseline.p50)}, by the medians.",
        )
        for label, comparisons in (
            ("Batch reads", result.comparisons("read")),
            ("Batch writes", result.comparisons("write")),
        )
        for each in comparisons[:1]
    ]


def _size_cards(result: ScenarioResult) -> list[Card]:
    return [
        Card(
            label,
            f"{rate(best.texts_per_second)}/s",
            f"Entries a second in calls of {count(best.texts)} each, the fastest of the sizes tried.",
        )
        for label, measurements in (("Most read", result.of("read")), ("Most written", result.of("write")))
        if measurements and (best := _fastest(measurements))
    ]


def _dtype_cards(result: ScenarioResult) -> list[Card]:
    least, usual = _smallest(result), result.measurements[0]
    if least is None or least.bytes_per_entry is None or usual.bytes_per_entry is None:
        return []
    name = plain_label(usual.variant)
    return [
        Card(
            f"Entry as {name}",
            size(round(usual.bytes_per_entry)),
            "Memory on the server, key and bookkeeping included.",
        ),
        Card(
            f"Entry as {plain_label(least.variant)}",
            size(round(least.bytes_per_entry)),
            "The least of all number types. Fewer bits keep less of each number.",
        ),
    ]


def _layout_cards(result: ScenarioResult) -> list[Card]:
    shared = result.measurements[0]
    if shared.bytes_per_entry is None:
        return []
    speed = [
        Card(
            "Own layout",
            f"{times(each.speedup)} times",
            f"How many times less reading {counted(each.variant.texts, 'entry', 'entries')} takes in our own layout "
            "than in RedisVL's, by the medians.",
        )
        for each in result.comparisons("read")[:1]
    ]
    return [
        *speed,
        Card(
            "Entry for RedisVL",
            size(round(shared.bytes_per_entry)),
            "Memory on the server of an entry that RedisVL programs can read, key and bookkeeping included.",
        ),
    ]


def _near_cards(result: ScenarioResult) -> list[Card]:
    return [
        card
        for each in result.comparisons()[:1]
        for card in (
            Card(
                "Near hit", elapsed(each.variant.per_text), "What a text takes from the process itself, by the median."
            ),
            Card("Near cache", f"{times(each.speedup)} times", "How many times less that is than from the server."),
        )
    ]


_CARDS: Final[dict[str, Callable[[ScenarioResult], list[Card]]]] = {
    "cache": _cache_cards,
    "batch": _batch_cards,
    "sizes": _size_cards,
    "dtypes": _dtype_cards,
    "layouts": _layout_cards,
    "near": _near_cards,
}
