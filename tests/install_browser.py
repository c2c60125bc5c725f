"""Sees to it that the browser tests have a browser, and says which: `make test` runs this first.

What is there is used: `$EMBEDCACHE_CHROMIUM`, a Chromium or Chrome of the system, Playwright's own. Where none of them
starts, Playwright's installer is tried, then Debian's package.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from browser import FLAGS, find_chromium
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import sync_playwright


def starts() -> bool:
    """Whether the browser that the tests would use can be launched; says so if it can."""
    path = find_chromium()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
            print(f"Browser tests use {path or 'the Chromium of Playwright'} ({browser.version})")
            browser.close()
    except PlaywrightError:
        return False
    return True


def install_by_playwright() -> None:
    """Playwright's own browser, with the libraries it needs where that takes no password."""
    words = ["install", "--with-deps", "chromium"] if os.geteuid() == 0 else ["install", "chromium"]
    print("No browser that starts: running playwright " + " ".join(words), flush=True)
    subprocess.run([sys.executable, "-m", "playwright", *words], check=False, capture_output=True, timeout=600)


def install_by_apt() -> None:
    """Debian's Chromium."""
    if shutil.which("apt-get") is None:
        return
    as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    print("Still none: running apt-get install chromium", flush=True)
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
        subprocess.run([*as_root, "apt-get", *words], check=False, stdout=subprocess.DEVNULL, timeout=600)


def main() -> None:
    """Tries each way in turn. Without a browser, the tests that need one are skipped with this as their reason."""
    if starts():
        return
    for install in (install_by_playwright, install_by_apt):
        install()
        if starts():
            return
    print("No browser could be installed: browser tests will be skipped. $EMBEDCACHE_CHROMIUM can name one.")


if __name__ == "__main__":
    main()
