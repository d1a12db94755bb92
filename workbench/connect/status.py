"""How fresh each source is: what the last syncs left in table sync_state."""

from __future__ import annotations

from datetime import datetime

import pandas as pd

from workbench.rows import quoted


def sync_status(lake, now: datetime, source: str | None = None) -> pd.DataFrame:
    """One row a source and stream: last_success (UTC), lag_hours (from then to `now`), rows, changed, deleted and calls of the last sync, error ("" = none)."""
    where = "true" if source is None else f"source = {quoted(source)}"
    return lake.sql(f"""select source, stream, entity, succeeded_at as last_success, date_diff('second', succeeded_at, TIMESTAMP '{now}') / 3600.0 as lag_hours, n_rows as rows,
        n_changed as changed, n_deleted as deleted, n_calls as calls, coalesce(error, '') as error from sync_state where stream <> '' and {where} order by source, stream""").df()


def freshness(lake, now: datetime, source: str | None = None) -> list[dict]:
    """`sync_status` as plain values for a run's record and its report: last_success as text, lag_hours to a tenth."""
    told = sync_status(lake, now, source)
    told["last_success"], told["lag_hours"] = told["last_success"].dt.strftime("%Y-%m-%d %H:%M").fillna("never"), told["lag_hours"].round(1)
    return told.astype(object).where(told.notna(), None).to_dict("records")
