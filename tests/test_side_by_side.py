"""The comparison with others: what it samples, the ratios it takes, the goals it judges, and what it shows."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from servers import Server

from benchmarks.side_by_side import contenders, environment, measuring, picture, results, rounds, tables
from benchmarks.side_by_side.contenders import LANGCHAIN, OURS, RAW, REDISVL
from benchmarks.side_by_side.goals import verdicts
from benchmarks.side_by_side.measuring import Setting
from benchmarks.side_by_side.results import ASYNC, SYNC, TOGETHER, Case, Memory, Results, Timing
from benchmarks.side_by_side.workload import Workload

ENVIRONMENT = {
    "cpu": "Some processor",
    "cores": 2,
    "system": "Linux",
    "python": "3.11.7",
    "server": "valkey 9.1",
    "packages": {"redisvl": "0.28.0", "langchain-core": None},
    "entries": 1_000,
    "clock": "wall",
    "load": {"before": 0.1, "after": 1.4},
}


def run_of(*timings: Timing, memory: tuple[Memory, ...] = ()) -> Results:
    return Results(ENVIRONMENT, list(timings), list(memory))


def timed(contender: str, operation: str, *milliseconds: float, ttl: bool = False, style: str = SYNC) -> Timing:
    return Timing(Case(384, style, operation, ttl), contender, [each / 1_000 for each in milliseconds])


# ------------------------------------------------------------------------------------------------ rounds


def test_every_round_samples_everybody_once_in_an_order_of_its_own() -> None:
    taken: list[str] = []

    def sampler(name: str) -> rounds.Sampler:
        return lambda: taken.append(name) or float(len(taken))

    samples = rounds.sample_rounds({name: sampler(name) for name in "abcd"}, range(6))
    in_rounds = [taken[start : start + 4] for start in range(0, 24, 4)]
    assert all(sorted(each) == list("abcd") for each in in_rounds)
    assert len({tuple(each) for each in in_rounds}) > 1
    assert [len(samples[name]) for name in "abcd"] == [6, 6, 6, 6]


def test_rounds_end_with_the_time_but_not_before_the_least() -> None:
    assert list(rounds.rounds_within(0.0, 3, 10)) == [0, 1, 2]
    assert list(rounds.rounds_within(60.0, 3, 5)) == [0, 1, 2, 3, 4]


def test_a_ratio_is_taken_within_rounds() -> None:
    # The machine was ten times slower in the second round: the medians of both would give another ratio.
    assert rounds.median_ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == 2.0
    with pytest.raises(ValueError, match="zip"):
        rounds.median_ratio([1.0, 2.0], [1.0])


# ------------------------------------------------------------------------------------------------ samples


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the contenders that need no extra."""
    monkeypatch.setattr(measuring, "OPENERS", {OURS: contenders.open_ours, RAW: contenders.open_raw})
    monkeypatch.setattr(measuring, "PEERS", {})
    monkeypatch.setattr(measuring, "LEAST_ROUNDS", 1)


def setting(valkey: Server, told: list[str]) -> Setting:
    return Setting(valkey.socket, time.perf_counter, told.append)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("style", [SYNC, ASYNC])
def test_all_operations_are_timed_with_and_without_a_ttl(valkey: Server, style: str) -> None:
    told: list[str] = []
    found = measuring.measure(setting(valkey, told), style, Workload(12, 8), 0.0)
    operations = set(tables.OPERATIONS) - (set() if style == ASYNC else {TOGETHER})
    assert {each.case.operation for each in found if each.contender == OURS} == operations
    with_ttl = {each.case.operation for each in found if each.contender == OURS and each.case.ttl}
    assert with_ttl == operations - {"exists", "mexists", "drop", "mdrop"}
    assert {each.case.operation for each in found if each.contender == RAW} == operations - {"mget_embeddings"}
    assert all(len(each.seconds) == 1 and each.median > 0 for each in found)
    assert told == [f"8 dimensions, {style}: round 1"]


@pytest.mark.usefixtures("alone")
def test_a_contender_that_returns_something_else_is_not_timed(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "_same", lambda _found, _work: False)
    with pytest.raises(RuntimeError, match="embedcache did not return the vectors that it was given"):
        measuring.measure(setting(valkey, []), SYNC, Workload(12, 8), 0.0)


@pytest.mark.usefixtures("alone")
def test_memory_is_what_the_server_says_of_all_keys(valkey: Server) -> None:
    found = {each.dtype: each.bytes_per_entry for each in measuring.measure_memory(valkey.socket, Workload(20, 384))}
    assert list(found) == ["float32", "float16", "int8"]
    assert 4 * 384 < found["float32"] < 4 * 384 + 400
    assert found["float32"] - found["float16"] == pytest.approx(2 * 384, abs=64)
    assert found["float16"] - found["int8"] == pytest.approx(384, abs=64)
    assert valkey.raw.dbsize() == 0


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "PEERS", {"Nobody": "no-such-package", "pytest": "pytest"})
    assert "no-such-package" in contenders.missing_peers()
    assert "pytest" not in contenders.missing_peers()


def test_the_environment_names_versions_and_nobody(valkey: Server) -> None:
    found = environment.describe(valkey.raw)
    assert found["cores"] >= 1
    assert found["server"].startswith("valkey 9.")
    assert found["packages"]["redis"]
    assert str(valkey.folder) not in str(found)


# ------------------------------------------------------------------------------------------------ results


def test_vectors_alone_are_compared_with_the_mget_of_who_has_no_call_for_them() -> None:
    run = run_of(timed(OURS, "mget_embeddings", 1, 1), timed(REDISVL, "mget", 30, 20), timed(RAW, "mget", 0.5, 1.5))
    case = Case(384, SYNC, "mget_embeddings")
    assert run.times_as_fast(case, OURS, REDISVL) == pytest.approx(25)
    assert run.times_as_fast(case, OURS, RAW) == pytest.approx(1)
    assert run.times_as_fast(case, OURS, LANGCHAIN) is None
    assert run.times_as_fast(Case(384, SYNC, "mget"), OURS, RAW) is None


def test_a_run_comes_back_from_its_file(tmp_path: Path) -> None:
    run = run_of(timed(OURS, "get", 1.23456789), memory=(Memory(384, OURS, "int8", 641.25),))
    results.save(run, tmp_path / "new" / "run.json")
    (kept,) = run.timings
    rounded = dataclasses.replace(kept, seconds=[0.001235])
    assert results.load(tmp_path / "new" / "run.json") == dataclasses.replace(run, timings=[rounded])


# ------------------------------------------------------------------------------------------------ what is shown


MEMORY = (
    Memory(384, OURS, "float32", 1_776),
    Memory(384, OURS, "int8", 1_000),
    Memory(384, REDISVL, "JSON", 8_880),
)
RUN = run_of(
    timed(OURS, "mget", 1, 1, 1),
    timed(REDISVL, "mget", 24, 25, 26),
    timed(OURS, "mget", 1, 1, ttl=True),
    timed(REDISVL, "mget", 34, 34, ttl=True),
    timed(OURS, "get", 1),
    timed(RAW, "get", 0.5),
    timed(OURS, TOGETHER, 1, style=ASYNC),
    timed(REDISVL, TOGETHER, 15, style=ASYNC),
    memory=MEMORY,
)


def test_each_goal_is_judged_by_what_was_measured() -> None:
    judged = {(each.what, each.goal, each.got): each.reached for each in verdicts(RUN)}
    assert judged == {
        ("`mget`, 384 dimensions, times as fast as RedisVL", "≥ 20", "25.0"): True,
        ("`mget`, TTL, 384 dimensions, times as fast as RedisVL", "≥ 35", "34.0"): False,
        ("`get`, 384 dimensions, times as fast as raw redis-py", "≥ 0.9", "0.50"): False,
        ("`aget, together`, 384 dimensions, times as fast as RedisVL", "≥ 15", "15.0"): True,
        ("memory of an entry, float32, 384 dimensions, of RedisVL's", "≤ 0.22", "0.200"): True,
        ("memory of an entry, int8, 384 dimensions, of RedisVL's", "≤ 0.09", "0.113"): False,
    }


def test_processor_time_does_not_judge_what_is_mostly_waiting() -> None:
    by_processor = dataclasses.replace(RUN, environment={**ENVIRONMENT, "clock": "cpu"})
    judged = [each.what for each in verdicts(by_processor)]
    assert "`mget`, 384 dimensions, times as fast as RedisVL" in judged
    assert not any(RAW in what for what in judged)
    assert "goal 0.9" not in tables.every_table(by_processor)


def test_the_report_says_where_it_ran_and_what_it_found() -> None:
    report = tables.every_table(RUN)
    assert "Some processor, 2 cores, Linux; Python 3.11.7, valkey 9.1; redisvl 0.28.0." in report
    assert "load of the machine 0.1 before, 1.4 after; seconds on the clock." in report
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in report.splitlines()]
    assert ["`mget`", "1.0 k", "40", "—", "—", "25.0 (goal 20)", "—", "—"] in lines
    assert ["`get`", "1.0 k", "—", "—", "2.0 k", "—", "—", "0.50 (goal 0.9)"] in lines
    assert ["384", "embedcache", "float32", "1,776", "0.200"] in lines
    assert ["`mget`, TTL, 384 dimensions, times as fast as RedisVL", "≥ 35", "34.0", "MISSED"] in lines


def test_columns_are_aligned() -> None:
    assert tables.markdown(["", "figure"], [["a", "1"], ["longer", "22"]]).splitlines() == [
        "|        | figure |",
        "| ------ | -----: |",
        "| a      |      1 |",
        "| longer |     22 |",
    ]


@pytest.mark.parametrize(("per_second", "text"), [(849.6, "850"), (8_240, "8.2 k"), (294_300, "294 k")])
def test_rates_read_as_people_say_them(per_second: float, text: str) -> None:
    assert tables.rate(per_second) == text


def test_the_picture_shows_speeds_and_bytes_with_their_units(tmp_path: Path) -> None:
    drawn = picture.figure(RUN)
    points = drawn.select_traces({"mode": "markers"})
    speeds = {each.name: dict(zip(each.y, each.x, strict=True)) for each in points}
    assert speeds[OURS]["Read a batch"] == pytest.approx(1_000)
    assert speeds[REDISVL]["Read a batch"] == pytest.approx(40)
    assert drawn.layout.xaxis.title.text == "entries per second, logarithmic"
    assert drawn.layout.xaxis2.title.text == "bytes per entry, key included"
    assert "<b>25.0</b>" in {each.text for each in drawn.layout.annotations}
    (bars,) = drawn.select_traces({"type": "bar"})
    assert list(bars.x) == [1_776, 1_000, 8_880]
    picture.save(drawn, tmp_path / "new" / "picture.html")
    assert "entries per second" in (tmp_path / "new" / "picture.html").read_text()
