"""``embedcache dashboard``: the pages in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from embedcache import launching


def dashboard(
    address: Annotated[
        str | None, typer.Option(help="Where to listen. Other machines reach it at 0.0.0.0.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[int | None, typer.Option(help="On which port.", min=1, max=65_535, show_default="8501")] = None,
    url: Annotated[
        str | None, typer.Option(help="The cache's server.", show_default="$EMBEDCACHE_URL, else the embedded one")
    ] = None,
    hash_password: Annotated[
        bool, typer.Option("--hash-password", help="Ask for a password, and print its hash for the login.")
    ] = False,
) -> None:
    """Serve the dashboard until Ctrl+C.

    It needs the extra "dashboard". The port and all else may be set by Streamlit's environment variables, too, such as
    STREAMLIT_SERVER_PORT.
    """
    if hash_password:
        launching.hash_password()
    launching.start(address, port, url)
