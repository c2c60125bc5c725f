"""Connections to look at a server by: one that may run scripts, one that may not, one that may do little."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import redis
from servers import Server

from embedcache.connection import RedisConnection

NO_SCRIPTS = ("+@all", "-@scripting")


@contextlib.contextmanager
def looking_at(server: Server, *rights: str) -> Iterator[RedisConnection]:
    """A connection to a server, as a user with these rights alone, or as its own where there are none."""
    if rights:
        allow(server, rights)
    login = {"username": "plain", "password": "word"} if rights else {}
    client = redis.Redis(unix_socket_path=str(server.socket), **login)
    try:
        yield RedisConnection(client=client)
    finally:
        client.close()
        server.raw.execute_command("ACL", "DELUSER", "plain")


def allow(server: Server, rights: Sequence[str]) -> None:
    """Gives the plain user these rights."""
    server.raw.execute_command("ACL", "SETUSER", "plain", "reset", "on", ">word", "~*", *rights)


def redisvl_hash(
    text: bytes | str = "a text", *, field: str = "content", model_name: str = "m", size: int = 3, **others: bytes | str
) -> dict[str, bytes | str]:
    """The fields that RedisVL writes for an entry whose vector has `size` components."""
    embedding = "[" + ", ".join(["0.25"] * size) + "]"
    fields = {"entry_id": "0" * 64, field: text, "model_name": model_name, "embedding": embedding}
    return fields | {"inserted_at": "1736455112.5"} | others
