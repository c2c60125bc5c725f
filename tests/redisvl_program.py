"""RedisVL's own cache in a process of its own: a JSON request per line in, a JSON reply per line out.

A request is ``[method, arguments]``; bytes travel as ``{"hex": ...}``. An exception becomes ``{"error": ...}``.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

from redisvl.extensions.cache.embeddings import EmbeddingsCache


def to_python(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if value.keys() == {"hex"} else {k: to_python(v) for k, v in value.items()}
    return [to_python(each) for each in value] if isinstance(value, list) else value


def to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {key: to_json(each) for key, each in value.items()}
    return [to_json(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    url, name, ttl = sys.argv[1:]
    cache = EmbeddingsCache(name, redis_url=url, ttl=int(ttl) or None)
    print(json.dumps(version("redisvl")), flush=True)
    for line in sys.stdin:
        method, arguments = to_python(json.loads(line))
        try:
            reply = to_json(getattr(cache, method)(*arguments))
        except Exception as error:  # noqa: BLE001 - whatever it raises is what the test asks for
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


main()
