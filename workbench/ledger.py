"""What was said, and what came of it: every score that was given out, in an append-only Delta table beside the lake's own.

`<lake>/_ledger/scores` holds one row a record, horizon, as_of, model and purpose. It is no part of a publish: it is read at its latest
state whatever version of the lake is pinned, and a writer's roll-back, compaction and vacuum leave it alone. Appends need no lock; each
batch is one commit under a key of its own, so that a batch written twice, by turns or at once, stands once, and half a batch never.
"""

from __future__ import annotations

import json
from datetime import datetime
from hashlib import sha256
from os import environ
from pathlib import Path

import pandas as pd
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from workbench.errors import WorkbenchError
from workbench.rows import arrow_schema, quoted, scratch
from workbench.schema import CLOSED, DUCKDB_TYPES, LOST, WON

PURPOSES = ("production", "backtest", "exploration")
# p within the horizon (null: ever) with its 80 % interval; total = its log-odds in points = start + points (JSON: the strongest by feature) + others.
KINDS = {"purpose": "text", "source": "text", "entity": "text", "id": "text", "horizon_days": "int", "as_of": "time", "model": "text", "lake_version": "int",
         "run": "text", "made_at": "time", "p": "float", "p_low": "float", "p_high": "float", "band": "text", "total": "float", "start": "float",
         "points": "text", "others": "float"}
TABLE = "_ledger/scores"
_SETTINGS: dict[str, str | None] = {"delta.appendOnly": "true", "delta.checkpointInterval": "10"}


def purpose_of_run(lake, *, as_of: datetime, source: str | None = None) -> str | None:
    """What the environment (WORKBENCH_PURPOSE, which a run sets) wants written: a purpose, or None, as in a notebook run by hand.

    A score is production only where the lake held nothing later than `as_of` when it was made; else it is a backtest.
    """
    purpose = environ.get("WORKBENCH_PURPOSE", "")
    if purpose and purpose not in PURPOSES:
        raise WorkbenchError(f"WORKBENCH_PURPOSE={purpose} is no purpose.", fix=f"One of {', '.join(PURPOSES)}, or none to write nothing.")
    latest = lake.latest_event(source) if purpose == "production" else None
    return "backtest" if latest is not None and latest > as_of else purpose or None


def write_scores(lake, frame: pd.DataFrame, *, purpose: str, model: str, as_of: datetime, lake_version: int, source: str | None, made_at: datetime,
                 run: str = "", entity: str = "lead", horizon_days: int | None = 90) -> int:
    """Append one batch: `frame` has one row a record with id and p, and may have p_low, p_high, band, total, start, points, others.

    The number of rows written: 0 where this purpose, source, entity, horizon, as_of and model were written before; what was said first stands.
    """
    if purpose not in PURPOSES:
        raise WorkbenchError(f"{purpose!r} is no purpose of a score.", fix=f"One of {', '.join(PURPOSES)}.")
    if frame["id"].isna().any() or frame["id"].duplicated().any() or not frame["p"].between(0, 1).all():
        raise WorkbenchError("Scores for the ledger need one row a record, each with an id and a p from 0 to 1.", fix="Leave out records without a score.")
    batch = {"purpose": purpose, "source": source, "entity": entity, "horizon_days": horizon_days, "as_of": as_of, "model": model}
    key = sha256(json.dumps([str(v) for v in batch.values()]).encode()).hexdigest()
    if frame.empty or (table := _made(lake.path / TABLE)).transaction_version(key) is not None:
        return 0
    told = frame.reindex(columns=list(KINDS)).assign(**batch, lake_version=lake_version, run=run, made_at=made_at)
    rows = pa.Table.from_pandas(told, arrow_schema(KINDS), preserve_index=False)
    try:
        write_deltalake(table, rows, mode="append", commit_properties=CommitProperties(max_commit_retries=200, app_transactions=[Transaction(key, 1)]))
    except CommitFailedError:
        if DeltaTable(lake.path / TABLE).transaction_version(key) is None:
            raise
        return 0  # another process wrote the same batch meanwhile
    return len(rows)


def _made(path: Path) -> DeltaTable:
    """The table at its latest version, made where there is none."""
    try:
        return DeltaTable(path) if DeltaTable.is_deltatable(str(path)) else DeltaTable.create(path, schema=Schema.from_arrow(arrow_schema(KINDS)), configuration=_SETTINGS)
    except DeltaError:
        return DeltaTable(path)  # another process made it meanwhile


def _rows_sql(lake) -> str:
    path, empty = lake.path / TABLE, ", ".join(f"null::{DUCKDB_TYPES[kind]} as {c}" for c, kind in KINDS.items())
    files = DeltaTable(path).file_uris() if DeltaTable.is_deltatable(str(path)) else []
    return f"read_parquet([{', '.join(map(quoted, files))}], union_by_name = true)" if files else f"(select {empty} where false)"


def scores(lake, *, purpose: str = "production", source: str | None = None, before: datetime | None = None) -> pd.DataFrame:
    """Every score of a purpose, of `source` (None: any) and of an as_of before `before`; columns as in KINDS, ordered by as_of, made_at, model, id."""
    only = f"purpose = {quoted(purpose)}" + (f" and source = {quoted(source)}" if source else "") + (f" and as_of < TIMESTAMP '{before}'" if before else "")
    return scratch().sql(f"select * from {_rows_sql(lake)} where {only} order by as_of, made_at, model, id").df()


def latest_run(lake, *, before: datetime, source: str | None, purpose: str = "production", entity: str = "lead", horizon_days: int | None = 90) -> pd.DataFrame:
    """The rows of the last batch whose as_of lies before `before`, of exactly this source (None: all sources together), entity and horizon."""
    horizon = "null" if horizon_days is None else horizon_days
    only = f"""purpose = {quoted(purpose)} and source is not distinct from {quoted(source) if source else "null"} and entity = {quoted(entity)}
        and horizon_days is not distinct from {horizon} and as_of < TIMESTAMP '{before}'"""
    return scratch().sql(f"""with b as (select * from {_rows_sql(lake)} where {only}) select * from b where (as_of, made_at, model) =
        (select (as_of, made_at, model) from b order by as_of desc, made_at desc, model limit 1) order by id""").df()


def outcomes(lake, said: pd.DataFrame, *, as_of: datetime) -> pd.DataFrame:
    """`said` (rows of `scores`; id, entity, as_of and horizon_days suffice) with what the lake tells of each record at `as_of`.

    state: open, won, lost, gone (deleted or merged), null = unknown to the lake; decided_at; event: won in (said as_of, + horizon], null until
    the horizon has passed (where it is `ever`: until decided). Rows with an event are what AUC, Brier score and ECE are reckoned on.
    """
    t, connection = f"TIMESTAMP '{as_of}'", scratch()
    told = [f"""select '{e}' as entity, id, coalesce(valid_to, 'infinity') > {t} as is_last,
        case when {WON[e]} then 'won' when {LOST[e]} then 'lost' when deleted_at <= {t} then 'gone' else 'open' end as state,
        case state when 'open' then null when 'gone' then least(deleted_at, valid_from) else least({CLOSED[e]}, valid_from) end as decided_at
        from {e}_versions where valid_from <= {t}""" for e in WON]
    connection.register("states", lake.sql(" union all ".join(told)).to_arrow_table())
    connection.register("said", said.reset_index(drop=True).reset_index(names="said_row")[["said_row", "id", "entity", "as_of", "horizon_days"]])
    found = connection.sql(f"""with wins as (select s.said_row, min(w.decided_at) as won_at from said s join states w on w.id = s.id and w.entity = s.entity
            and w.state = 'won' and w.decided_at > s.as_of group by 1)
        select n.state, n.decided_at, case when n.id is null then null when s.horizon_days is null then case n.state when 'open' then null else won_at is not null end
            when s.as_of + to_days(s.horizon_days::int) <= {t} then coalesce(won_at <= s.as_of + to_days(s.horizon_days::int), false) end as event
        from said s left join wins using (said_row) left join states n on n.id = s.id and n.entity = s.entity and n.is_last order by s.said_row""").df()
    return said.reset_index(drop=True).assign(state=found["state"], decided_at=found["decided_at"], event=found["event"].astype("boolean"))
