"""Results as Markdown tables, which read well in a terminal too."""

from __future__ import annotations

from collections.abc import Sequence

from .contenders import LANGCHAIN, OURS, RAW, REDISVL
from .goals import speed_goal, times, verdicts
from .results import ASYNC, SYNC, TOGETHER, Case, Results

OPERATIONS = (
    "get",
    TOGETHER,
    "mget",
    "mget_embeddings",
    "set",
    "mset",
    "exists",
    "mexists",
    "drop",
    "mdrop",
)
CLOCKS = {
    "wall": "seconds on the clock",
    "cpu": "the client's processor time, without the server's and without waiting",
}
COMPARED = (REDISVL, LANGCHAIN, RAW)
NOTHING = "—"


def every_table(results: Results) -> str:
    """The whole report."""
    parts = [heading(results)]
    for dimension in results.dimensions:
        parts += [
            f"### {dimension:,} dimensions, {style}\n\n{speeds(results, dimension, style)}" for style in (SYNC, ASYNC)
        ]
    parts += [f"### Memory\n\n{memory(results)}", f"### Goals\n\n{goals(results)}"]
    return "\n\n".join(parts) + "\n"


def heading(results: Results) -> str:
    """Where and how it ran."""
    environment = results.environment
    packages = ", ".join(f"{name} {number}" for name, number in environment["packages"].items() if number)
    load, entries = environment["load"], environment["entries"]
    return "\n".join(
        (
            f"{environment['cpu']}, {environment['cores']} cores, {environment['system']};"
            f" Python {environment['python']}, {environment['server']}; {packages}.",
            f"Batches of {entries:,} entries; load of the machine {load['before']} before, {load['after']} after;"
            f" {CLOCKS[environment['clock']]}.",
            f"Figures are entries per second; behind them, how many times as fast {OURS} is: medians of"
            " ratios within rounds.",
            "What has no call for vectors alone is compared by its `mget`.",
        )
    )


def speeds(results: Results, dimension: int, style: str) -> str:
    """Entries per second of each contender, and how many times as fast ours is."""
    head = [style, OURS, *COMPARED, *(f"to {name}" for name in COMPARED)]
    cases = {each.case for each in results.timings if (each.case.dimension, each.case.style) == (dimension, style)}
    in_order = sorted(cases, key=lambda case: (OPERATIONS.index(case.operation), case.ttl))
    return markdown(head, [_speed_row(results, case) for case in in_order])


def _speed_row(results: Results, case: Case) -> list[str]:
    timings = [results.timing(case, name) for name in (OURS, *COMPARED)]
    return [
        f"`{case.operation}`{', TTL' if case.ttl else ''}",
        *(NOTHING if each is None else rate(1 / each.median) for each in timings),
        *(_ratio(results, case, against) for against in COMPARED),
    ]


def _ratio(results: Results, case: Case, against: str) -> str:
    ratio = results.times_as_fast(case, OURS, against)
    if ratio is None:
        return NOTHING
    goal = speed_goal(results, case, against)
    return times(ratio) if goal is None else f"{times(ratio)} (goal {goal.least:g})"


def memory(results: Results) -> str:
    """Bytes per entry."""
    rows = []
    for dimension in results.dimensions:
        for each in results.memory:
            if each.dimension == dimension:
                ratio = results.memory_ratio(dimension, each.contender, each.dtype, REDISVL)
                part = NOTHING if ratio is None else f"{ratio:.3f}"
                rows.append([f"{dimension:,}", each.contender, each.dtype, f"{each.bytes_per_entry:,.0f}", part])
    return markdown(["dimensions", "", "stored as", "bytes per entry", f"of {REDISVL}'s"], rows)


def goals(results: Results) -> str:
    """Every goal beside what was reached."""
    rows = [[each.what, each.goal, each.got, "reached" if each.reached else "MISSED"] for each in verdicts(results)]
    return markdown(["", "goal", "measured", ""], rows)


def rate(per_second: float) -> str:
    """Entries per second: 294 k, 8.2 k, 850."""
    if per_second < 1_000:
        return f"{per_second:.0f}"
    thousands = per_second / 1_000
    return f"{thousands:.0f} k" if thousands >= 20 else f"{thousands:.1f} k"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with aligned columns, the first to the left, the others to the right."""
    widths = [max(3, *(len(row[column]) for row in (head, *rows))) for column in range(len(head))]
    rules = [("-" * width if not column else "-" * (width - 1) + ":") for column, width in enumerate(widths)]
    lines = [
        [cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(padded)]
        for padded in (list(zip(row, widths, strict=True)) for row in (head, rules, *rows))
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
