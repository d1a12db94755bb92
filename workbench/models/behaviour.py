"""How records behave: how long they take, who touches and answers whom, and what those that converted did early. The SQL is in funnel.sql.

Time counts from creation. What ends a story: conversion (winning), or death (lost, deleted or merged away); the others are still open and censored
at as_of. A record that was reopened counts as open until its last end. Rows of one record share their luck: intervals count records, not rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib import resources
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, norm

from workbench.features.as_of import as_of_connection, as_of_features
from workbench.features.snapshots import seen_records
from workbench.models.bands import wilson
from workbench.models.reasons import readable
from workbench.rows import of_source

CONVERTED, DEAD = 1, 2  # causes of an end; 0 = still open
Z, FALSE_SHARE, DAY = 1.96, 0.05, pd.Timedelta(days=1)
AT, SILENCES, WITHIN = (7, 14, 30, 60, 90, 180, 365), (1, 3, 7, 14, 30), (1, 3, 7)
WHO = {"out": "they answer us", "in": "we answer them", "next": "we touch again"}


def question(name: str, **words: Any) -> str:
    """A section of funnel.sql."""
    return resources.files("workbench.models").joinpath("funnel.sql").read_text(encoding="utf-8").split(f"-- section {name}\n")[1].split("-- section ")[0].format(**words)


@dataclass
class Stories:
    """The records that can be placed in time. frame: id, created_at, seen_at (first version), end_at (as_of while open), days, cause (0, CONVERTED, DEAD).
    event: what a conversion is called. why: the sentence that says why there are none, else empty. notes: what was left out."""

    lake: Any
    entity: str
    event: str
    as_of: datetime
    source: str | None
    frame: pd.DataFrame
    why: str
    notes: list[str]

    @cached_property
    def talk(self) -> duckdb.DuckDBPyConnection:
        """`touches` as they were known just before each story ended."""
        return touches(self, self.frame.assign(as_of=self.frame["end_at"] - pd.to_timedelta(self.frame["cause"].clip(upper=1), "us")))


def stories(lake, *, as_of: datetime, source: str | None = None, entity: str = "") -> Stories:
    """The stories of every lead (deal, where `source` has no leads) seen by `as_of`: columns created_at, closed_at (converted_at), deleted_at, the outcome."""
    leads = lake.sql(f"select 1 from lead_versions where {of_source(source)} and valid_from <= TIMESTAMP '{as_of}' limit 1").fetchall()
    entity, now = entity or ("lead" if leads else "deal"), pd.Timestamp(as_of)
    rows = seen_records(lake, entity, as_of, source)
    ended, kept, notes = ~rows["is_open"].astype(bool), np.ones(len(rows), dtype=bool), []
    frame = rows[["id", "created_at", "seen_at"]].assign(end_at=rows["closed_at"].where(ended, now), cause=np.select([~ended, rows["won"].eq(True)], [0, CONVERTED], DEAD))
    bad = {"have no creation date": frame["created_at"].isna(), "are decided, but nobody knows when": rows["closed_unknown"].astype(bool),
           "were created after as_of, by their own word": frame["created_at"] > now, "were closed before they were created, by their own word": frame["end_at"] < frame["created_at"]}
    why = "" if len(rows) else f"There is no {entity} in these data."
    for words, fault in bad.items():
        n, of = int((fault & kept).sum()), int(ended.sum() if "decided" in words else len(rows))
        if n * 2 > of and not why:
            why = f"{n:,} of {of:,}{' decided' * ('decided' in words)} {entity}s {words}: how long anything took cannot be said."
        notes += [f"{n:,} {entity}s {words}, and are left out."] * (n > 0)
        kept &= ~fault.to_numpy()
    frame = frame[kept & (not why)].reset_index(drop=True)
    return Stories(lake, entity, "converted" if entity == "lead" else "won", as_of, source, frame.assign(days=(frame["end_at"] - frame["created_at"]) / DAY), why, notes * (not why))


def incidence(days: Any, cause: Any, *, of: tuple[int, ...] = (CONVERTED,), at: Any, n_records: int | None = None) -> pd.DataFrame:
    """Share that ended by one of the causes `of` within each of `at` days, the others competing, 0 censored (Aalen-Johansen): at, share, low, high, n_at_risk.
    95 % intervals pointwise: delta-method variance of Greenwood's type (E. Marubini, M. Valsecchi, Analysing Survival Data, 1995, ch. 10), times rows / `n_records`,
    on the complementary log-log scale; Wilson's where nobody or everybody ended. Unknown after the longest time seen. With one cause: one minus Kaplan-Meier.
    >>> incidence([1, 2, 3, 4], [1, 2, 0, 1], at=[2, 4])["share"].tolist()  # 1/4; then all of the half that is left
    [0.25, 0.75]
    """
    days, cause, at = np.asarray(days, dtype=float), np.asarray(cause), np.asarray(at, dtype=float)
    times, code = np.unique(days, return_inverse=True)
    count, ends, d = (np.bincount(code, w, len(times)) for w in (None, cause > 0, np.isin(cause, of)))
    n, each = len(days) - np.cumsum(count) + count, len(days) / (n_records or max(len(days), 1))
    before = np.concatenate([[1.0], np.cumprod(1 - ends / n)])[:-1]
    f, w, e = np.cumsum(before * d / n), ends / (n * np.maximum(n - ends, 1)) * (ends < n), before * d / n**2
    a, b, c, g, h, k = np.cumsum([w, f * w, f * f * w, before**2 * (n - d) / n**3 * d, e, f * e], axis=1)
    var = np.maximum(f * f * a - 2 * f * b + c + g - 2 * (f * h - k), 0) * each
    i, known = np.searchsorted(times, at, side="right") - 1, at <= (times[-1] if len(times) else -1)
    share, se = (np.where(known, np.append(v, 0.0)[i], np.nan) for v in (f, np.sqrt(var)))
    risk = len(days) - np.searchsorted(np.sort(days), at)
    with np.errstate(all="ignore"):
        spread, m = np.exp(np.abs(Z * se / ((1 - share) * np.log1p(-share)))), np.maximum(risk / each, 1)
        low, high = 1 - (1 - share) ** (1 / spread), 1 - (1 - share) ** spread
    low, high = np.where(share > 1 - 1e-9, m / (m + Z * Z), np.where(share <= 0, 0, low)), np.where(share > 1 - 1e-9, 1, np.where(share <= 0, Z * Z / (m + Z * Z), high))
    return pd.DataFrame({"at": at, "share": share, "low": np.where(known, low, np.nan), "high": np.where(known, high, np.nan), "n_at_risk": risk})


def median_days(days: Any, cause: Any, n_records: int | None = None) -> list[float]:
    """When `incidence` reaches one half, and when its bounds do (R. Brookmeyer, J. Crowley, Biometrics 1982): median, low, high; nan = not reached."""
    curve = incidence(days, cause, at=np.unique(days), n_records=n_records, of=(CONVERTED,))
    reached = [curve.loc[curve[c] >= 0.5, "at"] for c in ("share", "high", "low")]
    return [r.iloc[0] if len(r) else np.nan for r in reached]


def with_wilson(rows: pd.DataFrame, n: str, of: str, ids: str) -> pd.DataFrame:
    """`rows` with share = column n / column of, low and high (Wilson's 95 % interval from as many records as column ids says)."""
    share = rows[n] / rows[of]
    bounds = np.array([wilson(p, m) for p, m in zip(share, rows[ids], strict=True)]).reshape(-1, 2)
    return rows.assign(share=share, low=bounds[:, 0], high=bounds[:, 1])


def time_to_outcome(s: Stories, *, groups: pd.Series | None = None, at: Any = AT) -> pd.DataFrame:
    """Share converted (won), dead and still open by days since creation (`incidence`): group, outcome, days, share, low, high, n_at_risk, n.
    groups: a label for each row of `s.frame`, such as the year of creation; it must have been known at creation."""
    columns = ["group", "outcome", "days", "share", "low", "high", "n_at_risk", "n"]
    parts = [pd.DataFrame(columns=columns)][len(s.frame):]
    for group, rows in s.frame.groupby(pd.Series("all", s.frame.index) if groups is None else groups):
        for outcome, of in {s.event: (CONVERTED,), "dead": (DEAD,), "open": (CONVERTED, DEAD)}.items():
            part = incidence(rows["days"], rows["cause"], of=of, at=at).rename(columns={"at": "days"})
            if outcome == "open":
                part[["share", "high", "low"]] = 1 - part[["share", "low", "high"]].to_numpy()
            parts.append(part.assign(group=group, outcome=outcome, n=len(rows)))
    return pd.concat(parts, ignore_index=True).dropna(subset="share")[columns].reset_index(drop=True)


def touches(s: Stories, spine: pd.DataFrame) -> duckdb.DuckDBPyConnection:
    """A connection with table touch: spine_row, day (since creation, of the event), kind, way (in, out; both = a meeting), as known at each row's as_of, and told = `spine`.
    Calls, e-mails, meetings and other talk that took place (activity kind, direction, is_done); no web visits, tasks or notes."""
    told = spine.reset_index(drop=True).reset_index(names="spine_row")
    return as_of_connection(s.lake, s.entity, spine, [], "").register("told", told).execute(question("touch"))


def landmark(s: Stories, by_day: float, horizon_days: float) -> pd.DataFrame:
    """Those open at day `by_day` whose next `horizon_days` have passed: stories with as_of (that day), event (converted in them), month (of creation).
    What is compared there lies before the day and the outcome after it, so nobody has to live long to show a sign (no immortal time)."""
    f = s.frame.assign(as_of=s.frame["created_at"] + by_day * DAY, month=s.frame["created_at"].dt.year * 12 + s.frame["created_at"].dt.month)
    f = f[(f["days"] > by_day) & (f["seen_at"] <= f["as_of"]) & (f["as_of"] + horizon_days * DAY <= pd.Timestamp(s.as_of))]
    return f.assign(event=(f["days"] <= by_day + horizon_days) & (f["cause"] == CONVERTED)).reset_index(drop=True)


def first_touch(s: Stories, *, by_day: int = 7, horizon_days: int = 90) -> pd.DataFrame:
    """What came of those open at day `by_day` by the kind and by the delay of their first touch until then: by, first_touch, n, n_converted, hours (median), share, low, high."""
    return with_wilson(touches(s, landmark(s, by_day, horizon_days)).sql(question("first_rates", first=question("first"))).df(), "n_converted", "n", "n")


def delays(s: Stories) -> pd.DataFrame:
    """How long what was awaited took: who, n, n_records, n_came, median_days, low, high, within_1_day_share, ... (`incidence`; death competes, the rest is censored).
    A message waits for the answer when the touch before went the other way; a meeting answers both ways. Each touch of ours waits for the next. At one instant inbound counts first."""
    out, found = [], s.talk.sql(question("exchange")).df()
    for who, part in ((who, found[found["who"] == who]) for who in WHO):
        n, wait, cause = part["spine_row"].nunique(), part["wait"], part["cause"]
        out += [(WHO[who], len(part), n, int((cause == 1).sum()), *median_days(wait, cause, n), *incidence(wait, cause, at=WITHIN, n_records=n)["share"])] * (n > 0)
    return pd.DataFrame(out, columns=["who", "n", "n_records", "n_came", "median_days", "low", "high", *(f"within_{d}_day{'s' * (d > 1)}_share" for d in WITHIN)])


def silences(s: Stories, *, window_days: int = 30, later: float = 0.3) -> pd.DataFrame:
    """Once silence has lasted so long: the share answered within the next `window_days`, on the earlier messages, then on the `later` share of them: who, silence_days,
    n, share, low, high, n_later, later_share, later_low, later_high, calibrated (the two differ by no more than chance does, 95 %). A record that ended did not answer."""
    cut, until = f"(select quantile_cont(started, {1 - later}) from exchange)", f"epoch(TIMESTAMP '{s.as_of}') / 86400.0"
    rows = s.talk.sql(question("silences", exchange=question("exchange"), cut=cut, window=window_days, until=until, silences=list(SILENCES))).df().replace({"who": WHO})
    new, rows = with_wilson(rows, "n_later_came", "n_later", "later_ids"), with_wilson(rows, "n_came", "n", "ids")
    rows[["later_share", "later_low", "later_high"]] = new[["share", "low", "high"]]
    chance = Z * np.sqrt(sum((r["share"] * (1 - r["share"])).clip(0.01) / r[ids] for r, ids in ((rows, "ids"), (new, "later_ids"))))
    return rows.assign(calibrated=(new["share"] - rows["share"]).abs() <= chance).drop(columns=["ids", "later_ids", "n_came", "n_later_came"])


def cadence(s: Stories, *, weeks: int = 12) -> pd.DataFrame:
    """Our touches (out, and meetings) in each week since creation of those open when it began: week, n_open, touches (a record and open week), n_untouched, their share, low, high."""
    return with_wilson(s.talk.sql(question("cadence", weeks=weeks)).df(), "n_untouched", "n_open", "n_open")


def early_signs(s: Stories, *, by_day: int = 14, horizon_days: int = 90) -> pd.DataFrame:
    """What was to be seen by day `by_day` of those that converted in the `horizon_days` after it, against the others: one row a sign, columns of `claims`."""
    rows = landmark(s, by_day, horizon_days)
    values, signs = as_of_features(s.lake, s.entity, rows[["id", "as_of"]]), {}
    for c in (c for c in values if re.fullmatch(r"(n|has)_(?!migrated).*(?<!_days)|web_seconds|pages_per_visit", c) and len(rows)):
        v, name = values[c].astype("float64").to_numpy(), readable(c).removeprefix("number of ")
        cut = np.nanmedian(v) if np.isfinite(v).any() and not c.startswith("has_") else 0
        signs[name if c.startswith("has_") else f"{name}: more than {cut:,.3g}" if cut else f"{name}: 1 or more"] = np.where(np.isnan(v), np.nan, v > cut)
    when = touches(s, rows).sql(question("first")).df()
    signs |= {"we touched them within a day": when["ours"] <= 1, "they spoke within 3 days": when["theirs"] <= 3, "we answered their first within a day": (when["answer"] <= 1).where(when["theirs"] + 1 <= by_day)}
    return claims(pd.DataFrame(signs, dtype=float), rows["event"].to_numpy(bool), rows["month"].to_numpy())


def claims(signs: pd.DataFrame, event: np.ndarray, stratum: np.ndarray) -> pd.DataFrame:
    """Each sign (a column of 0, 1, and nan where it could not be) against the event within strata of records alike, surest first: columns what to holds; n of comparable strata.
    difference = Mantel-Haenszel's with T. Sato's 95 % interval (Biometrics 1989); p by Cochran-Mantel-Haenszel's test, uncorrected, where N. Mantel and J. Fleiss's
    criterion (Am. J. Epidemiology 1980) allows it; q by Benjamini-Yekutieli, since signs of the same records depend on each other in any way; holds = q of 5 % or less."""
    out, (_, strata) = [], np.unique(stratum, return_inverse=True)
    for what, known in ((what, signs[what].notna().to_numpy()) for what in signs):
        x, y, code = signs[what].to_numpy()[known] == 1, event[known], strata[known]
        n, m, n1, a = (np.bincount(code, v).astype(float) for v in (None, y, x, x & y))
        both = (n1 > 0) & (n1 < n)  # a stratum without the sign, or with nothing but it, compares nobody
        x, y, (n, m, n1, a) = x[both[code]], y[both[code]], (v[both] for v in (n, m, n1, a))
        n0, b = n - n1, m - a
        weight, expected, least, most = (v.sum() for v in (n1 * n0 / n, n1 * m / n, np.maximum(0, n1 + m - n), np.minimum(n1, m)))
        if min(expected - least, most - expected) >= 5:
            diff, spread = ((a * n0 - b * n1) / n).sum() / weight, np.sqrt((n1 * n0 * m * (n - m) / (n**2 * np.maximum(n - 1, 1))).sum())
            var = diff * ((n1**2 * b - n0**2 * a + n1 * n0 * (n0 - n1) / 2) / n**2).sum() + ((a * (n0 - b) + b * (n1 - a)) / (2 * n)).sum()
            out.append((what, len(x), int(x.sum()), y[x].mean(), y[~x].mean(), diff, *(diff + side * Z * np.sqrt(max(var, 0)) / weight for side in (-1, 1)), 2 * norm.sf(abs(a.sum() - expected) / spread)))
    frame = pd.DataFrame(out, columns=["what", "n", "n_with", "rate_with_share", "rate_without_share", "difference", "low", "high", "p"])
    frame["q"] = false_discovery_control(frame["p"].astype(float), method="by") if out else np.nan
    return frame.assign(holds=frame["q"] <= FALSE_SHARE).sort_values(["p", "what"], ignore_index=True)


def percent(row: Any) -> str:
    """A row's share with its interval, such as 25 % (20 to 31 %)."""
    return f"{row['share']:.0%} ({row['low'] * 100:.0f} to {row['high']:.0%})".replace("%", " %")


def time_sentence(s: Stories, times: pd.DataFrame, days: int = 90) -> str:
    """What became of the records by day `days`, or why that cannot be said; columns of `time_to_outcome`."""
    rows = times[times["days"] == days].set_index("outcome")
    if rows.empty:
        return s.why or f"No {s.entity} was followed for {days} days."
    return (f"{days} days after creation **{percent(rows.loc[s.event])} have {'been ' * (s.entity == 'deal')}{s.event}**, {percent(rows.loc['dead'])} are dead and {percent(rows.loc['open'])} are still open: "
            f"of {len(s.frame):,} {s.entity}s, each counted for as long as it could be followed ({rows['n_at_risk'].iloc[0]:,} of them to that day without an end).")


def touch_sentence(s: Stories, first: pd.DataFrame) -> str:
    """How many had no touch by the day, and how to read the rates; columns of `first_touch`."""
    rows = first[first["by"] == "delay"]
    if rows.empty:
        return s.why or f"No call, e-mail or meeting is recorded with the {s.entity}s that could be followed, so nothing can be said of touches, answers and cadence."
    none, n = rows.loc[rows["first_touch"] == "none by then", "n"].sum(), rows["n"].sum()
    return f"{none:,} of {n:,} {s.entity}s had none by then ({none / n:.0%}). Where intervals overlap, chance may have made the difference; who is touched first is no accident.".replace("%)", " %)")


def talk_sentence(s: Stories, waits: pd.DataFrame, quiet: pd.DataFrame) -> str:
    """Who answers whom and when hope fades; columns of `delays` and `silences`."""
    if waits.empty:
        return s.why or f"No message with a direction is recorded with these {s.entity}s."
    told = [f"{r.who}: {r.within_1_day_share:.0%} within a day, {r.within_7_days_share:.0%} within a week (n = {r.n:,} of {r.n_records:,} {s.entity}s)" for r in waits.itertuples()]
    held = f" Of the {len(quiet)} rates of silence {quiet['calibrated'].sum()} were met by the later messages, within chance." if len(quiet) else " There are too few messages to say how silences end."
    return ("; ".join(told) + ".").replace("%", " %").capitalize() + held


def signs_sentence(s: Stories, signs: pd.DataFrame) -> str:
    """The claims that hold, or that none does; columns of `early_signs`."""
    if signs.empty:
        return s.why or f"Too few {s.entity}s could be followed, or too little is recorded of their first days, to look for early signs."
    held, rest = signs["what"][signs["holds"]], signs["what"][~signs["holds"]]
    head = f"**{len(held) or 'None'} of {len(signs)} signs hold{'s' * (len(held) < 2)}**, at a false-discovery rate of 5 % or less" + ": they go with the outcome among records of the same age and month of creation; that they cause it is not shown" * bool(len(held))
    return head + "." + f" Chance may have made {'the others' if len(held) else 'all of them'}: {', '.join(rest)}." * bool(len(rest))
