"""The dashboard's server: the pages that app.py maps, and beside them what machines ask for."""

import streamlit as st

from pages.ui.serving import MIDDLEWARE, ROUTES, load_and_close, say_unexpected

app = st.App("app.py", routes=ROUTES, middleware=MIDDLEWARE, lifespan=load_and_close, on_script_error=say_unexpected)
