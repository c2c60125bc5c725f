"""The cache beside RedisVL's, LangChain's and raw redis-py: shuffled rounds on one private server, medians and ratios.

    python benchmarks/compare.py [--quick] [--dimensions 384 1536] [--entries 1000] [--seconds 120]
                                 [--clock wall|cpu] [--json FILE] [--picture FILE] [--from FILE]

Prints Markdown tables, writes every sample and the environment to a JSON file, and draws the main figures: an HTML
page, or a PNG, which takes a browser (`make browser`). `--from` shows an earlier run's file again, without measuring.
On a busy machine, `--clock cpu` counts the client's processor time alone, which other programs hardly change.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.utils import HIREDIS_AVAILABLE
from side_by_side import environment
from side_by_side.contenders import missing_peers
from side_by_side.measuring import Setting, measure, measure_memory
from side_by_side.results import ASYNC, SYNC, Results, load, save
from side_by_side.tables import every_table
from side_by_side.workload import Workload

from embedcache.server import EmbeddedServer

RESULTS = Path(__file__).parent / "results"
DIMENSIONS = (384, 1_536)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
QUICK_ENTRIES, QUICK_SECONDS = 100, 8.0


@contextmanager
def private_server() -> Iterator[Path]:
    """A server of our own, by its socket. It keeps nothing on disk: all contenders alike would wait for that."""
    with tempfile.TemporaryDirectory(prefix="embedcache-bench-") as folder:
        server = EmbeddedServer.attach(Path(folder))
        try:
            with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
                client.config_set("appendonly", "no", "save", "")
            yield server.socket_path
        finally:
            server.detach()


def run(dimensions: Sequence[int], entries: int, seconds: float, clock: str) -> Results:
    """Measures everything; larger vectors get more of the time, since their rounds take longer."""
    before = environment.busy()
    timings, memory = [], []
    with private_server() as socket:
        setting = Setting(socket, CLOCKS[clock], tell)
        for dimension in dimensions:
            work = Workload(entries, dimension)
            memory += measure_memory(socket, work)
            for style in (SYNC, ASYNC):
                timings += measure(setting, style, work, seconds * dimension / sum(dimensions) / 2)
        with redis.Redis(unix_socket_path=str(socket)) as client:
            described = environment.describe(client)
    load_average = {"before": before, "after": environment.busy()}
    return Results({**described, "entries": entries, "clock": clock, "load": load_average}, timings, memory)


def tell(what: str) -> None:
    """Says on standard error how far it is, on one line where that is a terminal."""
    if sys.stderr.isatty():
        print(f"\r{what:60}", end="", file=sys.stderr, flush=True)


def parsed() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; its ratios mean little")
    parser.add_argument("--dimensions", type=int, nargs="+", default=DIMENSIONS)
    parser.add_argument("--entries", type=int, default=1_000, help="entries in a batch, and calls awaited together")
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="for how long samples are taken; preparing adds a minute"
    )
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path, default=RESULTS / "compare.json")
    parser.add_argument("--picture", type=Path, default=RESULTS / "compare.html", help="ends in .html or .png")
    parser.add_argument("--from", type=Path, dest="earlier", help="a JSON file of an earlier run")
    options = parser.parse_args()
    if options.picture.suffix not in {".html", ".png"}:
        parser.error(f"a picture is an .html or a .png file, not {options.picture.name!r}")
    if options.quick:
        options.entries, options.seconds = QUICK_ENTRIES, QUICK_SECONDS
    return options


def main() -> None:
    """Measures, prints, saves and draws."""
    options = parsed()
    if options.earlier is not None:
        results = load(options.earlier)
    else:
        if missing := missing_peers():
            sys.exit(f"{', '.join(missing)} not installed: run make bench, or pip install --editable '.[server,bench]'")
        if not HIREDIS_AVAILABLE:
            sys.exit("hiredis is not installed, and redis-py is slow without it: run pip install 'redis[hiredis]'")
        results = run(options.dimensions, options.entries, options.seconds, options.clock)
        save(results, options.json)
        print(f"every sample is in {options.json}\n")
    print(every_table(results))
    from side_by_side import picture  # plotly takes longer than all the rest, and is wanted last

    picture.save(picture.figure(results), options.picture)
    print(f"drawn in {options.picture}")


if __name__ == "__main__":
    main()
