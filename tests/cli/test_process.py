"""The command as a process: standard input, pipes, Ctrl+C, and the embedded server by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def environment(url: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "EMBEDCACHE_URL": url, "EMBEDCACHE_NAME": "docs"}


def embedcache(url: str, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedcache", *words]
    return ended(command, environment(url), given)


def ended(command: list[str], environ: dict[str, str], given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, input=given, capture_output=True, text=True, env=environ, timeout=120)


@pytest.mark.model
def test_texts_from_a_pipe_are_embedded_once(url, tmp_path):
    first = embedcache(url, "embed", "--json", given="What is AI?\nWho knows?\n")
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert [each["hit"] for each in found["texts"]] == [False, False]
    assert found["dimension"] == 384
    again = embedcache(url, "embed", "What is AI?", "--out", str(tmp_path / "m.npy"), "--json")
    assert [each["hit"] for each in json.loads(again.stdout)["texts"]] == [True]
    assert np.allclose(np.load(tmp_path / "m.npy")[0], found["texts"][0]["embedding"])
    verified = embedcache(url, "verify", "--json")
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["checked"] == 2


COMMANDS = [
    *("dashboard", "caches", "ls", "get", "why", "stats", "metrics", "embed", "warm", "verify", "bench"),
    *("drop", "clear", "ttl", "doctor", "export", "import", "convert", "server"),
]


def test_help_names_every_command_and_the_exit_codes(url):
    shown = embedcache(url, "--help")
    assert shown.returncode == 0, shown.stderr
    assert [word for word in COMMANDS if f" {word} " not in shown.stdout] == []
    assert "..." not in shown.stdout.partition("Look:")[2]  # nothing said of a command is cut off
    assert "Exit codes: 0 done" in shown.stdout


def test_help_and_plain_looks_load_no_model_and_no_pages(url):
    program = (
        "import sys; from embedcache.cli import main\n"
        "try: main()\n"
        "finally: print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    helped = ended([sys.executable, "-c", program, "--help"], environment(url))
    assert "Remove every entry of a cache." in helped.stdout
    assert not {"embedcache.cli.looking", "embedcache.cli.removing", "embedcache.warming"} & set(helped.stderr.split())
    looked = ended([sys.executable, "-c", program, "ls"], environment(url))
    assert "No entry of docs matches." in looked.stdout
    assert "redis" in looked.stderr.split()
    assert not {"torch", "streamlit", "pyarrow", "sentence_transformers"} & set(looked.stderr.split())


def test_ctrl_c_ends_a_watch_with_130_and_no_traceback(url):
    command = [sys.executable, "-m", "embedcache", "stats", "--watch", "--json", "--every", "0.2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(url), **pipes) as process:
        assert json.loads(process.stdout.readline())["cache"] == "docs"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert "Traceback" not in process.stderr.read()


def test_a_benchmark_cleans_up_after_itself(url, server):
    done = embedcache(url, "bench", "batch", "--iterations", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["key"] == "batch"
    assert server.raw.dbsize() == 0
    assert embedcache(url, "bench", "nonsense").returncode == 2


def test_the_embedded_server_is_started_looked_at_and_stopped(tmp_path):
    url = f"embedded://{tmp_path}/data"
    assert embedcache(url, "server", "status").returncode == 1
    assert not (tmp_path / "data" / "server.pid").exists()  # a look starts none
    started = embedcache(url, "server", "start", "--background")
    try:
        assert started.returncode == 0, started.stderr
        told = json.loads(embedcache(url, "server", "status", "--json").stdout)
        assert (told["running"], told["kept"]) == (True, True)
        assert embedcache(url, "server", "start").returncode == 2  # once is enough
    finally:
        stopped = embedcache(url, "server", "stop")
    assert "The server has stopped." in stopped.stderr
    deadline = time.monotonic() + 30
    while embedcache(url, "server", "status").returncode == 0:
        assert time.monotonic() < deadline
    assert embedcache(url, "server", "stop").returncode == 1
    assert embedcache("redis://127.0.0.1:1", "server", "status").returncode == 2


def test_completion_is_offered_to_shells(url):
    asked = {"_EMBEDCACHE_COMPLETE": "complete_bash", "COMP_WORDS": "embedcache w", "COMP_CWORD": "1"}
    program = "import sys; sys.argv = ['embedcache']; from embedcache.cli import main; main()"
    shown = ended([sys.executable, "-c", program], environment(url) | asked)
    assert {"why", "warm"} <= set(shown.stdout.split())
