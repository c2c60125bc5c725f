"""The archives, built once, and an environment with all that a user of the dashboard installs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from building import Archives, Environment, build, empty_environment


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed(archives: Archives, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The wheel with the extras of the dashboard, the embedded server and the model."""
    environment = empty_environment(tmp_path_factory.mktemp("all") / "venv")
    environment.install(f"{archives.wheel}[dashboard,server,hf]")
    yield environment
    shutil.rmtree(environment.folder)  # pytest keeps folders of three runs, and this one has two gigabytes


@pytest.fixture(scope="session")
def bare(archives: Archives, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel without any extra."""
    environment = empty_environment(tmp_path_factory.mktemp("bare") / "venv")
    environment.install(str(archives.wheel))
    return environment
