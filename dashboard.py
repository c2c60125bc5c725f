"""The dashboard's server: the pages that app.py maps, and beside them what machines ask for."""

import streamlit as st

from pages.ui.serving import ROUTES, close_at_end, say_unexpected

app = st.App("app.py", routes=ROUTES, lifespan=close_at_end, on_script_error=say_unexpected)
