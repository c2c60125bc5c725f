"""What junk might spoil: two caches, strangers' keys and some files; and the test that it is as it was."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from drawing import arguments, nothing_shown
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from public import Public
from servers import Server
from toy_model import vector_of

from embedcache import CustomVectorizer, EmbeddingsCache, audit, doctor, removal, sampling, transfer, walking
from embedcache.doctor import Finding
from embedcache.errors import EmbedcacheError
from embedcache.flushing import flush_all
from embedcache.index import EntryIndex
from embedcache.removal import RemovalPlan

MODEL = "a/model"
KEPT = "kept"
TTL = 500
KEY = EmbeddingsCache("c").key_for(KEPT, MODEL)

Plausible = Mapping[str, Any]
"""What would do for an argument, by its name or by ``function.argument``: a list, or a function of the world to one."""

EXAMPLES = int(os.environ.get("EMBEDCACHE_TEST_JUNK", "40"))
patient = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True, max_examples=EXAMPLES)


def tell(*_progress: object) -> None:
    """Is told anything."""


class World:
    """A server with two caches and a stranger on it, and a folder with an export and a corpus.

    Attributes:
        server: The server.
        folder: Where the files are; the working directory.
        cache: One of the caches, ``c``; the other is ``d``.
        connection: Its connection.
    """

    def __init__(self, server: Server, folder: Path, runner: asyncio.Runner) -> None:
        self.server, self.folder, self._runner = server, folder, runner
        with EmbeddingsCache("d", redis_url=server.url, stats=False) as other:
            other.set(KEPT, MODEL, [1.0, 2.0])
        self.cache = EmbeddingsCache("c", ttl=TTL, redis_url=server.url, stats=False)
        self.cache.set(KEPT, MODEL, [0.5, -1.0], {"page": 3})
        self.cache.set(b"\xff", MODEL, [0.5, 1.0])
        self.connection = self.cache.connection
        self.record = audit.record(self.connection, "c", "ada", "made")
        server.raw.set("another's", "x")
        server.raw.set("c:junk", "x")
        server.raw.hset("c:" + "0" * 64, "a", "b")
        transfer.export_entries(self.connection, "c", folder / "made.jsonl", file_format="jsonl")
        (folder / "corpus.txt").write_text("a text\n")
        (folder / "corpus.csv").write_text("text,page\na text,3\n")
        self._keys, self._files = self.keys(), self.files()
        self._values = {key: (server.raw.dump(key), at) for key, (_, at) in self._keys.items()}

    def run(self, awaited: Coroutine[Any, Any, object]) -> None:
        """Awaits something on the test's event loop."""
        self._runner.run(awaited)

    def close(self) -> None:
        self.run(self.cache.aclose())

    # ---------------------------------------------------------------------------------------- what there is

    def keys(self) -> dict[bytes, tuple[str, int]]:
        """Digest and moment of expiry of each key."""
        found = sorted(self.server.raw.scan_iter())
        pipeline = self.server.raw.pipeline(transaction=False)
        for key in found:
            pipeline.dump(key).pexpiretime(key)
        replies = pipeline.execute()
        return {
            key: (hashlib.sha256(value or b"").hexdigest(), at)
            for key, value, at in zip(found, replies[::2], replies[1::2], strict=True)
        }

    def has_its_values(self) -> bool:
        """Whether each key has the value that it had, whenever it expires."""
        return {key: value for key, (value, _) in self.keys().items()} == {
            key: value for key, (value, _) in self._keys.items()
        }

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in self.folder.rglob("*")}

    def put_right(self) -> None:
        """All as it was when this was made."""
        flush_all()  # what the call before counted is not taken for what the next one wrote
        if self.keys() != self._keys:
            self.server.raw.flushall()
            for key, (value, at) in self._values.items():
                self.server.raw.restore(key, max(at, 0), value, absttl=at > 0)
        for name in self.files().keys() - self._files.keys():
            (self.folder / name).unlink()
        for name, content in self._files.items():
            (self.folder / name).write_bytes(content)

    # ---------------------------------------------------------------------------------------- what functions take

    @cached_property
    def index(self) -> EntryIndex:
        return walking.index_cache(self.connection, "c", tell)

    @cached_property
    def plan(self) -> RemovalPlan:
        index = self.index
        return removal.RemovalPlan.of("c", index.digests, index.inserted_at, index.value_bytes)

    @cached_property
    def findings(self) -> list[Finding]:
        return list(doctor.examine(self.cache).findings)

    @cached_property
    def vectors(self) -> sampling.Vectors:
        return sampling.sample(self.connection, "c", 5).groups[0]

    @cached_property
    def vectorizer(self) -> CustomVectorizer:
        return CustomVectorizer(vector_of, "toy", self.cache)

    # ---------------------------------------------------------------------------------------- the test

    def check(self, tested: Public, data: st.DataObject, plausible: Plausible) -> None:
        """Calls something with junk among its arguments: only errors of ours come out, and then nothing changed."""
        given = data.draw(arguments(tested.parameters, self._plausible(tested, plausible)), label="arguments")
        call = self._bound(tested, plausible)
        self.put_right()
        placed, named = tested.placed(given)
        error = refusal(lambda: self._finish(call(*placed, **named), tested))
        if error is not None:
            assert str(error)
            assert self.keys() == self._keys
            assert self.files() == self._files

    def _plausible(self, tested: Public, plausible: Plausible) -> dict[str, list[Any]]:
        return {name: self.chosen(plausible, tested, name) for name in tested.parameters}

    def chosen(self, plausible: Plausible, tested: Public, name: str) -> list[Any]:
        """What would do for an argument."""
        values = plausible.get(f"{tested.short_name}.{name}", plausible.get(name))
        if values is None:
            pytest.fail(f"say in this file what would do for {name!r} of {tested.name}")
        return list(values(self) if callable(values) else values)

    def _bound(self, tested: Public, plausible: Plausible) -> Callable[..., Any]:
        if tested.of is None:
            return tested.call
        if tested.of not in plausible:
            pytest.fail(f"say in this file what {tested.of} the method {tested.name} may be called of")
        bound: Callable[..., Any] = getattr(plausible[tested.of](self), tested.short_name)
        return bound

    def _finish(self, returned: Any, tested: Public) -> None:
        """What is only begun by the call is gone through."""
        if inspect.iscoroutine(returned):
            self.run(returned)
        elif tested.is_operation:
            self.connection.drive(returned)
        elif inspect.isgenerator(returned):
            list(returned)
        elif isinstance(returned, AbstractContextManager):
            with returned:
                pass


def refusal(call: Callable[[], Any]) -> EmbedcacheError | None:
    """The error of ours that the call raises, or None; any other error fails the test."""
    try:
        with nothing_shown():
            call()
    except EmbedcacheError as error:
        return error
    return None
