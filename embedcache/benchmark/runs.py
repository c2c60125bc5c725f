"""Benchmarks kept on the server they were made on, so that they can be compared over time.

Two hashes by the id of the run: one with its summary, which lists read, and one with its samples, which is larger by
far and read for one run at a time. Their keys lie outside every cache's namespace, for they do not end in 64 hex
digits; the part in braces puts both on one node of a cluster. A summary is a MessagePack map whose ``version`` is
`VERSION`; samples are little-endian float32, some evenly spaced ones of those sorted, so that a box plot of them looks
like one of all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any, Final, cast, get_args

import msgpack
import numpy as np

from embedcache.arguments import check_kind, check_text
from embedcache.benchmark.records import Environment, Measurement, OperationName, Run, ScenarioResult
from embedcache.connection import RedisConnection
from embedcache.operations import Operation, checked, checked_all

MAX_RUNS: Final = 200
MAX_SAMPLES: Final = 100
VERSION: Final = 1

_SUMMARIES: Final = "embedcache:{benchmarks}:summaries"
_SAMPLES: Final = "embedcache:{benchmarks}:samples"
_RUN_ID: Final = re.compile(r"\d{15}-[0-9a-f]{8}")
_MAX_MEASUREMENTS: Final = 200
_MAX_CHARACTERS: Final = 2_000
_MAX_NUMBER: Final = 1e15
_OPERATIONS: Final = frozenset(get_args(OperationName))
_UNREADABLE: Final = (KeyError, TypeError, ValueError, msgpack.exceptions.UnpackException)


@dataclass(frozen=True, slots=True)
class SavedRuns:
    """What is kept on a server.

    Attributes:
        runs: Without their samples, the newest first.
        unreadable: How many more there are that are damaged, or were written by a later version.
    """

    runs: tuple[Run, ...]
    unreadable: int


def save(connection: RedisConnection, run: Run) -> None:
    """Keeps a run, and of all of them the last `MAX_RUNS`.

    Raises:
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It forbids writing.
    """
    connection.drive(_save(check_kind("run", run, Run)))


def list_runs(connection: RedisConnection) -> SavedRuns:
    """The runs that are kept.

    Raises:
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It forbids reading them.
    """
    return connection.drive(_list())


def read_run(connection: RedisConnection, run_id: str) -> Run | None:
    """One run with up to `MAX_SAMPLES` samples of each measurement; None where it is gone or cannot be read.

    Raises:
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It forbids reading it.
    """
    return connection.drive(_read(check_text("run_id", run_id)))


def delete_run(connection: RedisConnection, run_id: str) -> bool:
    """Deletes a run; returns whether there was one.

    Raises:
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It forbids writing.
    """
    return connection.drive(_delete(check_text("run_id", run_id)))


# ------------------------------------------------------------------------------------------------ operations


def _save(run: Run) -> Operation[None]:
    samples = msgpack.packb([_thinned(each.samples) for result in run.results for each in result.measurements])
    _, _, ids = yield from checked_all(
        ("HSET", _SUMMARIES, run.run_id, _pack(run)),
        ("HSET", _SAMPLES, run.run_id, samples),
        ("HKEYS", _SUMMARIES),
    )
    if surplus := sorted(ids)[:-MAX_RUNS]:  # ids begin with the time
        yield from checked(("HDEL", _SUMMARIES, *surplus), ("HDEL", _SAMPLES, *surplus))


def _list() -> Operation[SavedRuns]:
    packed = yield from checked(("HVALS", _SUMMARIES))
    found = [_unpack(each) for each in packed]
    runs = {run.run_id: run for run in found if run is not None}
    return SavedRuns(tuple(runs[run_id] for run_id in sorted(runs, reverse=True)), found.count(None))


def _read(run_id: str) -> Operation[Run | None]:
    packed, samples = yield from checked_all(("HGET", _SUMMARIES, run_id), ("HGET", _SAMPLES, run_id))
    run = None if packed is None else _unpack(packed)
    return run if run is None or samples is None else _with_samples(run, samples)


def _delete(run_id: str) -> Operation[bool]:
    return bool((yield from checked(("HDEL", _SUMMARIES, run_id), ("HDEL", _SAMPLES, run_id))))


# ------------------------------------------------------------------------------------------------ packing


def _pack(run: Run) -> bytes:
    plain: dict[str, Any] = asdict(run)
    for result in plain["results"]:
        for measurement in result["measurements"]:
            del measurement["samples"]
    return cast("bytes", msgpack.packb({"version": VERSION, **plain}))


def _thinned(samples: Sequence[float]) -> bytes:
    ordered = np.sort(np.asarray(samples, dtype="<f4"))
    if len(ordered) > MAX_SAMPLES:
        ordered = ordered[np.linspace(0, len(ordered) - 1, MAX_SAMPLES).round().astype(int)]
    return ordered.tobytes()


def _with_samples(run: Run, packed: bytes) -> Run:
    """The run with its samples; without, where these are damaged: its summary is still worth showing."""
    try:
        samples = [tuple(np.frombuffer(each, dtype="<f4").tolist()) for each in msgpack.unpackb(packed)]
        waiting = iter(samples)
        results = tuple(
            replace(result, measurements=tuple(replace(each, samples=next(waiting)) for each in result.measurements))
            for result in run.results
        )
    except (*_UNREADABLE, StopIteration, RuntimeError):
        return run
    sound = all(0 < sample < _MAX_NUMBER for each in samples for sample in each)
    return replace(run, results=results) if sound else run


# ------------------------------------------------------------------------------------------------ unpacking

# Whoever may write to the server may have written these: each value is checked, and what is too much is refused.


def _unpack(packed: bytes) -> Run | None:
    """A run without samples; None where it cannot be read."""
    try:
        plain = msgpack.unpackb(packed)
        return _run(plain) if plain["version"] == VERSION else None
    except _UNREADABLE:
        return None


def _run(plain: Mapping[str, Any]) -> Run:
    run_id = _text(plain["run_id"])
    if _RUN_ID.fullmatch(run_id) is None:
        raise ValueError("an id that is none of ours")
    results = tuple(map(_result, plain["results"]))
    if not results or sum(len(result.measurements) for result in results) > _MAX_MEASUREMENTS:
        raise ValueError("a run has some measurements, and not thousands")
    return Run(
        run_id=run_id,
        at=_number(plain["at"]),
        seconds=_number(plain["seconds"]),
        texts=_whole(plain["texts"]),
        characters=_whole(plain["characters"]),
        iterations=_whole(plain["iterations"]),
        dimension=_whole(plain["dimension"]),
        environment=_environment(plain["environment"]),
        results=results,
    )


def _environment(plain: Mapping[str, Any]) -> Environment:
    return Environment(
        embedcache=_text(plain["embedcache"]),
        redis_py=_text(plain["redis_py"]),
        numpy=_text(plain["numpy"]),
        python=_text(plain["python"]),
        server=_text(plain["server"]),
        embedded=bool(plain["embedded"]),
        cpu=_text(plain["cpu"]),
        cpus=_whole(plain["cpus"]),
        platform=_text(plain["platform"]),
        model=_text(plain["model"]),
    )


def _result(plain: Mapping[str, Any]) -> ScenarioResult:
    measurements = tuple(map(_measurement, plain["measurements"]))
    if not measurements:
        raise ValueError("a scenario has measurements")
    return ScenarioResult(_text(plain["key"]), measurements)


def _measurement(plain: Mapping[str, Any]) -> Measurement:
    if plain["operation"] not in _OPERATIONS:
        raise ValueError("an operation that is not known")
    memory = plain["bytes_per_entry"]
    return Measurement(
        variant=_text(plain["variant"]),
        operation=plain["operation"],
        texts=_whole(plain["texts"]),
        count=_whole(plain["count"]),
        mean=_number(plain["mean"]),
        p50=_number(plain["p50"]),
        p95=_number(plain["p95"]),
        p99=_number(plain["p99"]),
        bytes_per_entry=None if memory is None else _number(memory),
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_CHARACTERS:
        raise ValueError("not a text of a sensible length")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or not isfinite(value) or not 0 < value < _MAX_NUMBER:
        raise ValueError("not a number of a sensible size")
    return float(value)


def _whole(value: object) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError("not a whole number")
    return int(number)
