"""Token prices: what 1,000 tokens of each model cost, shown and changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import streamlit as st

from embedcache import EmbedcacheError
from pages.ui import failures, recording, session, stats_frames, widgets, wording

MAX_PRICE: Final = 1_000_000.0
_MODEL_KEY: Final = "price_model"
_PRICE_KEY: Final = "price_of_tokens"


def price_editor(name: str, models: Sequence[str]) -> None:
    """Shows, sets and removes prices of one cache.

    Args:
        name: The cache.
        models: Models to offer, besides those that have a price.

    Raises:
        EmbedcacheError: The server does not tell the prices.
    """
    prices = session.open_cache(name, refresh_ttl=False).token_prices()
    widgets.show_notice()
    st.caption(
        "With a price per 1,000 tokens, the page Hit rates reckons what the hits of a model saved. The currency is "
        "yours to choose; use one for all models. Tokens are as the vectorizer counts or estimates them. A price holds "
        "for all who use this cache, and for the past as well."
    )
    form, table = st.columns(2, gap="large")
    with form:
        _edit(name, sorted({*models, *prices}))
    if prices:
        table.dataframe(
            stats_frames.prices_frame(prices),
            hide_index=True,
            column_config={
                "model": st.column_config.TextColumn("Model"),
                "price": st.column_config.NumberColumn("Per 1,000 tokens", format="%.6g", width=130),
            },
            key="price_table",
        )
    else:
        table.caption("No model has a price yet.")


def _edit(name: str, models: Sequence[str]) -> None:
    with st.form("price", border=False):
        st.selectbox(
            "Model",
            models,
            index=0 if models else None,
            format_func=wording.visible,
            placeholder="Choose a model, or type its name",
            accept_new_options=True,
            key=_MODEL_KEY,
            persist_state="session",
        )
        st.number_input(
            "Price of 1,000 tokens",
            min_value=0.0,
            max_value=MAX_PRICE,
            value=None,
            step=0.0001,
            format="%.6f",
            placeholder="0.000130",
            key=_PRICE_KEY,
        )
        with st.container(horizontal=True):
            why = session.why_read_only()
            # Callbacks, so that what the page fetches next is reckoned with the new price.
            for label, icon, act in (
                ("Set price", ":material/payments:", _set),
                ("Remove price", ":material/delete:", _remove),
            ):
                st.form_submit_button(label, icon=icon, on_click=act, args=(name,), disabled=why is not None, help=why)


def _set(name: str) -> None:
    price = st.session_state.get(_PRICE_KEY)
    if price is None:
        widgets.leave_notice("error", "There is no price here yet. Type what 1,000 tokens cost.")
        return
    _change(name, float(price), f"1,000 tokens of {{model}} cost {price:g} now.")


def _remove(name: str) -> None:
    _change(name, None, "{model} has no price now.")


def _change(name: str, price: float | None, done: str) -> None:
    # Setting twice is as setting once, so that a double click needs no guard.
    model = (st.session_state.get(_MODEL_KEY) or "").strip()
    if not model:
        widgets.leave_notice("error", "There is no model here yet. Choose the model whose price this is.")
        return
    try:
        cache = session.open_cache(name)
        before = cache.token_prices().get(model)
        cache.set_token_price(model, price)
        action = "remove price" if price is None else "set price"
        words = f"model {wording.quoted(model)}"
        noted = "" if price == before else recording.record(cache, action, words, price=price)
    except EmbedcacheError as error:
        widgets.leave_notice("error", failures.sentence(error))
        return
    widgets.leave_notice("success", done.format(model=wording.code_span(model, 80)) + noted)
