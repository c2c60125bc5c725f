"""The dashboard's server: the pages that app.py maps, and beside them what machines ask for."""

import streamlit as st

from pages.ui.serving import ROUTES, load_and_close, say_unexpected

app = st.App("app.py", routes=ROUTES, lifespan=load_and_close, on_script_error=say_unexpected)
