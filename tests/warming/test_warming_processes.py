"""Several processes warm a corpus; killed at any point, it goes on where it ended."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flying import until
from servers import Server
from warmed import MODEL, computed, settings_of, texts_of, workers, write

from embedcache import EmbeddingsCache
from embedcache.errors import CacheUnavailableError, EmbedcacheError, InvalidInputError, WarmingStoppedError
from embedcache.warming import VectorizerSettings, WarmProgress, processes, warm

BATCH = 16
TEXTS = texts_of(600)

# Warms as it is told, and says what became of it.
PROGRAM = """
import json, sys
from embedcache.warming import VectorizerSettings, warm
told = json.loads(sys.argv[1])
try:
    report = warm(told["corpus"], VectorizerSettings.from_json(told["settings"]), batch=16, processes=told["processes"])
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def begun(corpus: Path, settings: VectorizerSettings, processes: int) -> subprocess.Popen[str]:
    """Another process that warms."""
    told = {"corpus": str(corpus), "settings": settings.to_json(), "processes": processes}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(told)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def are_gone(pids: list[int]) -> bool:
    """Whether none of these processes does anything any more."""
    return not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def stored(server: Server) -> int:
    return len(server.plain_keys())


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_in_the_middle_it_computes_only_what_is_missing(valkey: Server, tmp_path: Path, processes: int) -> None:
    corpus = write(tmp_path / "c.txt", TEXTS * 2)
    log, gate = tmp_path / "log", tmp_path / "gate"
    gate.touch()
    killed = begun(corpus, settings_of(valkey.url, log, gate=str(gate)), processes)
    with killed:
        until(lambda: stored(valkey) == 2 * BATCH * processes)  # now each is in its third batch
        killed.send_signal(signal.SIGKILL)
    gate.unlink()
    until(lambda: are_gone(workers(log)))

    survived = stored(valkey)
    assert 2 * BATCH * processes <= survived <= 3 * BATCH * processes
    report = warm(corpus, settings_of(valkey.url, log), batch=BATCH)
    assert (report.computed, report.hits) == (len(TEXTS) - survived, len(TEXTS) + survived)
    times = computed(log)
    assert times.keys() == set(TEXTS)
    assert times.total() == len(TEXTS)  # those of the batches that were cut short had not been computed


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_ends_it_in_order(valkey: Server, tmp_path: Path, processes: int) -> None:
    corpus = write(tmp_path / "c.txt", TEXTS)
    log, gate = tmp_path / "log", tmp_path / "gate"
    gate.touch()
    program = begun(corpus, settings_of(valkey.url, log, gate=str(gate)), processes)
    with program:
        until(lambda: stored(valkey) == 2 * BATCH * processes)
        program.send_signal(signal.SIGINT)
        gate.unlink()
        said, _ = program.communicate(timeout=60)
    assert (program.returncode, said) == (0, "interrupted\n")
    assert are_gone(workers(log))
    assert stored(valkey) < len(TEXTS)
    if processes > 1:  # the batches under way were stored, too
        assert stored(valkey) == computed(log).total()


def test_processes_share_a_corpus_and_compute_each_text_once(valkey: Server, tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.jsonl", [*TEXTS, *reversed(TEXTS)], page=list(range(1_200)))
    with corpus.open("a") as file:
        file.write("nonsense\nmore nonsense\n")
    log, told = tmp_path / "log", list[WarmProgress]()
    report = warm(
        corpus, settings_of(valkey.url, log), processes=3, metadata=["page"], ttl=500, batch=BATCH, tell=told.append
    )
    assert (report.rows, report.computed, report.hits, report.failed) == (1_202, 600, 600, 2)
    assert [bad.number for bad in report.bad_rows] == [1_201, 1_202]
    assert computed(log) == dict.fromkeys(TEXTS, 1)
    assert len(workers(log)) == 3
    assert told[-1].fraction == 1
    with EmbeddingsCache("w", redis_url=valkey.url) as cache:
        entries = cache.mget(TEXTS, MODEL)
        assert [entry and entry["metadata"] for entry in entries] == [{"page": page} for page in range(600)]
        assert {entry["ttl"] for entry in entries if entry} == {500}
        assert cache.stats().texts_computed == 600


def test_a_process_that_dies_is_told_and_what_was_stored_stays(valkey: Server, tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.txt", [*TEXTS, "a deadly one"])
    log = tmp_path / "log"
    with pytest.raises(WarmingStoppedError, match="a process that warms was ended"):
        warm(corpus, settings_of(valkey.url, log, dies_of="deadly"), processes=2, batch=BATCH)
    assert are_gone(workers(log))
    survived = stored(valkey)
    assert survived > 0
    assert warm(corpus, settings_of(valkey.url, log)).computed == len(TEXTS) + 1 - survived


@pytest.mark.parametrize(
    ("url", "options", "error"),
    [
        ("unix:///there/is/none", {}, CacheUnavailableError),
        (None, {"refuses": "text"}, WarmingStoppedError),
        (None, {"no_such": 1}, InvalidInputError),
    ],
)
def test_what_a_process_raises_is_raised(
    valkey: Server,
    tmp_path: Path,
    url: str | None,
    options: dict[str, Any],
    error: type[EmbedcacheError],
) -> None:
    settings = settings_of(url or valkey.url, tmp_path / "log", **options)
    with pytest.raises(error):
        warm(write(tmp_path / "c.txt", TEXTS), settings, processes=2)


def test_what_tell_raises_ends_all_of_them(valkey: Server, tmp_path: Path) -> None:
    class CancelledError(Exception):
        pass

    def cancel(_progress: WarmProgress) -> None:
        raise CancelledError

    log = tmp_path / "log"
    with pytest.raises(CancelledError):
        warm(write(tmp_path / "c.txt", TEXTS), settings_of(valkey.url, log), processes=2, batch=BATCH, tell=cancel)
    assert are_gone(workers(log))


def test_what_cannot_be_used_is_told_before_a_process_is_started(valkey: Server, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(InvalidInputError, match="no column 'body'"):
        warm(write(tmp_path / "c.csv", ["a"]), settings_of(valkey.url, log), column="body", processes=2)
    assert workers(log) == []


def test_a_worker_that_ends_in_the_middle_of_a_line_is_heard_to_have_ended() -> None:
    started = processes._Workers(2)
    started._listen(0, io.BytesIO(b'{"counts": {}, "is_done": false}\n{"counts": {"ro'))
    assert started.hear() == (0, {"counts": {}, "is_done": False})
    assert started.hear() == (0, None)
