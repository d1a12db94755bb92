"""What was said: every score that was given out, in an append-only Delta table beside the lake's own (what came of it: models/changes.py).

`<lake>/_ledger/scores`: one row a record, horizon, as_of, model and purpose. It is no part of a publish: it is read at its latest state whatever version
of the lake is pinned. Appends need no lock; a batch is one commit under a key of its own, so it stands once however often, and by whom, it is written.
"""

import json
from datetime import datetime
from hashlib import sha256
from os import environ

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError
from filelock import FileLock

from workbench.errors import WorkbenchError
from workbench.rows import ARROW, quoted, scratch
from workbench.settings import instant

TABLE, PURPOSES = "_ledger/scores", ("production", "backtest", "exploration", "crm")  # crm: what the CRM's own scores said
# p within the horizon (null: ever) with its 80 % interval; total = its log-odds in points = start + points (JSON: the strongest by feature) + others.
_KINDS = {"time": "as_of made_at", "int": "horizon_days lake_version", "text": "purpose source entity id model run band points", "float": "p p_low p_high total start others"}
SCHEMA = pa.schema([(name, ARROW[kind]) for kind, names in _KINDS.items() for name in names.split()])


def this_run(lake, *, as_of: datetime, source: str | None = None) -> dict:
    """purpose, run and made_at of what is written, as a run tells them in its environment; {} = write nothing, as in a notebook run by hand.

    Production of an as_of that the lake held more than when it was made is a backtest."""
    purpose = environ.get("WORKBENCH_PURPOSE")
    later = purpose == "production" and (lake.latest_event(source) or as_of) > as_of
    told = {"purpose": "backtest" if later else purpose, "run": environ.get("WORKBENCH_RUN", ""), "made_at": instant(environ.get("WORKBENCH_STARTED_AT"))}
    return told if purpose else {}


def write_scores(lake, frame: pd.DataFrame, *, purpose: str, model: str, as_of: datetime, lake_version: int, source: str | None, made_at: datetime,
                 run: str = "", entity: str = "lead", horizon_days: int | None = 90) -> int:
    """Append one batch: `frame` has one row a record with id and p, and may have p_low, p_high, band, total, start, points, others.

    The number of rows written: 0 where, for this purpose, source, entity, horizon and as_of, the model or (a model trained again differs in its last digits)
    the same p to six digits was written before; what was said first stands.
    """
    if purpose not in PURPOSES or made_at is None:
        raise WorkbenchError(f"Scores of purpose {purpose!r}, made at {made_at}, cannot be kept.", fix=f"Give a time (made_at, WORKBENCH_STARTED_AT) and a purpose: {', '.join(PURPOSES)}.")
    if frame["id"].isna().any() or frame["id"].duplicated().any() or not frame["p"].between(0, 1).all():
        raise WorkbenchError("Scores for the ledger need one row a record, each with an id and a p from 0 to 1.", fix="Leave out records without a score.")
    batch = {"purpose": purpose, "source": source, "entity": entity, "horizon_days": horizon_days, "as_of": as_of, "model": model}
    content = np.sort(pd.util.hash_pandas_object(frame[["id"]].assign(p=frame["p"].round(6)), index=False).to_numpy()).tobytes()
    keys = [sha256(json.dumps([str(v) for v in (batch | {"model": said}).values()]).encode()).hexdigest() for said in (model, sha256(content).hexdigest())]
    path = lake.path / TABLE
    if not DeltaTable.is_deltatable(str(path)):
        with FileLock(lake.path / ".ledger.lock"):  # of two that make the table at once the later would make it again
            if not DeltaTable.is_deltatable(str(path)):
                DeltaTable.create(path, schema=Schema.from_arrow(SCHEMA), configuration={"delta.appendOnly": "true", "delta.checkpointInterval": "10"})
    table = DeltaTable(path)
    if frame.empty or any(table.transaction_version(key) is not None for key in keys):
        return 0
    told = frame.reindex(columns=SCHEMA.names).assign(**batch, lake_version=lake_version, run=run, made_at=made_at)
    try:
        write_deltalake(table, pa.Table.from_pandas(told, SCHEMA, preserve_index=False), mode="append",
                        commit_properties=CommitProperties(max_commit_retries=200, app_transactions=[Transaction(key, 1) for key in keys]))
    except CommitFailedError:
        if all(DeltaTable(path).transaction_version(key) is None for key in keys):
            raise
        return 0  # another process wrote the same batch meanwhile
    return len(told)


def _said(lake, query: str) -> pd.DataFrame:
    """The rows of `query` over view said: the table at its latest version, no row where nothing was written yet."""
    connection, path = scratch(), lake.path / TABLE
    files = DeltaTable(path).file_uris() if DeltaTable.is_deltatable(str(path)) else []
    connection.register("said", connection.read_parquet(files, union_by_name=True) if files else SCHEMA.empty_table())
    return connection.sql(query).df()


def scores(lake, *, purpose: str = "production", source: str | None = None, before: datetime | None = None) -> pd.DataFrame:
    """Every score of a purpose, of `source` (None: any) and of an as_of before `before`; columns as in SCHEMA, ordered by as_of, made_at, model, id."""
    only = f"purpose = {quoted(purpose)}" + (f" and source = {quoted(source)}" if source else "") + (f" and as_of < TIMESTAMP '{before}'" if before else "")
    return _said(lake, f"from said where {only} order by as_of, made_at, model, id")


def latest_run(lake, *, before: datetime, source: str | None, purpose: str = "production", entity: str = "lead", horizon_days: int | None = 90) -> pd.DataFrame:
    """The rows of the last batch whose as_of lies before `before`, of exactly this source (None: all sources together), entity and horizon."""
    same = f"purpose = {quoted(purpose)} and entity = {quoted(entity)} and as_of < TIMESTAMP '{before}' and source " + (f"= {quoted(source)}" if source else "is null")
    same += " and horizon_days " + ("is null" if horizon_days is None else f"= {horizon_days}")
    return _said(lake, f"with mine as (from said where {same}) from mine where (as_of, made_at, model) = "
                 "(select (as_of, made_at, model) from mine order by as_of desc, made_at desc, model limit 1) order by id")
