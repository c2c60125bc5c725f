"""Clicks on the points of a 3-D figure, of which `st.plotly_chart` tells nothing; Plotly itself tells the browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import streamlit as st

# Asked again and again, for Plotly forgets its listeners when it draws a figure anew. Nothing but a number is told.
_LISTEN: Final = """
export default function ({ data, setTriggerValue }) {
    const take = event => {
        const row = event.points?.[0]?.customdata;
        if (Number.isInteger(row)) setTriggerValue("row", row);
    };
    let graph = null;
    const leave = () => graph?.removeListener?.("plotly_click", take);
    const listen = () => {
        leave();
        graph = document.querySelector(`.st-key-${data} .js-plotly-plot`);
        graph?.on?.("plotly_click", take);
    };
    listen();
    const timer = setInterval(listen, 500);
    return () => { clearInterval(timer); leave(); };
}
"""

_listener: Final = st.components.v2.component("embedcache_solid_clicks", js=_LISTEN)


def on_click(figure_key: str, take: Callable[[object], None]) -> None:
    """Has `take` called with the ``customdata`` of each point of a figure that is clicked, before the page runs again.

    Args:
        figure_key: The figure's key.
        take: What it is called with is a whole number, or whatever else a browser sends.
    """
    key = f"{figure_key}_clicks"
    _listener(key=key, data=figure_key, on_row_change=lambda: take(st.session_state[key].row))
