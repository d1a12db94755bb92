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
