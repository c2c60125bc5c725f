"""The tests of the package's core and of a page, from the source archive, on the wheel as other Pythons install it."""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from building import ROOT, Archives, alone, empty_environment, find_python, run

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(1_800)]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSIONS = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line]
OUR_OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
# Whose wheels there are for every Python; of a model's, there may be none.
EXTRAS = "server,dashboard,parquet,jsonl,prometheus,progress"
TOOLS = ["hypothesis", "pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist"]
TESTS = " ".join(
    f"tests/{name}.py"
    for name in (
        "test_browse",
        "test_cache",
        "test_codec",
        "test_connection",
        "test_contract",
        "test_entry_frames",
        "test_filtering",
        "test_flight_locks",
        "test_index",
        "test_keyspace",
        "test_metadata",
        "test_near",
        "test_operations",
        "test_prometheus",
        "test_removal",
        "test_single_flight",
        "test_ttl",
        "test_vectorizers",
        "test_walking",
        "embedded/test_sharing",
        "statistics/test_counters",
        "statistics/test_counting",
        "statistics/test_delivery",
    )
)
SECONDS = 900


def test_the_oldest_python_is_the_same_everywhere() -> None:
    oldest = min(VERSIONS, key=lambda version: int(version.partition(".")[2]))
    tools = PROJECT["tool"]
    assert PROJECT["project"]["requires-python"] == f">={oldest}"
    assert tools["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert tools["mypy"]["python_version"] == oldest
    major, minor = oldest.split(".")
    for name in ("Makefile", ".ci/run"):
        assert f"sys.version_info < ({major}, {minor})" in (ROOT / name).read_text()
    assert f"Python {oldest} or newer" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("version", [each for each in VERSIONS if each != OUR_OWN])
def test_the_core_works_on(version: str, archives: Archives, tmp_path: Path) -> None:
    python = find_python(version)
    if python is None:
        pytest.skip(f"no Python {version} with venv here: not on the PATH, nor where pyenv and uv put theirs")
    environment = empty_environment(tmp_path / "venv", python)
    environment.install(f"{archives.wheel}[{EXTRAS}]", *TOOLS)
    source = archives.unpack(tmp_path / "source")
    shutil.rmtree(source / "embedcache")  # what is installed is tested, and not what lies beside the tests
    words = f"{TESTS} --override-ini pythonpath=. --numprocesses auto --dist loadfile --quiet -r fE".split()
    words += ["-m", "not (model or browser)"]
    told = run([str(environment.command("pytest")), *words], SECONDS, env=alone(tmp_path), cwd=source)
    assert " passed" in told.splitlines()[-1]
    print(version, told.splitlines()[-1])
