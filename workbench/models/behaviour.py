"""How records behave: how long they take, who touches and answers whom, and what those that converted did early.

Time counts from creation. What ends a story: conversion (winning), or death (lost, deleted or merged away); the others are still open and censored
at as_of. A record that was reopened counts as open until its last end. Rows of one record share their luck, so intervals count records, not rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import duckdb
import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, norm

from workbench.errors import WorkbenchError
from workbench.features.as_of import as_of_connection, as_of_features, field_status
from workbench.features.snapshots import seen_records
from workbench.models.bands import wilson
from workbench.models.reasons import readable
from workbench.rows import of_source

CONVERTED, DEAD = 1, 2  # causes of an end; 0 = still open
Z, FALSE_SHARE, DAY = 1.96, 0.05, pd.Timedelta(days=1)
AT = (7, 14, 30, 60, 90, 180, 365)
SILENCES = (1, 3, 7, 14, 30)
WHO = {"out": "they answer us", "in": "we answer them"}
DELAYS = {1 / 24: "within an hour", 1: "within a day", 3: "within 3 days", 7: "within a week", 1e9: "later"}
SIGNS = ["what", "n", "n_with", "rate_with_share", "rate_without_share", "difference", "low", "high", "p", "q", "holds"]


@dataclass
class Stories:
    """The records that can be placed in time. frame: id, created_at, seen_at (first version), end_at (as_of while open), days, cause (0, CONVERTED, DEAD).

    why: the sentence that says why there are none, else empty. notes: what was left out. talk: `touches` up to the end of each story."""

    lake: object
    entity: str
    as_of: datetime
    source: str | None
    frame: pd.DataFrame
    why: str = ""
    notes: list[str] = field(default_factory=list)

    @cached_property
    def talk(self) -> duckdb.DuckDBPyConnection:
        """`touches` as they were known just before each story ended."""
        return touches(self, self.frame.assign(as_of=self.frame["end_at"].mask(self.frame["cause"] > 0, self.frame["end_at"] - pd.Timedelta(microseconds=1))))

    @property
    def event(self) -> str:
        """What a conversion is called."""
        return "converted" if self.entity == "lead" else "won"


def stories(lake, *, as_of: datetime, source: str | None = None, entity: str = "") -> Stories:
    """The stories of every lead (deal, where `source` has no leads) seen by `as_of`: table columns created_at, closed_at (converted_at), deleted_at, the outcome."""
    some = lake.sql(f"select 1 from lead_versions where {of_source(source)} and valid_from <= TIMESTAMP '{as_of}' limit 1").fetchall()
    entity = entity or ("lead" if some else "deal")
    records = seen_records(lake, entity, as_of, source)
    ended, now = ~records["is_open"].astype(bool), pd.Timestamp(as_of)
    frame = records[["id", "created_at", "seen_at"]].assign(end_at=records["closed_at"].where(ended, now), cause=np.select([~ended, records["won"].fillna(False).astype(bool)], [0, CONVERTED], DEAD))
    bad = {"have no creation date": records["created_at"].isna(), "are decided, but nobody knows when": records["closed_unknown"].astype(bool),
           "were created after as_of, by their own word": records["created_at"] > now, "were closed before they were created, by their own word": frame["end_at"] < records["created_at"]}
    why, kept, notes = "" if len(records) else f"There is no {entity} in these data.", np.ones(len(records), dtype=bool), []
    for words, rows in bad.items():
        of = ended if "decided" in words else kept
        if not why and rows.sum() * 2 > of.sum():
            why = f"{rows.sum():,} of {of.sum():,} {entity}s {words}: how long anything took cannot be said."
        elif (rows & kept).any():
            notes.append(f"{(rows & kept).sum():,} {entity}s {words}, and are left out.")
        kept &= ~rows.to_numpy()
    frame = frame[kept & (not why)].reset_index(drop=True)
    return Stories(lake, entity, as_of, source, frame.assign(days=(frame["end_at"] - frame["created_at"]) / DAY), why, notes)


def incidence(days: np.ndarray, cause: np.ndarray, *, of: tuple[int, ...] = (CONVERTED,), at: np.ndarray | tuple, n_records: int | None = None) -> pd.DataFrame:
    """Share that ended by one of the causes `of` within each of `at` days, the others competing, 0 censored (Aalen-Johansen): at, share, low, high, n_at_risk.

    95 % intervals pointwise: delta-method variance of Greenwood's type (E. Marubini, M. Valsecchi, Analysing Survival Data, 1995, 10.3) on the complementary
    log-log scale; wider by rows / `n_records` in variance. Unknown after the longest time seen. With one cause it is one minus Kaplan-Meier.

    >>> incidence(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 1]), at=[2, 4])["share"].tolist()  # 1/4; of the half left one of one
    [0.25, 0.75]
    """
    days, cause, at = np.asarray(days, dtype=float), np.asarray(cause), np.asarray(at, dtype=float)
    times, code = np.unique(days, return_inverse=True)
    count, ends, d = (np.bincount(code, w, len(times)) for w in (None, cause > 0, np.isin(cause, of)))
    n = len(days) - np.cumsum(count) + count
    s = np.cumprod(1 - ends / n)
    before = np.concatenate([[1.0], s])[:-1]
    f, w, e = np.cumsum(before * d / n), ends / (n * np.maximum(n - ends, 1)) * (ends < n), before * d / n**2
    a, b, c, g, h, k = np.cumsum([w, f * w, f * f * w, before**2 * (n - d) / n**3 * d, e, f * e], axis=1)
    var = np.maximum(f * f * a - 2 * f * b + c + g - 2 * (f * h - k), 0) * len(days) / (n_records or max(len(days), 1))
    i, known = np.searchsorted(times, at, side="right") - 1, at <= (times[-1] if len(times) else -1)
    share, se = (np.where(known, np.append(v, 0.0)[i], np.nan) for v in (f, np.sqrt(var)))
    risk = len(days) - np.searchsorted(np.sort(days), at)
    with np.errstate(all="ignore"):
        spread = np.exp(np.abs(Z * se / ((1 - share) * np.log1p(-share))))
        low, high = 1 - (1 - share) ** (1 / spread), 1 - (1 - share) ** spread
    m = np.maximum(risk * (n_records or len(days)) / max(len(days), 1), 1)  # nobody, or everybody: Wilson's bound
    low, high = np.where(share >= 1, m / (m + Z * Z), np.where(share <= 0, 0, low)), np.where(share >= 1, 1, np.where(share <= 0, Z * Z / (m + Z * Z), high))
    return pd.DataFrame({"at": at, "share": share, "low": np.where(known, low, np.nan), "high": np.where(known, high, np.nan), "n_at_risk": risk})


def median_days(days: np.ndarray, cause: np.ndarray, n_records: int | None = None, of: tuple[int, ...] = (CONVERTED,)) -> dict:
    """When `incidence` reaches one half, and the 95 % interval at whose ends its bounds do (R. Brookmeyer, J. Crowley, Biometrics 1982); nan = not reached."""
    curve = incidence(days, cause, of=of, at=np.unique(days), n_records=n_records)
    reached = [curve.loc[curve[c] >= 0.5, "at"] for c in ("share", "high", "low")]
    return dict(zip(("median_days", "low", "high"), (r.iloc[0] if len(r) else np.nan for r in reached), strict=True))


def time_to_outcome(s: Stories, *, by: str = "", at: tuple[int, ...] = AT, most: int = 8) -> pd.DataFrame:
    """Share converted, dead and still open by days since creation (`incidence`): [by], outcome, days, share, low, high, n_at_risk, n.

    by: "cohort" (year of creation, UTC) or a field that is fixed at creation; its `most` frequent values."""
    label = s.frame["created_at"].dt.year.astype(str) if by == "cohort" else _fixed(s, by) if by else pd.Series("all", index=s.frame.index)
    parts = []
    for value in sorted(label.value_counts().index[:most]):
        rows = s.frame[label == value]
        for outcome, of in ((s.event, (CONVERTED,)), ("dead", (DEAD,)), ("open", (CONVERTED, DEAD))):
            part = incidence(rows["days"].to_numpy(), rows["cause"].to_numpy(), of=of, at=at)
            if outcome == "open":
                part = part.assign(share=1 - part["share"], low=1 - part["high"], high=1 - part["low"])
            parts.append(part.rename(columns={"at": "days"}).assign(outcome=outcome, n=len(rows), **{by or "all": value}))
    columns = [*([by] if by else []), "outcome", "days", "share", "low", "high", "n_at_risk", "n"]
    return pd.concat(parts, ignore_index=True).dropna(subset=["share"]).reset_index(drop=True)[columns] if parts else pd.DataFrame(columns=columns)


def _fixed(s: Stories, name: str) -> pd.Series:
    status = field_status(s.lake, s.entity).query("field == @name")
    told = status[(status["source"] == s.source) | (status["source"] == "")].tail(1)["known_at"].tolist()
    if told not in (["fixed"], ["assumed"]):
        raise WorkbenchError(f"{name} of a {s.entity} may change after creation.", fix="Group by a field that is fixed at creation, such as source.")
    values = s.lake.sql(f"select id, arg_min({name}, valid_from)::varchar as v from {s.entity}_versions group by id").df().set_index("id")["v"]  # type: ignore[attr-defined]
    return s.frame["id"].map(values).fillna("not given")


def touches(s: Stories, spine: pd.DataFrame) -> duckdb.DuckDBPyConnection:
    """A connection with table touch: spine_row, day (since creation, of the event), kind, way (in, out; both = a meeting), as known at each row's as_of.

    Calls, e-mails, meetings and other talk that took place (activity kind, direction, is_done); no web visits, tasks or notes. Table told = `spine`."""
    connection = as_of_connection(s.lake, s.entity, spine, [], "")
    connection.register("told", spine.reset_index(drop=True).reset_index(names="spine_row"))
    connection.execute("""create table touch as select spine_row, date_diff('microsecond', told.created_at, least(happened_at, visible_at)) / 86400e6 as day, kind,
        coalesce(direction, case when kind = 'meeting' then 'both' end) as way from activity_at join told using (spine_row)
        where is_done and kind not in ('web', 'task', 'note')""")
    connection.execute("delete from touch where way is null or day < 0")
    return connection


def landmark(s: Stories, by_day: float, horizon_days: float) -> pd.DataFrame:
    """Those open at day `by_day` whose next `horizon_days` have passed: stories with as_of (that day), event (converted in them), month (of creation).

    What is compared there lies before the day and the outcome after it, so nobody has to live long to show a sign (no immortal time)."""
    f = s.frame.assign(as_of=s.frame["created_at"] + by_day * DAY)
    f = f[(f["days"] > by_day) & (f["seen_at"] <= f["as_of"]) & (f["as_of"] + horizon_days * DAY <= pd.Timestamp(s.as_of))]
    ended = f["days"] <= by_day + horizon_days
    return f.assign(event=ended & (f["cause"] == CONVERTED), dead=ended & (f["cause"] == DEAD), month=f["created_at"].dt.year * 12 + f["created_at"].dt.month).reset_index(drop=True)


def first_touch(s: Stories, *, by_day: int = 7, horizon_days: int = 90) -> pd.DataFrame:
    """What came of those open at day `by_day` by the kind and by the delay of their first touch until then: by, first_touch, n, n_converted, share, low, high, hours (median)."""
    rows, out = landmark(s, by_day, horizon_days), []
    con = touches(s, rows) if len(rows) else None
    first = con.sql("select spine_row, arg_min((kind, way), (day, kind, way)) as f, min(day) as day from touch group by 1").df().set_index("spine_row") if con else pd.DataFrame()
    if first.empty:
        return pd.DataFrame(columns=["by", "first_touch", "n", "n_converted", "share", "low", "high", "hours"])
    rows = rows.join(first)
    way = {"in": "from them", "out": "by us", "both": "with them"}
    kind = rows["f"].map(lambda f: f"{f[0]} {way.get(f[1], '')}", na_action="ignore")
    delay = pd.Series(np.array([*DELAYS.values()], dtype=object)[np.searchsorted([*DELAYS], rows["day"].fillna(0))], rows.index).where(rows["day"].notna())
    for by, label in (("kind", kind), ("delay", delay)):
        for value, part in rows.groupby(label.fillna("none by then"), sort=False):
            n, k = len(part), int(part["event"].sum())
            out.append((by, value, n, k, k / n, *wilson(k / n, n), part["day"].median() * 24))
    frame = pd.DataFrame(out, columns=["by", "first_touch", "n", "n_converted", "share", "low", "high", "hours"])
    return frame.sort_values(["by", "hours"], ascending=[False, True], ignore_index=True)


def exchanges(s: Stories) -> pd.DataFrame:
    """One row a message that opened a silence: spine_row, way, day, wait (days until the answer, or until the story ended), cause (1 answered, 2 died before, 0 neither).

    It opens one when the touch before went the other way; a meeting answers both. Touches of one instant count inbound first."""
    return s.talk.sql("""select spine_row, way, t.day, coalesce(answer, days) - t.day as wait, case when answer is not null then 1 when cause = 2 then 2 else 0 end as cause,
            t.day + epoch(created_at) / 86400.0 as started, epoch(as_of) / 86400.0 as ends
        from (select spine_row, way, day, lag(way) over w as before, min(case way when 'in' then null else day end) over ahead as not_in,
            min(case way when 'out' then null else day end) over ahead as not_out, case way when 'in' then not_in else not_out end as answer
            from touch window w as (partition by spine_row order by day, way), ahead as (partition by spine_row order by day, way rows between 1 following and unbounded following)) t
        join told using (spine_row) where way <> 'both' and before is distinct from way and coalesce(answer, days) >= t.day order by spine_row, t.day""").df()


def reply_delays(s: Stories) -> pd.DataFrame:
    """Both ways, how long a first message waits for its answer: who, n, n_records, n_answered, median_days, low, high, within_1_day_share (3, 7): `incidence`, death competing."""
    found, out = exchanges(s), []
    for way, who in WHO.items():
        part = found[found["way"] == way]
        n = part["spine_row"].nunique()
        if n:
            within = incidence(part["wait"], part["cause"], at=(1, 3, 7), n_records=n)["share"]
            out.append({"who": who, "n": len(part), "n_records": n, "n_answered": int((part["cause"] == 1).sum()), **median_days(part["wait"].to_numpy(), part["cause"].to_numpy(), n),
                        **{f"within_{d}_day{'s' * (d > 1)}_share": v for d, v in zip((1, 3, 7), within, strict=True)}})
    return pd.DataFrame(out, columns=["who", "n", "n_records", "n_answered", "median_days", "low", "high", "within_1_day_share", "within_3_days_share", "within_7_days_share"])


def silences(s: Stories, *, window_days: int = 30, later: float = 0.3) -> pd.DataFrame:
    """Once silence has lasted so long: the share answered within the next `window_days`, on the earlier messages, then on the `later` share of them.

    who, silence_days, n, share, low, high, n_later, later_share, later_low, later_high, calibrated (the two differ by no more than chance does, 95 %).
    Only messages whose window has passed; one whose record ended unanswered was not answered."""
    found, out = exchanges(s), []
    cut = found["started"].quantile(1 - later) if len(found) else 0
    until = pd.Timestamp(s.as_of).timestamp() / 86400
    for way, who in WHO.items():
        for silence in SILENCES:
            part = found[(found["way"] == way) & (found["wait"] > silence) & (found["started"] + silence + window_days <= until)]
            y, old = (part["cause"] == 1) & (part["wait"] <= silence + window_days), part["started"] <= cut
            n = [part.loc[side, "spine_row"].nunique() for side in (old, ~old)]
            if min(n) >= 10:
                share = [y[side].mean() for side in (old, ~old)]
                chance = Z * np.sqrt(sum(max(p * (1 - p), .01) / m for p, m in zip(share, n, strict=True)))
                out.append((who, silence, int(old.sum()), share[0], *wilson(share[0], n[0]), int((~old).sum()), share[1], *wilson(share[1], n[1]), abs(share[0] - share[1]) <= chance))
    return pd.DataFrame(out, columns=["who", "silence_days", "n", "share", "low", "high", "n_later", "later_share", "later_low", "later_high", "calibrated"])


def cadence(s: Stories, *, most: int = 6) -> pd.DataFrame:
    """Gaps between our touches (out, and meetings): touch (the how-manieth), n, followed_share (within 30 days, death competing), median_days to the next, low, high."""
    rows = s.talk.sql("""select k, coalesce(next, days) - day as wait, case when next is not null then 1 when cause = 2 then 2 else 0 end as cause
        from (select spine_row, day, row_number() over w as k, lead(day) over w as next from touch where way <> 'in' window w as (partition by spine_row order by day, kind))
        join (select spine_row, days, cause from told) using (spine_row) where coalesce(next, days) >= day""").df()
    out = []
    for k, part in rows[rows["k"] <= most].groupby("k"):
        wait, cause = part["wait"].to_numpy(), part["cause"].to_numpy()
        out.append({"touch": k, "n": len(part), "followed_share": incidence(wait, cause, at=(30,))["share"].iloc[0], **median_days(wait, cause)})
    return pd.DataFrame(out, columns=["touch", "n", "followed_share", "median_days", "low", "high"])


def touches_by_week(s: Stories, *, weeks: int = 12) -> pd.DataFrame:
    """Our touches in each week since creation of those open when it began: week, n_open, touches (per record and open week), untouched_share, low, high."""
    rows = s.talk.sql(f"""select w + 1 as week, count(*) as n_open, sum(n) / sum(least(days - 7 * w, 7) / 7) as touches, avg((n = 0)::int) as untouched_share
        from (select spine_row, days, unnest(range({weeks})) as w from told) join (select spine_row, w, count(day) as n from (select spine_row, unnest(range({weeks})) as w from told)
            left join (select spine_row, day, (day // 7)::bigint as w from touch where way <> 'in') using (spine_row, w) group by all) using (spine_row, w)
        where days > 7 * w group by w order by w""").df()
    bounds = [wilson(p, n) for p, n in zip(rows["untouched_share"], rows["n_open"], strict=True)]
    return rows.assign(low=[b[0] for b in bounds], high=[b[1] for b in bounds])


def early_signs(s: Stories, *, by_day: int = 14, horizon_days: int = 90) -> pd.DataFrame:
    """What was to be seen by day `by_day` of those that converted in the `horizon_days` after it, against the others: one row a sign, columns of `claims`."""
    rows = landmark(s, by_day, horizon_days)
    if rows.empty:
        return pd.DataFrame(columns=SIGNS)
    values, signs = as_of_features(s.lake, s.entity, rows[["id", "as_of"]]), {}
    for c in (c for c in values if c.startswith(("n_", "has_")) or c in ("web_seconds", "pages_per_visit")):
        v, name = pd.to_numeric(values[c].astype("float64")).to_numpy(), readable(c).removeprefix("number of ")
        cut = np.nanmedian(v) if np.isfinite(v).any() and values[c].dtype != "boolean" else 0
        signs[name if c.startswith("has_") else f"{name}: 1 or more" if not cut else f"{name}: more than {cut:,.3g}"] = v > cut
    con = touches(s, rows)
    when = con.sql("""select s.spine_row, min(day) filter (where way <> 'in') as ours, min(day) filter (where way <> 'out') as theirs, min(day) filter (where way <> 'in' and day > first_in) - first_in as answer
        from (select spine_row from told) s left join touch t using (spine_row) left join (select spine_row, min(day) as first_in from touch where way = 'in' group by 1) using (spine_row)
        group by s.spine_row, first_in order by s.spine_row""").df()
    signs |= {"we touched them within a day": (when["ours"] <= 1).to_numpy(), "they spoke within 3 days": (when["theirs"] <= 3).to_numpy(), "we answered their first within a day": (when["answer"] <= 1).to_numpy()}
    return claims(pd.DataFrame(signs).T.drop_duplicates().T.astype(bool), rows["event"].to_numpy(), rows["month"].to_numpy())


def claims(signs: pd.DataFrame, event: np.ndarray, stratum: np.ndarray) -> pd.DataFrame:
    """Each sign (a column of booleans, a row a record) against the event, within strata of records alike (month of creation): SIGNS, surest first.

    difference = Mantel-Haenszel's, with T. Sato's 95 % interval (Biometrics 1989); p by Cochran-Mantel-Haenszel's test, without correction, where N. Mantel and
    J. Fleiss's criterion (Am. J. Epidemiology 1980) allows it; q by Benjamini-Yekutieli over all tests made, since signs of the same records depend on each other
    in any way; holds = q of 5 % or less."""
    out, (_, code) = [], np.unique(stratum, return_inverse=True)
    size, events = np.bincount(code).astype(float), np.bincount(code, event)
    for what in signs:
        x = signs[what].to_numpy(bool)
        n1, a = np.bincount(code, x, len(size)), np.bincount(code, x & event, len(size))
        n0, b, use = size - n1, events - a, (n1 > 0) & (n1 < size)
        if not use.any():
            continue
        m, n, n1, n0, a, b = (v[use] for v in (events, size, n1, n0, a, b))
        weight, expected = (n1 * n0 / n).sum(), (n1 * m / n).sum()
        diff = ((a * n0 - b * n1) / n).sum() / weight
        p = (n1**2 * b - n0**2 * a + n1 * n0 * (n0 - n1) / 2) / n**2
        half = Z * np.sqrt(max(diff * p.sum() + ((a * (n0 - b) + b * (n1 - a)) / (2 * n)).sum(), 0)) / weight
        spread = np.sqrt((n1 * n0 * m * (n - m) / (n**2 * np.maximum(n - 1, 1))).sum())
        enough = min(expected - np.maximum(0, n1 + m - n).sum(), np.minimum(n1, m).sum() - expected) >= 5
        out.append((what, len(x), int(x.sum()), event[x].mean(), event[~x].mean(), diff, diff - half, diff + half, 2 * norm.sf(abs(a.sum() - expected) / spread) if enough and spread else np.nan))
    frame = pd.DataFrame(out, columns=SIGNS[:-2]).assign(q=np.nan)
    tested = frame["p"].notna()
    if tested.any():
        frame.loc[tested, "q"] = false_discovery_control(frame.loc[tested, "p"], method="by")
    return frame.assign(holds=frame["q"] <= FALSE_SHARE).sort_values(["p", "what"], ignore_index=True)
