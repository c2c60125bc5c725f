"""How fast entries are exported and restored, and what memory the process takes that does it.

    python benchmarks/transfer.py [--entries 100000] [--dimension 384] [--formats parquet jsonl base64]
        [--processes 1 2]

Fills a private embedded server with the entries of `fill.py`. For each format (``base64`` is JSON lines with vectors as
base64), three processes follow one another: one exports all entries, one restores them to the emptied server, one
restores them again, where all are there already and are skipped. What a process imports is not timed. Memory is the
most that the whole process took, its imports included; where others work for it, the most that all of them had at one
moment, while only its own processor time is counted. The figures are printed, and written to
`benchmarks/results/transfer.json` together with what they were taken on.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fill import fill
from side_by_side.environment import describe

from embedcache import EmbeddingsCache, transfer
from embedcache.operations import checked_all

RESULTS = Path(__file__).parent / "results" / "transfer.json"
CACHE = "transfer"
GOAL_ENTRIES = 50_000
GOAL_BYTES = 500_000_000
FORMATS: dict[str, dict[str, Any]] = {
    "parquet": {"file_format": "parquet"},
    "jsonl": {"file_format": "jsonl"},
    "base64": {"file_format": "jsonl", "vectors": "base64"},
}
"""What an export is told, by the name of the format, which its file's name ends in."""
LIBRARIES = ("pyarrow", "orjson")
LOOK_EVERY = 10
"""Batches between two looks at how much memory there is."""
STEPS = ("export", "restore", "restore again")


class Peak:
    """The most memory that this process has taken, or, where others work for it, that all had at one moment.

    Linux's own numbers where there are such: what `getrusage` says includes the process that started this one.
    """

    def __init__(self) -> None:
        self._together = 0
        self._calls = 0

    def look(self, _done: int, _total: int | None) -> None:
        """Adds up, every now and then, what all of them have; what they share, libraries say, counts once."""
        self._calls += 1
        if self._calls % LOOK_EVERY:
            return
        children = [child for task in Path("/proc/self/task").glob("*/children") for child in task.read_text().split()]
        if children:
            self._together = max(self._together, sum(share_of(process) for process in ["self", *children]))

    def bytes(self) -> int:
        """It, in bytes."""
        status = Path("/proc/self/status")
        if self._together or status.exists():
            return self._together or kibibytes(status, "VmHWM:")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def share_of(process: str) -> int:
    """Bytes that a process has in memory, those that it shares with others in part; 0 where it has ended."""
    try:
        return kibibytes(Path(f"/proc/{process}/smaps_rollup"), "Pss:")
    except OSError:
        return 0


def kibibytes(told: Path, name: str) -> int:
    """The bytes that a line of such a file says."""
    return 1024 * next(int(line.split()[1]) for line in told.read_text().splitlines() if line.startswith(name))


def work(step: str, url: str, file: Path, processes: int) -> dict[str, float]:
    """Does one step in this process; returns its entries, seconds, processor seconds and peak of memory."""
    with EmbeddingsCache(CACHE, redis_url=url, stats=False) as cache:
        cache.connection.drive(checked_all(("PING",)))
        form = FORMATS[file.suffix[1:]]
        import_module(f"embedcache.transfer.{form['file_format']}")
        peak = Peak()
        started, busy = time.monotonic(), time.process_time()
        if step == "export":
            exported = transfer.export_entries(
                cache.connection, CACHE, file, None, peak.look, processes=processes, **form
            )
            done = exported.entries
        else:
            report = transfer.restore_entries(cache.connection, CACHE, file, peak.look, processes=processes)
            done = report.restored + report.skipped_existing
        seconds, busy = time.monotonic() - started, time.process_time() - busy
    return {"entries": done, "seconds": seconds, "processor_seconds": busy, "peak_bytes": peak.bytes()}


def empty(url: str) -> None:
    """Removes everything from the server."""
    with EmbeddingsCache(CACHE, redis_url=url, stats=False) as cache:
        cache.connection.drive(checked_all(("FLUSHALL", "SYNC")))


def in_a_process(step: str, url: str, file: Path, processes: int) -> dict[str, float]:
    """`work`, in a process of its own."""
    command = [sys.executable, __file__, "--step", step, "--url", url, "--file", str(file)]
    command += ["--processes", str(processes)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return dict(json.loads(done.stdout))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fills a server and takes every format's steps; prints a line for each, and returns all figures."""
    url = f"embedded://{folder}/data"
    rows: list[dict[str, Any]] = []
    with EmbeddingsCache(CACHE, redis_url=url, stats=False) as held:  # keeps the server running between the processes
        setting = describe(held.connection.client()) | {"entries": options.entries, "dimension": options.dimension}
        setting["packages"] |= {name: version(name) for name in LIBRARIES}
        fill(url, CACHE, options.entries, options.dimension)
        print(f"{'':8} {'':14} {'processes':>9} {'entries/s':>10} {'us each':>8} {'peak MB':>8} {'bytes each':>11}")
        for file_format in options.formats:
            file = folder / f"entries.{file_format}"
            for processes in options.processes:
                for step in STEPS:
                    if step == "restore":
                        empty(url)
                    done = in_a_process(step, url, file, processes)
                    rows.append({"format": file_format, "step": step, "processes": processes, **done})
                    rows[-1]["file_bytes"] = file.stat().st_size
                    print(line(rows[-1]), flush=True)
                file.unlink()
    return {"environment": setting, "steps": rows}


def line(row: dict[str, Any]) -> str:
    """A measured step as a line of the table."""
    count = row["entries"]
    rate, each = count / row["seconds"], 1e6 * row["processor_seconds"] / count
    missed = [
        *(["slower than the goal"] if rate < GOAL_ENTRIES else []),
        *(["more memory than the goal"] if row["peak_bytes"] >= GOAL_BYTES else []),
    ]
    return (
        f"{row['format']:8} {row['step']:14} {row['processes']:9} {rate:10,.0f} {each:8.1f}"
        f" {row['peak_bytes'] / 1e6:8,.0f} {row['file_bytes'] / count:11,.0f}  {', '.join(missed)}"
    )


def main() -> None:
    """Measures, prints and writes down; with `--step`, does one step for another process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=tuple(FORMATS))
    parser.add_argument("--processes", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures are written")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(work(options.step, options.url, options.file, *options.processes)))
        return
    with tempfile.TemporaryDirectory(prefix="embedcache-") as folder:
        results = measure(options, Path(folder))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
