"""The spine of a score: which records stood open when, what was known of them then, and what came within the horizon.

Grid = every origin (weekly; every 28 days above a million rows) at which a record was open. Creation = one row a record,
at its creation: the only honest moment where an export carries no history (decision record 0002).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pandas as pd

from workbench.errors import WorkbenchError
from workbench.features.as_of import HALF_LIFE, TEXT_LEVELS, as_of_features, custom_fields, field_status
from workbench.rows import of_source, scratch
from workbench.schema import CLOSED, LOST, NEVER_LEARNED, VERSION, WON

MAX_WEEKLY = 1_000_000  # rows of a weekly grid; above, every fourth week


@dataclass
class Snapshots:
    """What a score learns from and is judged on.

    frame: one row a record and origin: id, as_of, group (rows that must stay on one side of a split), order, days_to_win (null: never, so far),
    days_known (from the origin to `as_of`), event (True, False, or null where the horizon has not passed), then `features`. open: the same for the
    records to score now, with name and owner. assumed: features that rest on a mapping's word. excluded: field, reason.
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
    half_life: float = HALF_LIFE  # of `engagement`, in days

    def at_horizon(self, days: float) -> pd.DataFrame:
        """`frame` with the event of another horizon: won within so many days; null where they have not passed."""
        known = self.frame["days_known"] >= days
        return self.frame.assign(event=(self.frame["days_to_win"] <= days).astype("boolean").mask(~known))


def snapshots(lake, entity: str, *, as_of: datetime, horizon_days: int = 90, source: str | None = None,
              score_at: str = "auto", allow: list[str] | None = None) -> Snapshots:
    """Snapshots of `entity` (lead or deal) known at `as_of`: table columns created_at, closed_at (converted_at) and the outcome.

    event = the record was won in (origin, origin + horizon]; lost, deleted or still open = not. Where the export gives no date of
    creation, or none of closing, the event is the outcome that it shows; a note says so.
    """
    if score_at not in ("auto", "grid", "creation"):
        raise WorkbenchError(f"score_at {score_at!r} is unknown.", fix="Use auto, grid or creation.")
    if not 1 <= horizon_days <= 3650:
        raise WorkbenchError(f"A horizon of {horizon_days} days makes no sense.", fix="Use 1 to 3650.")
    records = seen_records(lake, entity, as_of, source)
    dated = bool(len(records)) and records["created_at"].notna().mean() > 0.5
    closings = not records["closed_unknown"].sum() * 2 > (~records["is_open"] & records["gone_at"].isna()).sum()
    notes: list[str] = []
    if dated:
        records = _without(records, records["created_at"].isna(), "have no creation date; they cannot be placed in time", notes)
    if dated and closings:
        records = _without(records, records["closed_unknown"], "are decided, but nobody knows when", notes)
    elif dated:
        notes.append("Hardly any record says when it was decided: the event is the outcome that the export shows, whenever it came.")
    how = score_at if score_at != "auto" else ("grid" if dated and closings and _has_history(lake, entity, as_of, source) else "creation")
    if how == "grid" and len(records) and not (dated and closings):
        raise WorkbenchError(f"These {entity}s cannot be followed over time: most lack the date of creation or of closing.", fix="Use score_at auto or creation.")
    spine = _grid(lake, entity, as_of, horizon_days, source) if how == "grid" else _at_creation(records, as_of, horizon_days, dated, closings)
    spine = spine[spine["id"].isin(records["id"])].reset_index(drop=True)
    now = records[records["is_open"]].assign(as_of=pd.Timestamp(as_of))
    if dated and how == "creation":  # no history: what stood at creation is all that may be said of an open record
        now["as_of"] = now["seen_at"]
    values = as_of_features(lake, entity, pd.concat([spine[["id", "as_of"]], now[["id", "as_of"]]], ignore_index=True), allow)
    known = {*values.columns, *(c for e in (entity, "account", "product", "activity") for c in lake.columns(e))}
    if unknown := sorted(set(allow or []) - known):
        raise WorkbenchError(f"allow names no field: {', '.join(unknown)}.", fix="The table of excluded fields in the report names those that can be let in.")
    names, excluded = _kept(lake, entity, values.iloc[: len(spine)], source, how, allow or [])
    if let_in := sorted(set(allow or []) & set(names)):
        notes.append(f"Let in by name, although nobody knows when they were filled: {', '.join(let_in)}.")
    frame = pd.concat([spine, values.iloc[: len(spine)][names]], axis=1)
    scored = pd.concat([now[["id", "as_of", "created_at", "created_order"]].reset_index(drop=True), values.iloc[len(spine):][names].reset_index(drop=True)], axis=1)
    frame["group"] = frame["id"] if dated else _twins(lake, entity, frame["id"], as_of)
    return Snapshots(entity, source, as_of, horizon_days, how, "time" if dated else "grouped", frame, _with_names(lake, entity, scored, as_of),
                     names, _assumed(lake, entity, names, source), excluded, notes)


def _without(records: pd.DataFrame, bad: pd.Series, why: str, notes: list[str]) -> pd.DataFrame:
    if bad.any():
        notes.append(f"{int(bad.sum()):,} records {why}, and are left out.")
    return records[~bad]


def state_sql(entity: str, as_of: datetime, source: str | None, more: str = "null as field") -> str:
    """SQL: every version up to as_of: from_at, to_at, state (open, won, lost, gone), told_at (the record's word on when it was decided), decided; `more` columns."""
    t = f"TIMESTAMP '{as_of}'"
    return f"""select *, case state when 'open' then null when 'gone' then least(deleted_at, from_at) else least(told_at, from_at) end as decided from (
        select {more}, id, created_at, created_order, deleted_at, origin, valid_from as from_at, coalesce(valid_to, 'infinity') as to_at, {CLOSED[entity]} as told_at,
        case when {WON[entity]} then 'won' when {LOST[entity]} then 'lost' when deleted_at <= {t} then 'gone' else 'open' end as state
        from {entity}_versions where valid_from <= {t} and {of_source(source)})"""


def seen_records(lake, entity: str, as_of: datetime, source: str | None) -> pd.DataFrame:
    """One row a record first seen by `as_of`: id, created_at, created_order, seen_at (its first version, not before created_at), closed_at, won,
    gone_at, is_open, closed_unknown (decided in an export that does not say when)."""
    return lake.sql(f"""with v as ({state_sql(entity, as_of, source)})
        select id, created_at, created_order, greatest(created_at, first_at) as seen_at, decided as closed_at, state = 'won' as won, deleted_at as gone_at,
            state = 'open' as is_open, state in ('won', 'lost') and told_at is null and origin = 'import' as closed_unknown
        from v join (select id, min(from_at) as first_at from v group by id) using (id) where to_at > TIMESTAMP '{as_of}' order by id""").df()


def _has_history(lake, entity: str, as_of: datetime, source: str | None) -> bool:
    """Some record's changes were recorded (a plain export has none), or activities tell of it."""
    known = f"{of_source(source)} and valid_from <= TIMESTAMP '{as_of}'"
    return bool(lake.sql(f"select 1 from {entity}_versions where {known} and origin <> 'import' group by id having count(*) > 1 limit 1").fetchall()
                or lake.sql(f"select 1 from activity_versions where {entity}_id is not null and {known} limit 1").fetchall())


def _grid(lake, entity: str, as_of: datetime, horizon: int, source: str | None) -> pd.DataFrame:
    """id, as_of (origin), order, days_to_win, days_known, event for every origin at which the record was open: a week, two weeks ... before `as_of`."""
    states = lake.sql(f"select id, created_at, from_at, to_at, state, decided from ({state_sql(entity, as_of, source)})").to_arrow_table()  # noqa: F841
    t, local = f"TIMESTAMP '{as_of}'", scratch()
    # A sync may see late that a record was closed: it counts as open only until its next closing.
    local.execute(f"""create table spans as select id, epoch_us({t}) - epoch_us(least(to_at, closes, {t})) as young, epoch_us({t}) - epoch_us(greatest(from_at, created_at)) as old
        from (select *, min(decided) over (partition by id order by from_at rows between 1 following and unbounded following) as closes from states)
        where state = 'open' and old > young and old > 0""")
    weeks = local.sql("select coalesce(sum(old - young), 0) / (7 * 86400e6) from spans").fetchall()[0][0]
    wins = local.sql("select distinct id, decided as won_at from states where state = 'won'").to_arrow_table()  # noqa: F841
    step, ahead = (7 if weeks <= MAX_WEEKLY else 28) * 86_400_000_000, f"s.as_of + interval {horizon} day"
    frame = local.sql(f"""select s.id, s.as_of, epoch_us(s.as_of) as "order", epoch_us(w.won_at - s.as_of) / 86400e6 as days_to_win, epoch_us({t} - s.as_of) / 86400e6 as days_known,
            case when {ahead} <= {t} then coalesce(w.won_at <= {ahead}, false) end as event
        from (select id, make_timestamp(epoch_us({t}) - k * {step}) as as_of from
            (select id, unnest(range(young // {step} + 1, old // {step} + 1)) as k from spans)) s
        asof left join wins w on s.id = w.id and s.as_of < w.won_at order by s.id, s.as_of""").df()
    return frame.astype({"event": "boolean"})


def _at_creation(records: pd.DataFrame, as_of: datetime, horizon: int, dated: bool, closings: bool) -> pd.DataFrame:
    """id, as_of, order, days_to_win, days_known, event: one row a record, when it was first seen (undated: the export)."""
    spine = records.assign(as_of=records["seen_at"] if dated else pd.Timestamp(as_of))
    day, columns = pd.Timedelta(days=1), ["id", "as_of", "order", "days_to_win", "days_known", "event"]
    spine["days_to_win"] = ((records["closed_at"] - spine["as_of"]) / day).where(records["won"] & (dated and closings))
    spine["days_known"] = (pd.Timestamp(as_of) - spine["as_of"]) / day
    if not dated:
        spine["order"] = spine["created_order"].rank(method="first").fillna(0)
        spine["event"] = spine["won"].astype("boolean").mask(spine["is_open"])
        return spine[columns]
    until, spine["order"] = spine["as_of"] + timedelta(days=horizon), spine["as_of"].astype("int64")
    # Won at the instant of creation counts: exports often give days without a time. Closed before it = never open.
    won = spine["won"] & (spine["closed_at"] <= until) if closings else spine["won"]
    spine["event"] = won.astype("boolean").mask(until > pd.Timestamp(as_of))
    return spine.loc[~(closings & (spine["closed_at"] < spine["as_of"])), columns]


def _assumed(lake, entity: str, names: list[str], source: str | None) -> list[str]:
    """Features that rest on a mapping's word: their own field, or the one that has_..., account_... or product_... is made of."""
    told = {e: field_status(lake, e).query("known_at == 'assumed'") for e in (entity, "account", "product")}
    mine = {e: set(rows.loc[(rows["source"] == source) | (source is None), "field"]) for e, rows in told.items()}
    return sorted(n for n in names if n.removeprefix("has_") in mine[entity] or any(n.startswith(e) and n.removeprefix(e + "_") in mine[e] for e in mine))


def _kept(lake, entity: str, values: pd.DataFrame, source: str | None, how: str, allow: list[str]) -> tuple[list[str], pd.DataFrame]:
    """Features that vary, and why the other fields are out."""
    excluded = []
    status = field_status(lake, entity)
    mine = status[status["known_at"].isin(NEVER_LEARNED) & ~status["field"].isin(allow) & (status["source"] != "")]
    mine = mine if source is None else mine[mine["source"] == source]
    reasons = {"current_only": "the export shows only its latest value, which may have been set after the outcome",
               "outcome": "it is known only when the story has ended"}
    excluded += [{"field": r["field"], "reason": reasons[r["known_at"]]} for r in mine.to_dict("records")]
    custom = custom_fields(lake, entity, allow)
    told = set(status.loc[~status["known_at"].isin(NEVER_LEARNED) & ((status["source"] == source) | (source is None)), "field"])
    excluded += [{"field": c, "reason": f"free text or a key: more than {TEXT_LEVELS} different values"} for c in lake.columns(entity)
                 if c.startswith("x_") and c in told and c not in custom]
    names = []
    for name in values.columns:
        if how == "creation" and name in ("age_days", "days_since_change"):
            continue  # zero by construction
        if values[name].nunique(dropna=False) > 1:
            names.append(name)
        elif name in custom and name in told or values[name].notna().any() and not name.startswith(("n_", "has_")):
            excluded.append({"field": name, "reason": "it has one value only"})
    return names, pd.DataFrame(excluded, columns=["field", "reason"]).drop_duplicates("field").sort_values("field", ignore_index=True)


def _twins(lake, entity: str, ids: pd.Series, as_of: datetime) -> pd.Series:
    """Records alike in every field but the ids, the outcome too, share a group: without dates they may be one lead entered twice."""
    rows = lake.read(entity, as_of).set_index("id").drop(columns=[*(name for name, _, _ in VERSION if name != "id"), "created_order"])
    return ids.map(pd.util.hash_pandas_object(rows, index=False).astype(str)).fillna(ids)


def _with_names(lake, entity: str, scored: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    names = lake.sql(f"select e.id, coalesce(e.name, e.id) as name, u.name as owner from {entity} e left join user u on u.id = e.owner_id", as_of).df()
    return scored.merge(names, on="id", how="left")
