"""How records move through their stages, from versions alone: what was known when. A lead's stage is its status. The SQL is in funnel.sql.

A spell = one stay of one record in one stage, told only where its beginning was seen: what came before the field's history began (`history_from`),
or before a record's first version more than a day after its creation, is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd
from scipy.stats import kendalltau, theilslopes

from workbench.features.as_of import field_status
from workbench.features.snapshots import state_sql
from workbench.models.behaviour import DEAD, Stories, incidence, median_days, percent, question, with_wilson
from workbench.rows import of_source, scratch

STAGE, STILL = {"lead": "status", "deal": "stage"}, "still there"


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
    name, status = STAGE[s.entity], field_status(s.lake, s.entity).query("field == @STAGE[@s.entity]").set_index("source")
    known = {n: status.loc[n if n in status.index else ""] for n in s.lake.sources().query("entity == @s.entity")["source"] if s.source in (None, n)}
    notes = [f"The {name} of {n}'s {s.entity}s has no history here ({k['known_at'].replace('_', ' ')}): how they moved is unknown." for n, k in known.items() if k["known_at"] != "historized"]
    starts = {n: k["history_from"] for n, k in known.items() if k["known_at"] == "historized"}
    cases = "".join(f" when {of_source(source)} then TIMESTAMP '{start}'" for source, start in starts.items() if pd.notna(start))
    words = {"since": f"greatest(from_at, case{cases} end)" if cases else "from_at", "inside": " or ".join(map(of_source, starts)) or "false"}
    versions = s.lake.sql(question("versions", states=state_sql(s.entity, s.as_of, s.source, f"{name}::varchar as stage"), event=s.event, **words)).to_arrow_table()
    con = scratch().register("versions", versions).execute(question("spell", now=f"TIMESTAMP '{s.as_of}'"))
    moved = con.sql("select 1 from versions where origin <> 'import' group by id having count(distinct stage) > 1 limit 1").fetchall()
    why = "" if moved else " ".join(notes) or f"No change of the {name} of any {s.entity} was recorded, so nothing is known of how they moved."
    unseen = con.sql("select count(*) from spell where not seen").fetchall()[0][0]
    con.execute(f"delete from spell where not seen or {not moved}")
    return Spells(con, why, [*notes, *[f"{unseen:,} stays had begun before their history did, and are left out."] * (unseen > 0)] * (not why))


def stage_transitions(p: Spells, *, by_cohort: bool = False) -> pd.DataFrame:
    """Where the spells of each stage led: [cohort], from, to (STILL where not left yet), n, n_entered, share of those that entered, low, high (Wilson)."""
    return with_wilson(p.connection.sql(question("transitions", cohort="cohort," * by_cohort, still=STILL)).df(), "n", "n_entered", "ids").drop(columns="ids")


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
    """Each whole month (UTC) since nine of ten conversions of the first records had had their time: month_on, n_created, n_converted, their median_days from creation, low, high."""
    return scratch().register("stories", s.frame).sql(question("velocity", now=f"TIMESTAMP '{s.as_of}'")).df()


def velocity_trends(months: pd.DataFrame) -> pd.DataFrame:
    """Change a year of n_converted and of median_days: what, n (months), change, low, high (Theil-Sen, 95 %), p (Kendall), holds (p of 2.5 % or less: two are looked at)."""
    shown = {what: v for what in ("n_converted", "median_days") if len(v := months[what].dropna()) >= 12}
    rows = [(what, len(v), *np.array(theilslopes(v, v.index / 12))[[0, 2, 3]], kendalltau(v.index, v).pvalue) for what, v in shown.items()]
    frame = pd.DataFrame(rows, columns=["what", "n", "change", "low", "high", "p"])
    return frame.assign(holds=frame["p"] <= 0.025)


def named(text: object) -> str:
    """A text of the CRM in Markdown: on one line, and nothing in it is markup."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(str(text).split())[:80])


def stage_sentence(p: Spells, leaks: pd.DataFrame, dwell: pd.DataFrame) -> str:
    """Where most are lost and where they stay longest, or why that cannot be said; columns of `leakage` and `stage_dwell`."""
    if leaks.empty:
        return p.why
    worst, slow = leaks.loc[leaks["n_lost"].idxmax()], dwell.sort_values("median_days").iloc[-1]
    return (f"**Most are lost from {named(worst['stage'])}**: {worst['n_lost']:,} of the {worst['n_entered']:,} stays there so far, {percent(worst)}; {worst['n_still']:,} still last. "
            f"Stays are longest in {named(slow['stage'])}: half of them last {slow['median_days']:.0f} days or more.".replace("nan days or more", "longer than could be seen"))


def velocity_sentence(s: Stories, trends: pd.DataFrame) -> str:
    """Whether conversions became more or faster; columns of `velocity_trends`."""
    if trends.empty:
        return s.why or "There are fewer than twelve whole months with conversions: no trend can be said."
    words = {"n_converted": "conversions a month", "median_days": "days to conversion"}
    told = [f"{words[r.what]}: **{'no trend' if not r.holds else f'{r.change:+.1f} a year'}** ({r.low:+.1f} to {r.high:+.1f}, {r.n} months)" for r in trends.itertuples()]
    return "; ".join(told).capitalize() + ". A change in what comes in changes both."


def trust_points(s: Stories, p: Spells) -> str:
    """What was left out and what the intervals mean: a list."""
    how = ["Intervals are of 95 %, pointwise; rows of one record count as one. Quarters and months are those of UTC.",
           "Early signs compare those open at the day by what was known then; records that ended before it, or whose horizon has not passed, take no part."]
    return "\n".join(f"- {point}" for point in dict.fromkeys([*s.notes, *p.notes, *([] if s.why else how), s.why, p.why]) if point)


def next_steps(s: Stories, p: Spells, signs: pd.DataFrame, leaks: pd.DataFrame) -> str:
    """What to do next: a list."""
    steps = [f"Bring the dates of creation and of closing of each {s.entity} into the export: then it can be said how long things take."] * bool(s.why)
    steps += [f"Bring the history of the {STAGE[s.entity]}, or import again regularly: then it can be said where {s.entity}s are lost."] * bool(p.why)
    steps += [f"Look together at ten {s.entity}s lost from {named(stage)}: why there?" for stage in leaks.sort_values("n_lost")["stage"].tail(1)]
    ours = [what for what in signs["what"][signs["holds"]] if what.startswith("we ")][:1]
    steps += [f"One sign is in our own hands, {what}: try it on half of the new {s.entity}s, drawn by lot, before making it a rule." for what in ours]
    return "\n".join(f"- {step}" for step in steps)
