"""How records move through their stages, from versions alone: what was known when. A lead's stage is its status. The SQL is in funnel.sql.

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
from workbench.models.behaviour import DEAD, Stories, incidence, median_days, percent, question, with_wilson
from workbench.rows import of_source, scratch

STAGE = {"lead": "status", "deal": "stage"}
STILL = "still there"


@dataclass
class Spells:
    """Table spell on `connection`: id, k (the how-manieth of the record), stage, entered_at, left_at (null = still there), cohort (quarter of entry, UTC), next (a stage;
    converted or won, lost, deleted where `ended`; null = still there), leaked (lost or deleted), days (until as_of where still there).
    why: the sentence that says why nothing can be said, else empty. notes: what is unknown or was left out."""

    connection: duckdb.DuckDBPyConnection
    why: str
    notes: list[str]


def stage_spells(s: Stories) -> Spells:
    """The spells of every record seen by as_of, those deleted later too: tables `<entity>_versions` (status or stage, the outcome, deleted_at) and `field`."""
    name, status, notes, starts = STAGE[s.entity], field_status(s.lake, s.entity), [], {}
    status = status[status["field"] == name].set_index("source")
    for source in (n for n in s.lake.sources().query("entity == @s.entity")["source"] if s.source in (None, n)):
        known = status.loc[source if source in status.index else ""]
        if known["known_at"] == "historized":
            starts[source] = known["history_from"]
        else:
            notes.append(f"The {name} of {source}'s {s.entity}s has no history here ({known['known_at'].replace('_', ' ')}): how they moved is unknown.")
    cases = "".join(f" when {of_source(source)} then TIMESTAMP '{start}'" for source, start in starts.items() if pd.notna(start))
    con, words = scratch(), {"since": f"greatest(from_at, case{cases} end)" if cases else "from_at", "inside": " or ".join(map(of_source, starts)) or "false"}
    con.register("versions", s.lake.sql(question("versions", states=state_sql(s.entity, s.as_of, s.source, f"{name}::varchar as stage"), event=s.event, **words)).to_arrow_table())
    con.execute(question("spell", now=f"TIMESTAMP '{s.as_of}'"))
    moved = con.sql("select 1 from versions where origin <> 'import' group by id having count(distinct stage) > 1 limit 1").fetchall()
    why = "" if moved else " ".join(notes) or f"No change of the {name} of any {s.entity} was recorded, so nothing is known of how they moved."
    unseen = con.sql("select count(*) from spell where not seen").fetchall()[0][0]
    con.execute(f"delete from spell where not seen or {not moved}")
    return Spells(con, why, [*notes, *[f"{unseen:,} stays had begun before their history did, and are left out."] * (unseen > 0)] * (not why))


def stage_transitions(p: Spells, *, by_cohort: bool = False) -> pd.DataFrame:
    """Where the spells of each stage led: [cohort], from, to (STILL where not left yet), n, n_entered, share of those that entered, low, high (Wilson)."""
    rows = p.connection.sql(question("transitions", cohort="cohort," * by_cohort, still=STILL)).df()
    return with_wilson(rows, "n", "n_entered", "ids").drop(columns="ids")


def leakage(p: Spells, *, within_days: int = 90) -> pd.DataFrame:
    """What became of those that entered each stage, in the order of the stages: stage, n_entered, n_moved (to another stage), n_ended (converted, won), n_lost
    (lost or deleted), n_still, share lost so far, low, high (Wilson); lost_within_share, lost_low, lost_high = lost within so many days of entry (`incidence`)."""
    rows = p.connection.sql(question("stays", cohort="")).df()
    curves = [incidence(r.days, r.cause, of=(DEAD,), at=(within_days,), n_records=r.ids).iloc[0, 1:4] for r in rows.itertuples()]
    rows[["lost_within_share", "lost_low", "lost_high"]] = np.array(curves, dtype=float).reshape(-1, 3)
    return with_wilson(rows, "n_lost", "n_entered", "ids").drop(columns=["ids", "days", "cause"])


def stage_dwell(p: Spells, *, by_cohort: bool = False) -> pd.DataFrame:
    """How long a stay lasts, those that still last censored at as_of (Kaplan-Meier): [cohort], stage, n, n_left, median_days (nan = not reached), low, high."""
    rows = p.connection.sql(question("stays", cohort="cohort," * by_cohort)).df()
    found = [median_days(r.days, np.minimum(r.cause, 1), r.ids) for r in rows.itertuples()]
    rows = rows.assign(n=rows["n_entered"], n_left=rows["n_entered"] - rows["n_still"])[["cohort"] * by_cohort + ["stage", "n", "n_left"]]
    rows[["median_days", "low", "high"]] = np.array(found, dtype=float).reshape(-1, 3)
    return rows


def velocity(s: Stories) -> pd.DataFrame:
    """Each whole month (UTC), from when nine of ten conversions of the first records had had their time: month_on, n_created, n_converted, median_days from creation to
    conversion of those that converted in it, low, high (order statistics, for six or more)."""
    con = scratch()
    con.register("stories", s.frame)
    start = "(select min(created_at) + to_microseconds((86400e6 * quantile_cont(days, .9) filter (where cause = 1))::bigint) from stories)"
    return con.sql(question("velocity", start=start, now=f"TIMESTAMP '{s.as_of}'")).df()


def velocity_trends(months: pd.DataFrame) -> pd.DataFrame:
    """Change a year of n_converted and of median_days: what, n (months), change, low, high (Theil-Sen, 95 %), p (Kendall), holds (p of 2.5 % or less: two are looked at)."""
    out = []
    for what, v in ((what, months[what].dropna()) for what in ("n_converted", "median_days")):
        if len(v) >= 12:
            slope, _, low, high = theilslopes(v, v.index / 12)
            out.append((what, len(v), slope, low, high, p := kendalltau(v.index, v).pvalue, p <= 0.025))
    return pd.DataFrame(out, columns=["what", "n", "change", "low", "high", "p", "holds"])


def stage_sentence(p: Spells, leaks: pd.DataFrame, dwell: pd.DataFrame) -> str:
    """Where most are lost and where they stay longest, or why that cannot be said; columns of `leakage` and `stage_dwell`."""
    if leaks.empty:
        return p.why
    worst, slow = leaks.loc[leaks["n_lost"].idxmax()], dwell.sort_values("median_days").iloc[-1]
    long = f"{slow['median_days']:.0f} days in {slow['stage']}" if slow["median_days"] == slow["median_days"] else f"longer than could be seen in {slow['stage']}"
    return (f"**Most are lost from {worst['stage']}**: {worst['n_lost']:,} of the {worst['n_entered']:,} stays there so far, {percent(worst)}; {worst['n_still']:,} still last. "
            f"Half of the longest stays take {long}.")


def velocity_sentence(s: Stories, trends: pd.DataFrame) -> str:
    """Whether conversions became more or faster; columns of `velocity_trends`."""
    if trends.empty:
        return s.why or "There are fewer than twelve whole months with conversions: no trend can be said."
    words = {"n_converted": "conversions a month", "median_days": "days to conversion"}
    told = [f"{words[r.what]}: **{'no trend' if not r.holds else f'{r.change:+.1f} a year'}** ({r.low:+.1f} to {r.high:+.1f}, {r.n} months)" for r in trends.itertuples()]
    return "; ".join(told).capitalize() + ". A change in what comes in changes both."


def trust_points(s: Stories, p: Spells) -> str:
    """What was left out and what the intervals mean: a list."""
    points = [*s.notes, *p.notes] + ["Intervals are of 95 %, pointwise; rows of one record count as one. Quarters and months are those of UTC.",
                                     "Early signs compare those open at the day by what was known then; records that ended before it, or whose horizon has not passed, take no part."] * (not s.why)
    return "\n".join(f"- {point}" for point in dict.fromkeys([*points, *([s.why] if s.why else []), *([p.why] if p.why else [])]))


def next_steps(s: Stories, p: Spells, signs: pd.DataFrame, leaks: pd.DataFrame) -> str:
    """What to do next: a list."""
    steps = [f"Bring the dates of creation and of closing of each {s.entity} into the export: then it can be said how long things take."] * bool(s.why)
    steps += [f"Bring the history of the {STAGE[s.entity]}, or import again regularly: then it can be said where {s.entity}s are lost."] * bool(p.why)
    steps += [f"Look together at ten {s.entity}s lost from {stage}: why there?" for stage in leaks.sort_values("n_lost")["stage"].tail(1)]
    steps += [f"One sign is in our own hands, {what}: try it on half of the new {s.entity}s, drawn by lot, before making it a rule." for what in signs["what"][signs["holds"] & signs["what"].astype(str).str.startswith("we ")].head(1)]
    return "\n".join(f"- {step}" for step in steps or ["Record activities with their direction and every change of stage: then this page can say more."])
