"""The real RedisVL packages driven by tests: the first with an embeddings cache, the first with `content`, today's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs
import pytest

OLD = "0.6.0"
"""The newest that knows the field ``text`` alone is 0.12; this is the first with an embeddings cache."""
FIRST_WITH_CONTENT = "0.13.0"
NEW = "of the extra dev"
VERSIONS = (OLD, FIRST_WITH_CONTENT, NEW)
WITH_CONTENT = (FIRST_WITH_CONTENT, NEW)

# Without their dependencies: numpy and the rest are those of the tests, only their redis-py is their own.
_REDIS_PY = "redis==5.2.1"
_PROGRAM = Path(__file__).with_name("redisvl_program.py")
_INSTALL_SECONDS = 120


@cache
def _packages(version: str) -> Path:
    """A folder with an older package, fetched once and kept; a test that cannot get it is skipped."""
    folder = platformdirs.user_cache_path("embedcache-tests") / f"redisvl-{version}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(draft)]
    command += [f"redisvl=={version}", _REDIS_PY]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
        if done.returncode:
            pytest.skip(f"RedisVL {version} cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
        with contextlib.suppress(FileExistsError, OSError):  # another run was faster
            draft.rename(folder)
    except subprocess.TimeoutExpired:
        pytest.skip(f"RedisVL {version} cannot be fetched within {_INSTALL_SECONDS} s")
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


class RedisVL:
    """A cache of RedisVL's in its own process. Calls go by position, which all versions share."""

    def __init__(self, process: subprocess.Popen[str], version: str) -> None:
        self._process = process
        self.version = version
        self.text_field = "text" if version == OLD else "content"

    def __getattr__(self, method: str) -> Any:
        return lambda *arguments: self._call(method, arguments)

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, arguments], default=_hex) + "\n")
        self._process.stdin.flush()
        reply = json.loads(self._process.stdout.readline(), object_hook=_bytes)
        if isinstance(reply, dict) and reply.keys() == {"error"}:
            raise RuntimeError(reply["error"])
        return reply


def _hex(value: object) -> object:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    raise TypeError(value)


def _bytes(value: dict[str, Any]) -> Any:
    return bytes.fromhex(value["hex"]) if value.keys() == {"hex"} else value


@contextlib.contextmanager
def redisvl(which: str, url: str, name: str, ttl: int | None = None) -> Iterator[RedisVL]:
    """RedisVL's cache of that name on a server."""
    paths = [] if which == NEW else [str(_packages(which))]
    process = subprocess.Popen(
        [sys.executable, str(_PROGRAM), url, name, str(ttl or 0)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert process.stdout is not None
    try:
        version = json.loads(process.stdout.readline() or "null")
        assert version is not None, "RedisVL did not start; its message is above"
        assert which in (NEW, version)
        yield RedisVL(process, version)
    finally:
        process.stdin and process.stdin.close()
        process.wait(30)
        process.stdout.close()
