"""Whatever is wrong, the command ends with a code and a sentence: no traceback, and no password."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = "é中 text"


def shell(line: str, url: str, given: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash, in which ``$E`` is the command."""
    environ = os.environ | {"PYTHONPATH": str(ROOT), "EMBEDCACHE_URL": url, "EMBEDCACHE_NAME": "docs"}
    environ |= {"E": f"{sys.executable} -m embedcache"} | more
    ended = subprocess.run(
        ["bash", "-c", line], check=False, input=given, capture_output=True, env=environ, timeout=120
    )
    assert b"Traceback" not in ended.stderr
    return ended


@pytest.mark.parametrize("words", [["ls"], ["get", TEXT, "-m", "m"]])
def test_a_terminal_without_a_character_gets_it_written_out(cache, url, words):
    cache.set(TEXT, "m", [1.0, 2.0])
    quoted = " ".join(f"'{word}'" for word in words)
    ended = shell(f"$E {quoted}", url, PYTHONIOENCODING="latin-1", PYTHONUTF8="1")
    assert ended.returncode == 0, ended.stderr
    assert b"\xe9\\u4e2d text" in ended.stdout


def test_input_that_is_no_text_ends_with_2(url):
    ended = shell("$E embed", url, b"\xff\xfe\n", PYTHONIOENCODING="utf-8")
    assert ended.returncode == 2
    assert b"standard input is no utf-8 text" in ended.stderr


def test_streams_may_be_closed(filled, url):
    assert shell("$E drop --model other <&-", url).returncode == 4
    assert shell("$E ls --json 2>&-", url).returncode == 0
    assert shell("$E ls >&-", url).returncode == 0
    assert filled.exists("text 2", "other")


def test_a_pipe_that_is_closed_early_is_no_failure_to_tell_of(filled, url):
    assert shell("set -o pipefail; $E ls --json | head -c 5", url).stdout == b'{"cac'


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "redis://:s3cret@h"],
        ["redis://:s3cret@h"],
        ["ls", "--limit", "redis://:s3cret@h"],
        ["ls", "--older", "redis://:s3cret@h"],
        ["ls", "--sort", "redis://:s3cret@h"],
        ["ls", "--url", "redis://:s3cret@h:port"],
        ["convert", "packed", "--to-url", "redis://:s3cret@h:port", "--to-name", "b"],
    ],
)
def test_a_password_in_the_wrong_place_is_not_repeated(run, url, words):
    ended = run(*words)
    assert ended.code == 2
    assert "s3cret" not in ended.out + ended.err


@pytest.mark.model
def test_a_file_that_cannot_be_written_leaves_nothing_behind(run, url, tmp_path):
    ended = run("embed", "a", "--no-cache", "--out", str(tmp_path / "missing" / "m.npy"))
    assert ended.code == 5
    assert list(tmp_path.iterdir()) == []
