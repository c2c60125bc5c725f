"""``server start|status|stop``: the embedded server by hand, for those who do not want to wait for its first program.

It starts with the first program that uses it and stops with the last. ``start`` is a program that only uses it, until
Ctrl+C or ``stop``; so ``stop`` takes it from nobody else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from embedcache.cli import options, output
from embedcache.cli.exits import Exit
from embedcache.errors import EmbeddedServerError, InvalidInputError
from embedcache.server import EmbeddedServer, default_folder
from embedcache.urls import EMBEDDED_URL, URL_VARIABLE, parse_embedded

_KEEPER: Final = "keeper.pid"
_PATIENCE: Final = 60.0
_POLL_SECONDS: Final = 0.05

app = typer.Typer(help="Start, look at and stop the embedded server.", no_args_is_help=True)


@app.command()
def start(
    background: Annotated[bool, typer.Option("--background", "-b", help="Return at once; `stop` ends it.")] = False,
    url: options.Url = None,
) -> None:
    """Keep the embedded server running, until Ctrl+C; with --background, until `embedcache server stop`."""
    folder, maxmemory = _folder(url)
    if background:
        _start_keeper(url, folder)
        return
    server = EmbeddedServer.attach(folder, maxmemory=maxmemory)
    with _keeping(folder), contextlib.suppress(KeyboardInterrupt):
        output.note(f"The embedded server runs, process {server.pid}, at {server.socket_path}, until Ctrl+C")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.pause()
    server.detach()


@contextlib.contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """Holds the file by which `stop` knows who keeps the server: its lock says that this process is there."""
    descriptor = os.open(folder / _KEEPER, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidInputError("`embedcache server start` keeps this server already") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def _start_keeper(url: str | None, folder: Path) -> None:
    if _keeper(folder) is not None:
        raise InvalidInputError("`embedcache server start` keeps this server already")
    command = [sys.executable, "-m", "embedcache", "server", "start"]
    environment = os.environ | ({} if url is None else {URL_VARIABLE: url})  # its words could be read by everybody
    keeper = subprocess.Popen(  # noqa: S603 - this program itself
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + _PATIENCE
    while _keeper(folder) is None:
        if keeper.poll() is not None and keeper.stderr is not None:
            raise EmbeddedServerError(keeper.stderr.read().decode(errors="replace").strip())
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"the embedded server did not start within {_PATIENCE:.0f} s")
        time.sleep(_POLL_SECONDS)
    output.note(f"The embedded server runs, process {EmbeddedServer(folder).pid}. `embedcache server stop` ends it.")


@app.command()
def status(url: options.Url = None, json: options.Json = False) -> None:
    """Tell whether the embedded server runs, without starting it."""
    folder, _ = _folder(url)
    server = EmbeddedServer(folder)
    pid = server.pid
    if json:
        output.show_json(
            {"running": pid is not None, "pid": pid, "folder": str(folder), "kept": _keeper(folder) is not None}
        )
    else:
        keeper = _keeper(folder)
        output.show_facts(
            {
                "running": "no" if pid is None else f"yes, process {pid}",
                "folder": str(folder),
                "socket": None if pid is None else str(server.socket_path),
                "kept by": None if keeper is None else f"embedcache server start, process {keeper}",
            }
        )
    if pid is None:
        raise typer.Exit(Exit.NOTHING)


@app.command()
def stop(url: options.Url = None) -> None:
    """End what `embedcache server start` began. The server stops once no other program uses it."""
    folder, _ = _folder(url)
    keeper = _keeper(folder)
    if keeper is None:
        output.note(
            "`embedcache server start` keeps no server here. One that programs use stops with the last of them."
        )
        raise typer.Exit(Exit.NOTHING)
    os.kill(keeper, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    while _keeper(folder) is not None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    others = EmbeddedServer(folder).pid is not None
    output.note(
        "Other programs use the server: it stops with the last of them." if others else "The server has stopped."
    )


def _keeper(folder: Path) -> int | None:
    """The process that keeps the server, or None."""
    try:
        descriptor = os.open(folder / _KEEPER, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        digits = os.read(descriptor, 20).strip()
        return int(digits) if digits.isdigit() else None
    else:
        return None
    finally:
        os.close(descriptor)


def _folder(url: str | None) -> tuple[Path, str | None]:
    given = url or os.environ.get(URL_VARIABLE) or EMBEDDED_URL
    if not given.startswith("embedded:"):
        raise InvalidInputError("this server is not an embedded one: --url or the environment names another")
    folder, maxmemory = parse_embedded(given)
    return (folder or default_folder()).resolve(), maxmemory
