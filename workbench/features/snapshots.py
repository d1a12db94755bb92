"""The spine of a score: which records stood open when, what was known of them then, and what came within the horizon.

Grid = every origin (weekly; every 28 days above a million rows) at which a record was open. Creation = one row a record,
at its creation: the only honest moment where an export carries no history (decision record 0002).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from workbench.errors import WorkbenchError
from workbench.features.as_of import TEXT_LEVELS, as_of_features, custom_fields, field_status
from workbench.schema import VERSION

_WON = {"lead": "is_converted", "deal": "is_won"}
_LOST = {"lead": "coalesce(is_lost, not is_converted)", "deal": "not is_won"}
_NEVER_FEATURES = ("current_only", "outcome")


@dataclass
class Snapshots:
    """What a score learns from and is judged on.

    frame: one row a record and origin: id, as_of, group (rows that must stay on one side of a split), order, event
    (True, False, or null where the horizon has not passed), then `features`. open: the same for the records to score now,
    with name and owner. assumed: features that rest on a mapping's word. excluded: field, reason.
    """

    entity: str
    source: str | None
    as_of: datetime
    horizon_days: int
    score_at: str
    evaluation: str
    frame: pd.DataFrame
    open: pd.DataFrame
    features: list[str]
    assumed: list[str]
    excluded: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def snapshots(lake, entity: str, *, as_of: datetime, horizon_days: int = 90, source: str | None = None,
              score_at: str = "auto", allow: list[str] | None = None) -> Snapshots:
    """Snapshots of `entity` (lead or deal) known at `as_of`: table columns created_at, closed_at and the outcome.

    event = the record was won in (origin, origin + horizon]; lost, deleted or still open = not. Records without any date
    are judged on the outcome that the export shows.
    """
    if score_at not in ("auto", "grid", "creation"):
        raise WorkbenchError(f"score_at {score_at!r} is unknown.", fix="Use auto, grid or creation.")
    if not 1 <= horizon_days <= 3650:
        raise WorkbenchError(f"A horizon of {horizon_days} days makes no sense.", fix="Use 1 to 3650.")
    records = _records(lake, entity, as_of, source)
    dated = bool(len(records)) and records["created_at"].notna().mean() > 0.5
    history = _has_history(lake, entity, as_of, source)
    how = score_at if score_at != "auto" else ("grid" if dated and history else "creation")
    notes = []
    if dated and records["created_at"].isna().any():
        notes.append(f"{int(records['created_at'].isna().sum()):,} records have no creation date; they cannot be placed in time and are left out.")
        records = records[records["created_at"].notna()]
    if how == "grid":
        spine = _grid(records, as_of, horizon_days)
    else:
        spine = _at_creation(records, as_of, horizon_days, dated)
    now = records[records["is_open"]].assign(as_of=pd.Timestamp(as_of))
    if dated and how == "creation":  # no history: what stood at creation is all that may be said of an open record
        now["as_of"] = now["created_at"]
    both = pd.concat([spine[["id", "as_of"]], now[["id", "as_of"]]], ignore_index=True)
    values = as_of_features(lake, entity, both, allow)
    names, excluded = _kept(lake, entity, values.iloc[: len(spine)], source, how, allow or [])
    frame = pd.concat([spine.reset_index(drop=True), values.iloc[: len(spine)][names].reset_index(drop=True)], axis=1)
    scored = pd.concat([now[["id", "as_of", "created_at", "created_order"]].reset_index(drop=True), values.iloc[len(spine):][names].reset_index(drop=True)], axis=1)
    frame["group"] = frame["id"] if dated else _twins(lake, entity, frame["id"], as_of)
    status = field_status(lake, entity)
    told = status[(status["known_at"] == "assumed") & ((status["source"] == source) | (source is None))]["field"]
    return Snapshots(entity, source, as_of, horizon_days, how, "time" if dated else "grouped", frame, _with_names(lake, entity, scored, as_of),
                     names, sorted(set(told) & set(names)), excluded, notes)


def _of_source(source: str | None) -> str:
    return "true" if source is None else "id[:{}] = '{}:'".format(len(source) + 1, source.replace("'", "''"))


def _records(lake, entity: str, as_of: datetime, source: str | None) -> pd.DataFrame:
    """One row a record first seen by `as_of`: id, created_at, created_order, closed_at, won, is_open, gone_at."""
    t = f"TIMESTAMP '{as_of}'"
    return lake.sql(f"""with last as (select *, row_number() over (partition by id order by valid_from desc) as back from {entity}_versions
            where valid_from <= {t} and {_of_source(source)})
        select id, created_at, created_order, coalesce(closed_at, {'converted_at' if entity == 'lead' else 'null'}) as closed_at,
            {_WON[entity]} as won, coalesce({_LOST[entity]}, false) as lost, deleted_at as gone_at,
            deleted_at is null and not coalesce({_WON[entity]}, false) and not coalesce({_LOST[entity]}, false) as is_open
        from last where back = 1 order by id""").df()


def _has_history(lake, entity: str, as_of: datetime, source: str | None) -> bool:
    """Some record's changes were recorded (a plain export has none), or activities tell of it."""
    changed = lake.sql(f"""select count(*) from (select id from {entity}_versions where {_of_source(source)} and valid_from <= TIMESTAMP '{as_of}'
        and origin <> 'import' group by id having count(*) > 1)""").fetchall()[0][0]
    linked = lake.sql(f"select count(*) from (select 1 from activity_versions where {entity}_id is not null and {_of_source(source)} limit 1)").fetchall()[0][0]
    return bool(changed or linked)


def _grid(records: pd.DataFrame, as_of: datetime, horizon: int) -> pd.DataFrame:
    """id, as_of (origin), order, event for every origin at which the record was open."""
    if records.empty:
        return _empty_spine()
    first = records["created_at"].min()
    end = records[["closed_at", "gone_at"]].min(axis=1).fillna(pd.Timestamp(as_of) + timedelta(days=1))
    weeks = ((end - records["created_at"]).dt.days.clip(lower=0) / 7).sum()
    step = 7 if weeks <= 1_000_000 else 28
    latest = pd.Timestamp(as_of)
    origins = pd.DatetimeIndex([latest - timedelta(days=step * k) for k in range(int((latest - first).days / step), 0, -1)]).as_unit("us")
    low = np.searchsorted(origins.values, records["created_at"].values.astype("datetime64[us]"), side="left")
    high = np.searchsorted(origins.values, end.values.astype("datetime64[us]"), side="left")
    count = np.maximum(high - low, 0)
    row = np.repeat(np.arange(len(records)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    spine = records.iloc[row].reset_index(drop=True)
    spine["as_of"] = origins[place]
    return _labelled(spine, as_of, horizon)


def _at_creation(records: pd.DataFrame, as_of: datetime, horizon: int, dated: bool) -> pd.DataFrame:
    if records.empty:
        return _empty_spine()
    spine = records.copy()
    if dated:
        spine["as_of"] = spine["created_at"]
        return _labelled(spine, as_of, horizon)
    spine["as_of"] = pd.Timestamp(as_of)
    spine["order"] = spine["created_order"].rank(method="first").fillna(0)
    spine["event"] = spine["won"].astype("boolean").mask(spine["is_open"] & spine["won"].isna())
    return spine[["id", "as_of", "order", "event"]]


def _labelled(spine: pd.DataFrame, as_of: datetime, horizon: int) -> pd.DataFrame:
    until = spine["as_of"] + timedelta(days=horizon)
    won = spine["won"].fillna(False).astype(bool) & (spine["closed_at"] > spine["as_of"]) & (spine["closed_at"] <= until)
    if (spine["closed_at"] == spine["as_of"]).any():  # a date without a time: created and won on one day
        won |= spine["won"].fillna(False).astype(bool) & (spine["closed_at"] == spine["as_of"])
    spine["event"] = won.astype("boolean").mask(until > pd.Timestamp(as_of))
    spine["order"] = spine["as_of"].astype("int64")
    return spine[["id", "as_of", "order", "event"]]


def _empty_spine() -> pd.DataFrame:
    return pd.DataFrame({"id": pd.Series(dtype="str"), "as_of": pd.Series(dtype="datetime64[us]"), "order": pd.Series(dtype="float"),
                         "event": pd.Series(dtype="boolean")})


def _kept(lake, entity: str, values: pd.DataFrame, source: str | None, how: str, allow: list[str]) -> tuple[list[str], pd.DataFrame]:
    """Features that vary, and why the other fields are out."""
    excluded = []
    status = field_status(lake, entity)
    mine = status[status["known_at"].isin(_NEVER_FEATURES) & ~status["field"].isin(allow) & (status["source"] != "")]
    mine = mine if source is None else mine[mine["source"] == source]
    reasons = {"current_only": "the export shows only its latest value, which may have been set after the outcome",
               "outcome": "it is known only when the story has ended"}
    excluded += [{"field": r.field, "reason": reasons[r.known_at]} for r in mine.itertuples()]
    custom = custom_fields(lake, entity, allow)
    told = set(status.loc[~status["known_at"].isin(_NEVER_FEATURES), "field"])
    excluded += [{"field": c, "reason": f"free text or a key: more than {TEXT_LEVELS} different values"} for c in lake.columns(entity)
                 if c.startswith("x_") and c in told and c not in custom]
    names = []
    for name in values.columns:
        if how == "creation" and name in ("age_days", "days_since_change"):
            continue  # zero by construction
        if values[name].nunique(dropna=False) > 1:
            names.append(name)
        elif name in custom or values[name].notna().any() and not name.startswith(("n_", "has_")):
            excluded.append({"field": name, "reason": "it has one value only"})
    return names, pd.DataFrame(excluded, columns=["field", "reason"]).drop_duplicates("field").sort_values("field", ignore_index=True)


def _twins(lake, entity: str, ids: pd.Series, as_of: datetime) -> pd.Series:
    """Records alike in every field but the ids, the outcome too, share a group: without dates they may be one lead entered twice."""
    rows = lake.read(entity, as_of).set_index("id").drop(columns=[*(name for name, _, _ in VERSION if name != "id"), "created_order"])
    return ids.map(pd.util.hash_pandas_object(rows, index=False).astype(str)).fillna(ids)


def _with_names(lake, entity: str, scored: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    names = lake.sql(f"select e.id, coalesce(e.name, e.id) as name, u.name as owner from {entity} e left join user u on u.id = e.owner_id", as_of).df()
    return scored.merge(names, on="id", how="left")
