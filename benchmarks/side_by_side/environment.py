"""Where a benchmark ran: machine, versions, and how busy the machine was."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import redis

PACKAGES = (
    "embedcache",
    "redis",
    "hiredis",
    "numpy",
    "redisvl",
    "langchain-classic",
    "langchain-community",
    "langchain-core",
)


def describe(server: redis.Redis) -> dict[str, Any]:
    """What figures depend on. Nothing in it names the machine or its user."""
    info = server.info("server")
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "server": f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def busy() -> float:
    """Processes that wanted a core in the last minute, on average; this benchmark and its server make up to two."""
    return round(os.getloadavg()[0], 1)


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
