"""Records of the audit log as a DataFrame. Knows no streamlit."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from embedcache.audit import AuditRecord
from pages.ui.wording import one_line

_MAX_DETAIL = 500


def audit_frame(records: Sequence[AuditRecord]) -> pd.DataFrame:
    """One row each, in order: ``at`` (UTC), ``actor``, ``action``, ``cache``, ``count``, ``mebibytes``, ``detail``.

    The detail is JSON on one line, empty where there is none.
    """
    rows = [
        (
            pd.to_datetime(each.at, unit="s", utc=True, errors="coerce"),
            one_line(each.actor),
            one_line(each.action),
            one_line(each.cache_name),
            each.count,
            each.bytes / 2**20,
            one_line(json.dumps(each.detail, ensure_ascii=False), _MAX_DETAIL) if each.detail else "",
        )
        for each in records
    ]
    return pd.DataFrame(rows, columns=["at", "actor", "action", "cache", "count", "mebibytes", "detail"])
