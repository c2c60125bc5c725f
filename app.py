"""The embedcache dashboard: which pages there are, and the frame around them."""

import streamlit as st

from embedcache import apart
from pages.ui import failures, links, login, sidebar

st.set_page_config(page_title="embedcache", page_icon=":material/database:", layout="wide")

pages = {
    "Watch": [
        st.Page("pages/overview.py", title="Overview", icon=":material/monitoring:", url_path="", default=True),
        st.Page(links.go_to_overview, title="Overview", url_path="overview", visibility="hidden"),
        st.Page("pages/hit_rates.py", title="Hit rates", icon=":material/percent:"),
    ],
    "Explore": [
        st.Page("pages/browse.py", title="Browse", icon=":material/table_rows:"),
        st.Page("pages/lookup.py", title="Lookup", icon=":material/search:"),
        st.Page("pages/vector_map.py", title="Vector map", icon=":material/scatter_plot:"),
    ],
    "Act": [
        st.Page("pages/embed.py", title="Embed", icon=":material/bolt:"),
        st.Page("pages/benchmark.py", title="Benchmark", icon=":material/speed:"),
        st.Page("pages/cleanup.py", title="Cleanup", icon=":material/cleaning_services:"),
        st.Page("pages/settings.py", title="Settings", icon=":material/settings:"),
    ],
}

apart.give_way()
with failures.guard():
    inside = login.is_in()
    page = st.navigation(pages, position="sidebar" if inside else "hidden")
    if inside:
        sidebar.draw()
        page.run()
    else:
        login.show()
