"""How records move through their stages, from versions alone: what was known when. A lead's stage is its status.

A spell = one stay of one record in one stage. It is told only where its beginning was seen: what came before a field's history began
(`history_from`), or before a record's first version where that is more than a day after its creation, is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd
from scipy.stats import kendalltau, theilslopes

from workbench.features.as_of import field_status
from workbench.features.snapshots import state_sql
from workbench.models.bands import wilson
from workbench.models.behaviour import CONVERTED, DAY, DEAD, Stories, incidence, median_days
from workbench.rows import of_source, scratch

STAGE = {"lead": "status", "deal": "stage"}
STILL = "still there"


@dataclass
class Spells:
    """Table spell on `connection`: id, k (the how-manieth of the record), stage, entered_at, left_at (null = still there), cohort (quarter of entry, UTC),
    next (a stage; converted or won, lost, deleted where `ended`; null = still there), days (until as_of where still there).

    why: the sentence that says why nothing can be said, else empty. n_unseen: spells whose beginning nobody saw; left out."""

    connection: duckdb.DuckDBPyConnection
    entity: str
    why: str
    n_unseen: int
    notes: list[str]


def stage_spells(s: Stories) -> Spells:
    """The spells of every record seen by as_of, those deleted later too: tables `<entity>_versions` (status or stage, the outcome, deleted_at) and `field`."""
    name, known, notes = STAGE[s.entity], _history(s), []
    for source, (status, _) in known.items():
        if status != "historized":
            notes.append(f"Of the {name} of {source}'s {s.entity}s only one value is known ({status.replace('_', ' ')}), without its history: nothing is said of how they moved.")
    told = {source: start for source, (status, start) in known.items() if status == "historized"}
    inside = " or ".join(of_source(source) for source in told) or "false"
    since = "greatest(from_at, case " + " ".join(f"when {of_source(source)} then TIMESTAMP '{t}'" for source, t in told.items() if pd.notna(t)) + " end)" if any(map(pd.notna, told.values())) else "from_at"
    versions = s.lake.sql(f"""select id, created_at, state, {since} as from_at, greatest(decided, {since}) as decided, to_at, origin, {since} > from_at as cut,
        case state when 'open' then coalesce(stage, 'none given') when 'won' then '{s.event}' when 'gone' then 'deleted' else state end as stage
        from ({state_sql(s.entity, s.as_of, s.source, f'{name}::varchar as stage')}) where ({inside}) and to_at > {since}""").to_arrow_table()  # type: ignore[attr-defined]
    con, t = scratch(), f"TIMESTAMP '{s.as_of}'"
    con.register("versions", versions)
    con.execute(f"""create table every_spell as select *, row_number() over w as k, lead(stage) over w as next, lead(state) over w <> 'open' as ended,
            case when lead(state) over w <> 'open' and lead(decided) over w > from_at then lead(decided) over w else lead(from_at) over w end as left_at
        from (select *, (stage, state = 'open') is distinct from lag((stage, state = 'open')) over (partition by id order by from_at) as begins from versions) where begins
        window w as (partition by id order by from_at)""")
    con.execute(f"""create table spell as select id, k, stage, from_at as entered_at, left_at, next, coalesce(ended, false) as ended, year(from_at) || '-Q' || quarter(from_at) as cohort,
        date_diff('microsecond', from_at, coalesce(left_at, {t})) / 86400e6 as days, k > 1 or not cut and from_at <= created_at + interval 1 day as seen from every_spell where state = 'open'""")
    n_unseen, n_moves = con.sql("select count(*) filter (where not coalesce(seen, false)), count(*) filter (where left_at is not null) from spell").fetchall()[0]
    con.execute("delete from spell where not coalesce(seen, false)")
    changed = con.sql("select 1 from versions where origin <> 'import' group by id having count(distinct stage) > 1 limit 1").fetchall()
    why = "" if told and changed else " ".join(notes) or f"No change of the {name} of any {s.entity} was recorded, so nothing is known of how they moved."
    if why:
        con.execute("delete from spell")
    return Spells(con, s.entity, why, n_unseen, notes)


def _history(s: Stories) -> dict[str, tuple[str, pd.Timestamp]]:
    """Source -> known_at and history_from of its stage."""
    rows = field_status(s.lake, s.entity).query("field == @STAGE[@s.entity]").set_index("source")
    held = s.lake.sources().query("entity == @s.entity")["source"]  # type: ignore[attr-defined]
    return {source: tuple(rows.loc[source if source in rows.index else "", ["known_at", "history_from"]]) for source in held if s.source in (None, source)}  # type: ignore[misc]


def stage_transitions(p: Spells, *, by_cohort: bool = False) -> pd.DataFrame:
    """Where the spells of each stage led: [cohort], from, to (STILL where not left yet), n, n_entered, share of those that entered, low, high (Wilson)."""
    group = "cohort, stage" if by_cohort else "stage"
    rows = p.connection.sql(f"""select {group.replace('stage', 'stage as "from"')}, coalesce(next, '{STILL}') as "to", count(*) as n, sum(n) over (partition by {group})::bigint as n_entered, any_value(ids) as ids
        from (select *, count(distinct id) over (partition by {group}) as ids, avg(k) over (partition by stage) as place from spell)
        group by {group}, coalesce(next, '{STILL}') order by {'cohort, ' if by_cohort else ''}any_value(place), stage, n desc, "to" """).df()
    return _with_share(rows, "n", "ids")


def _with_share(rows: pd.DataFrame, n: str, ids: str) -> pd.DataFrame:
    """share = n / n_entered with Wilson's interval, in which the entries of one record count as one."""
    share = rows[n] / rows["n_entered"]
    bounds = [wilson(v, m) for v, m in zip(share, rows[ids], strict=True)]
    return rows.drop(columns=ids).assign(share=share, low=[b[0] for b in bounds], high=[b[1] for b in bounds])


def leakage(p: Spells, *, within_days: int = 90) -> pd.DataFrame:
    """What became of those that entered each stage, in the order of the stages: stage, n_entered, n_moved (to another stage), n_ended (converted, won), n_lost
    (lost or deleted), n_still, share lost so far, low, high (Wilson); lost_within, lost_low, lost_high = lost within so many days of entry (`incidence`, leaving otherwise competes)."""
    rows = p.connection.sql(f"""select stage, count(*) as n_entered, count(*) filter (where not ended and next is not null) as n_moved, count(*) filter (where {_LOST[False]}) as n_ended,
        count(*) filter (where {_LOST[True]}) as n_lost, count(*) filter (where next is null) as n_still, count(distinct id) as ids from spell group by stage order by avg(k), stage""").df()
    ids = rows["ids"]
    rows, out = _with_share(rows, "n_lost", "ids"), []
    for stage, n in zip(rows["stage"], ids, strict=True):
        days, cause = _arrays(p, "stage = ?", [stage], f"case when next is null then 0 when {_LOST[True]} then {DEAD} else {CONVERTED} end")
        out.append(incidence(days, cause, of=(DEAD,), at=(within_days,), n_records=n)[["share", "low", "high"]].iloc[0].to_numpy())
    return rows.assign(**dict(zip(("lost_within", "lost_low", "lost_high"), np.array(out).reshape(-1, 3).T, strict=True)))


_LOST = {True: "ended and next in ('lost', 'deleted')", False: "ended and next not in ('lost', 'deleted')"}


def _arrays(p: Spells, where: str, values: list, cause: str = f"case when next is null then 0 else {CONVERTED} end") -> tuple[np.ndarray, np.ndarray]:
    found = p.connection.execute(f"select days, {cause} as cause from spell where {where}", values).fetchnumpy()
    return found["days"], found["cause"]


def stage_dwell(p: Spells, *, by_cohort: bool = False) -> pd.DataFrame:
    """How long a stay lasts, those that still last censored at as_of (Kaplan-Meier): [cohort], stage, n, n_left, median_days (nan = not reached), low, high."""
    group, out = "stage, cohort" if by_cohort else "stage", []
    for row in p.connection.sql(f"select {group}, count(*) as n, count(next) as n_left, count(distinct id) as ids from spell group by {group} order by {'cohort, ' if by_cohort else ''}avg(k), stage").df().to_dict("records"):
        days, cause = _arrays(p, "stage = ? and (cohort = ? or ?)", [row["stage"], row.get("cohort", ""), not by_cohort])
        out.append({k: v for k, v in row.items() if k != "ids"} | median_days(days, cause, row["ids"]))
    return pd.DataFrame(out, columns=[*(["cohort"] if by_cohort else []), "stage", "n", "n_left", "median_days", "low", "high"])


def velocity(s: Stories) -> pd.DataFrame:
    """Each whole month (UTC), from when nine of ten conversions of the first records had had their time: month_on, n_created, n_converted, median_days from creation to conversion of those that converted in it, low, high.

    The interval is that of the median by order statistics (binomial), for six or more."""
    if s.frame.empty:
        return pd.DataFrame(columns=["month_on", "n_created", "n_converted", "median_days", "low", "high"])
    created, ended = (s.frame[c].dt.to_period("M") for c in ("created_at", "end_at"))
    won = s.frame["cause"] == CONVERTED
    first = s.frame["created_at"].min() + (s.frame.loc[won, "days"].quantile(0.9) if won.any() else 0) * DAY
    months = pd.period_range(first.to_period("M") + 1, (pd.Timestamp(s.as_of) + pd.Timedelta(seconds=1)).to_period("M") - 1, freq="M")
    days, out = s.frame[won].groupby(ended[won])["days"].apply(lambda v: np.sort(v.to_numpy())), []
    for month, n in created.value_counts().reindex(months, fill_value=0).items():
        d = days.get(month, np.array([]))
        half = 0.98 * np.sqrt(len(d))
        low, high = (d[max(int(np.floor(len(d) / 2 - half)), 0)], d[min(int(np.ceil(len(d) / 2 + half)), len(d) - 1)]) if len(d) >= 6 else (np.nan, np.nan)
        out.append((month.start_time, n, len(d), np.median(d) if len(d) else np.nan, low, high))
    return pd.DataFrame(out, columns=["month_on", "n_created", "n_converted", "median_days", "low", "high"])


def velocity_trends(months: pd.DataFrame) -> pd.DataFrame:
    """Change a year of n_converted and of median_days: what, n (months), change, low, high (Theil-Sen, 95 %), p (Kendall), holds (p of 2.5 % or less: two are looked at)."""
    out = []
    for what in ("n_converted", "median_days"):
        v = months[what].dropna()
        if len(v) >= 12:
            t, (slope, _, low, high) = v.index / 12, theilslopes(v, v.index / 12)
            p = kendalltau(t, v).pvalue
            out.append((what, len(v), slope, low, high, p, bool(p <= 0.025)))
    return pd.DataFrame(out, columns=["what", "n", "change", "low", "high", "p", "holds"])
