"""Settings: which server and caches there are, what this user may change, what tokens cost, who changed what."""

import streamlit as st

from embedcache import CacheUnavailableError, EmbedcacheError, audit
from embedcache.errors import ServerReplyError
from pages.ui import (
    access,
    audit_frames,
    cache_counts,
    cache_list,
    connections,
    failures,
    longwork,
    prices,
    session,
    widgets,
    wording,
)
from pages.ui.connections import Connection
from pages.ui.inputs import UnusableInputError

TABS = ["Servers", "Caches", "Token prices", "Audit log", "You"]
TAB_KEY = "settings"
SERVER_KEY = "settings_server"
NAME_KEY = "settings_new_name"
URL_KEY = "settings_new_url"
PASSWORD_KEY = "settings_new_password"  # noqa: S105 - the name of a field
PERMANENT = '[embedcache.connections]\nstaging = "redis://user:password@host:6379/0"'
AUDITED = 200
ORIGINS = {
    "default": "from the environment",
    "secrets": "from this dashboard's secrets",
    "mine": "added by you, for this session",
}


# -------------------------------------------------------------------------------------------------- servers


def _show_servers() -> None:
    choose, add = st.columns([3, 2], gap="large")
    with choose:
        st.subheader("Choose a server", anchor=False)
        _choose_server(connections.listed(), connections.chosen())
    with add:
        st.subheader("Add a server", anchor=False)
        _add_server()


def _choose_server(listed: list[Connection], chosen: Connection) -> None:
    names = [each.name for each in listed]
    # Not the widget's memory but the session decides: a server may be chosen or removed elsewhere too.
    st.session_state[SERVER_KEY] = chosen.name
    st.radio(
        "Work with",
        names,
        format_func=wording.plain_label,
        captions=[f"{wording.code_span(each.address, 120)}, {ORIGINS[each.origin]}" for each in listed],
        key=SERVER_KEY,
        on_change=_switch,
        label_visibility="collapsed",
    )
    st.caption("Switching is for you alone: other users keep theirs.")
    with st.container(horizontal=True):
        st.button("Test", icon=":material/network_check:", on_click=_test, args=(chosen,), key="test_server")
        if chosen.origin == "mine":
            st.button("Remove", icon=":material/delete:", on_click=_remove, args=(chosen.name,), key="remove_server")


def _switch() -> None:
    name = st.session_state[SERVER_KEY]
    session.switch_server(name)
    widgets.leave_notice("success", f"You work with {wording.code_span(name)} now.")


def _remove(name: str) -> None:
    session.remove_server(name)
    widgets.leave_notice("success", f"{wording.code_span(name)} is off your list.")


def _test(server: Connection) -> None:
    tone, words = _how_it_answers(server)
    widgets.leave_notice(tone, words)


def _how_it_answers(server: Connection) -> tuple[widgets.Tone, str]:
    address = wording.code_span(server.address, 200)
    try:
        told = connections.test(server.url)
    except CacheUnavailableError as error:
        reason = wording.code_span(str(error).removeprefix(f"no answer from {server.address}: "))
        return "error", (
            f"**{address} cannot be used.** Is it running, and are its address and password right? The reason: {reason}"
        )
    except EmbedcacheError as error:
        return "error", failures.sentence(error)
    if isinstance(told, ServerReplyError):
        return "info", f"{address} answers, but does not say what it is: {wording.code_span(str(told))}"
    kind = wording.plain_label(f"{told.kind} {told.version}")
    took = wording.elapsed(told.round_trip_seconds)
    return "success", f"{address} answers: {kind}, {wording.counted(told.total_keys, 'key')}, in {took}."


def _add_server() -> None:
    viewer = access.role() == "viewer"
    why = "Adding a server takes an editor." if viewer else None
    with st.form("add_server", border=False):
        st.text_input("Name", max_chars=connections.MAX_NAME, placeholder="staging", key=NAME_KEY)
        st.text_input(
            "URL, without the password",
            placeholder="redis://user@localhost:6379/0",
            key=URL_KEY,
            help="redis://, rediss:// (TLS), unix://, redis+cluster:// or embedded:///a/folder",
        )
        st.text_input("Password, if it has one", type="password", key=PASSWORD_KEY, autocomplete="off")
        st.form_submit_button("Add", icon=":material/add:", on_click=_add, disabled=viewer, help=why)
    st.caption(
        "What you add is kept in this session alone, and gone when you close or reload the page. To have it there for "
        "everybody, whoever runs the dashboard adds it to `.streamlit/secrets.toml`:"
    )
    st.code(PERMANENT, language=None, wrap_lines=True)  # highlighted, it is too pale to read


def _add() -> None:
    password = st.session_state.get(PASSWORD_KEY) or ""
    st.session_state[PASSWORD_KEY] = ""
    try:
        added = connections.add(st.session_state.get(NAME_KEY) or "", st.session_state.get(URL_KEY) or "", password)
    except UnusableInputError as error:
        widgets.leave_notice("error", str(error))
        return
    st.session_state[NAME_KEY] = st.session_state[URL_KEY] = ""
    tone, words = _how_it_answers(added)
    widgets.leave_notice(tone, f"{wording.code_span(added.name)} is on your list. {words}")


# -------------------------------------------------------------------------------------------------- caches


def _show_caches() -> None:
    widgets.require_server()
    bar = st.container(horizontal=True, vertical_alignment="center")
    again = bar.button("Count again", icon=":material/refresh:", key="count_caches", on_click=session.count_again)
    job = cache_counts.counted(again=again)
    if not longwork.shown(job, "Counting entries", unit=("key", "keys")):
        return
    counts = job.result
    if not counts.keys.by_cache:
        st.caption("There is no cache on this server yet. A cache is there as soon as something is stored in it.")
        return
    bar.caption(f"Counted {wording.ago(job.seconds_since_end)}.", width="content")
    cache_list.show(counts)


# -------------------------------------------------------------------------------------------------- the rest


def _show_prices() -> None:
    widgets.require_server()
    name = session.cache_name()
    st.caption(f"Of the cache {wording.code_span(name, 80)}, which is chosen in the sidebar.")
    prices.price_editor(name, session.models(name))


def _show_audit() -> None:
    widgets.require_server()
    connection = session.open_cache(session.cache_name(), refresh_ttl=False).connection
    records = audit.read(connection, *session.cache_names(), limit=AUDITED)
    if not records:
        st.caption(
            "Nobody has changed a cache on this server by hand yet. When somebody does, this says when, who, what and "
            "how much. Programs write here too, with `embedcache.audit.record`."
        )
        return
    st.dataframe(
        audit_frames.audit_frame(records),
        hide_index=True,
        column_config={
            "at": st.column_config.DatetimeColumn(
                "When", format="D MMM YYYY, HH:mm:ss", timezone=session.zone().key, width=170
            ),
            "actor": st.column_config.TextColumn("Who", width=170),
            "action": st.column_config.TextColumn("What", width=110),
            "cache": st.column_config.TextColumn("Cache", width=130),
            "count": st.column_config.NumberColumn("Entries", format="localized", width=80),
            "mebibytes": st.column_config.NumberColumn("Values", format="%.2f MiB", width=100),
            "detail": st.column_config.TextColumn("Details"),
        },
        key="settings_audit",
    )
    st.caption(
        f"The last {wording.counted(len(records), 'change')} to the caches of this server, by its clock. "
        "Emptying a cache keeps its log."
    )


def _show_user() -> None:
    found = access.current()
    if found is None:
        return
    words = {
        "oidc": f"You are logged in as {wording.code_span(found.name or 'somebody without an e-mail address', 120)}.",
        "password": f"You are logged in with the {found.role}s' password.",
        "open": "Nobody is asked to log in here, because this dashboard listens to this machine alone.",
    }
    st.write(words.get(found.way, ""))
    st.write(
        "You are an **editor**: you may change and drop entries."
        if found.role == "editor"
        else "You are a **viewer**: you see everything, and the dashboard keeps you from changing anything."
    )
    forced = access.forced_read_only()
    if forced is None:
        st.toggle(
            "Read-only",
            key=access.READ_ONLY_KEY,
            persist_state="session",
            help="For you, until you switch it off: caches are opened so that nothing can be written.",
        )
    elif found.role == "editor":
        st.info(forced, icon=":material/lock:")
    if found.way in {"oidc", "password"}:
        st.button("Log out", icon=":material/logout:", on_click=access.log_out, key="log_out")


# -------------------------------------------------------------------------------------------------- the page

SHOWN = (_show_servers, _show_caches, _show_prices, _show_audit, _show_user)

widgets.header("Settings", "Which server you work with, what is on it, what you may change, and who changed what.")
notices = st.container()
for tab, show in zip(st.tabs(TABS, key=TAB_KEY, on_change="rerun"), SHOWN, strict=True):
    if not tab.open:
        continue
    if show is not _show_prices:  # which shows what it did beside its form
        with notices:
            widgets.show_notice()
    with tab, widgets.errors_as_sentences():
        show()
