"""The archives that `python -m build` makes of this checkout, and environments in which nothing else is installed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
BUILD_SECONDS = 300
INSTALL_SECONDS = 900
# What a program is given of our environment: neither the checkout on its path nor anything of the user's.
KEPT = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Archives:
    """A source archive, and the wheel that was built from it."""

    source: Path
    wheel: Path

    def unpack(self, folder: Path) -> Path:
        """Unpacks the source archive; gives the folder that it holds."""
        with tarfile.open(self.source) as archive:
            archive.extractall(folder, filter="data")
        (found,) = folder.iterdir()
        return found


def build(folder: Path) -> Archives:
    """Builds both: the wheel from the source archive, so that a file which that one lacks is missing in both."""
    words = [sys.executable, "-m", "build", "--outdir", str(folder)]
    if importlib.util.find_spec("hatchling") is not None:
        words.append("--no-isolation")
    run([*words, str(ROOT)], BUILD_SECONDS, env=dict(os.environ))
    (source,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return Archives(source, wheel)


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment, in a folder of its own."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def command(self, name: str) -> Path:
        """A command that a package has installed."""
        return self.folder / "bin" / name

    def install(self, *packages: str) -> None:
        """Has pip install them, in the versions that the constraints name."""
        words = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--constraint", str(CONSTRAINTS)]
        # With our environment: where packages come from may be set there.
        own = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
        run([str(self.python), *words, *packages], INSTALL_SECONDS, env=own)


def empty_environment(folder: Path, python: str = sys.executable) -> Environment:
    """A virtual environment of that interpreter, with nothing but pip."""
    run([python, "-m", "venv", str(folder)], BUILD_SECONDS, env=dict(os.environ))
    return Environment(folder)


def alone(home: Path) -> dict[str, str]:
    """The environment variables of somebody who has nothing but this home."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {"HOME": str(home), "XDG_DATA_HOME": str(home / "data")}


def run(words: Sequence[str], seconds: float, *, env: dict[str, str], cwd: Path | None = None) -> str:
    """What a program says; an error with all of it where it fails."""
    done = subprocess.run(
        words,
        env=env,
        cwd=cwd,
        timeout=seconds,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def find_python(version: str) -> str | None:
    """An interpreter of a version such as "3.12" that can make environments: of the PATH, of pyenv or of uv."""
    named = shutil.which(f"python{version}")
    home = Path.home()
    places = [
        Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions",
        Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local" / "share" / "uv" / "python")),
    ]
    others = (str(found) for place in places for found in sorted(place.glob(f"*{version}*/bin/python{version}")))
    return next((found for found in (*([named] if named else []), *others) if _is(found, version)), None)


def _is(python: str, version: str) -> bool:
    asked = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", asked], check=False, capture_output=True, text=True, timeout=60)
    return re.fullmatch(re.escape(version) + r"\n", done.stdout) is not None
