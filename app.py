"""The embedcache dashboard: which pages there are, and the frame around them."""

import streamlit as st

from pages.ui import widgets

st.set_page_config(page_title="embedcache", page_icon=":material/database:", layout="wide")

page = st.navigation(
    {
        "Watch": [
            st.Page("pages/overview.py", title="Overview", icon=":material/monitoring:", default=True),
            st.Page("pages/hit_rates.py", title="Hit rates", icon=":material/percent:"),
        ],
        "Explore": [st.Page("pages/lookup.py", title="Lookup", icon=":material/search:")],
        "Act": [st.Page("pages/embed.py", title="Embed", icon=":material/bolt:")],
    }
)
widgets.sidebar()
page.run()
