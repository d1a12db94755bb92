"""What a score is worth: a list cut to capacity, precision against rivals, and the profit of calling down to a cut.

`rows` are judged rows, as `with_rivals` makes them: p (out of sample), y (0 or 1), group (the record), pool (whom it competes with: the records open at
the same instant), newest (higher = newer) and, where the CRM has a score of its own, crm (higher = better). Profit is value_per_conversion for
each one called that converts, less cost_per_call for each one called; it is told per 100 judged rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import WorkbenchError
from workbench.models.ladder import grouped_means

CAPACITIES, POINTS, ENDS = (0.05, 0.1, 0.2, 0.3, 0.5), 50, (0.025, 0.975)  # POINTS of a profit curve
YES, RANKS = {"true", "yes", "y", "1", "1.0"}, {"cold": 1, "warm": 2, "hot": 3, "low": 1, "medium": 2, "high": 3, "e": 1, "d": 2, "c": 3, "b": 4, "a": 5}
POLICIES = {"everybody": "everybody", "nobody": "nobody", "newest": "newest first, as many as the break-even cut", "even": "break-even cut",
            "crossed": "best cut, found on the other half", "same": "best cut, found on these very rows (flatters)"}


def consent(values: pd.Series) -> pd.Series:
    """given, refused or not said: whatever is neither empty nor clearly a yes refuses.

    >>> consent(pd.Series([True, "False", None, 2, "yes", float("nan")])).tolist()
    ['given', 'refused', 'not said', 'refused', 'given', 'not said']
    """
    def said(v: Any) -> str:
        return "not said" if pd.api.types.is_scalar(v) and pd.isna(v) else "given" if str(v).strip().lower() in YES else "refused"
    return pd.Series([said(v) for v in values.astype(object)], index=values.index, dtype=object)


def call_list(scores: pd.DataFrame, *, calls_per_day: float, days: float = 1, value: float | None = None) -> pd.DataFrame:
    """Whom to call: at most calls_per_day x days of `scores` (columns of `LeadScores.scores`), most worth first; who refused (may_call) is never among them.

    worth = p_convert x value: the column `value` where the frame has one (empty: `value`, else the median of the others), else `value` for all. Without
    probabilities the order stays. Returns the columns of `scores` but may_call, and consent (given, not said), value, worth, expected, expected_value
    (conversions and money when all down to this row are called).
    """
    known = scores["value"].astype(float) if "value" in scores else pd.Series(np.nan, index=scores.index)
    known, p = known.fillna(known.median() if value is None else value), scores["p_convert"].astype(float)
    listed = scores.drop(columns="may_call").assign(consent=consent(scores["may_call"]), value=known, worth=p * known, expected=p)
    listed = listed.loc[(-p * known.fillna(1)).sort_values(kind="stable").index].query("consent != 'refused'").head(max(int(calls_per_day * days), 0))
    return listed.assign(expected=listed["expected"].cumsum(), expected_value=listed["worth"].cumsum()).reset_index(drop=True)


def ordinal(values: pd.Series, order: list[str] | None = None) -> np.ndarray:
    """A CRM's own score as numbers, higher = better: numbers as they are, ratings by `order` (from worst to best) or by known words; nothing = NaN.

    >>> ordinal(pd.Series(["Hot", "cold", None])).tolist()
    [3.0, 1.0, nan]
    """
    numbers, texts = pd.to_numeric(values, errors="coerce"), values.astype(object).map(lambda v: str(v).strip().lower())
    if order or not (numbers.notna() | values.isna()).all():
        numbers = texts.map({str(v).strip().lower(): i for i, v in enumerate(order)} if order else RANKS)
    if (numbers.isna() & values.notna()).any():
        raise WorkbenchError(f"The values of {values.name} have no known order.", fix="Name them all, from worst to best.")
    return numbers.mask(values.isna()).to_numpy(float)


def with_rivals(rows: pd.DataFrame, told: pd.DataFrame, *, score_at: str, crm: str = "", order: list[str] | None = None) -> pd.DataFrame:
    """Judged rows (row, group, y, p) beside pool, newest and, where `crm` names a column of `told`, crm: each as it stood at the row's instant."""
    seen = told.iloc[rows["row"]].reset_index(drop=True)
    if crm and crm not in seen:
        raise WorkbenchError(f"{crm} is not known as it stood when the records were scored.", fix="Name a field that the report lists among the features.")
    out = rows.reset_index(drop=True).assign(pool=seen["as_of"] if score_at == "grid" else 0, newest=-seen["age_days"] if "age_days" in seen else seen["order"].astype(float))
    return out.assign(crm=ordinal(seen[crm], order)) if crm else out


def _place(rows: pd.DataFrame, key: str, seed: int) -> np.ndarray:
    """Place of each row in its pool, 1 = first; equals in an order drawn at random, empty ones last."""
    drawn = rows[[key, "pool"]].reset_index(drop=True).sample(frac=1, random_state=seed)
    return drawn.groupby("pool")[key].rank(method="first", ascending=False, na_option="bottom").sort_index().to_numpy()


def lift(rows: pd.DataFrame, *, capacities: tuple[float, ...] = CAPACITIES, seed: int = 7) -> pd.DataFrame:
    """One row a capacity (a share of each pool, or, from 1 on, so many calls a pool): what came of the score's choice and of its rivals'.

    n_called; precision, newest and crm (shares that converted), lift = precision / base rate, more = precision - newest, more_crm = precision - crm; each
    with its 95 % interval (low and high, newest_low ...), drawn by record, the same draws for all.
    """
    rivals = {r: more for r, more in (("newest", "more"), ("crm", "more_crm")) if r in rows}
    names = ["precision", *rivals]
    columns = ["capacity", "n_called", *(c for s in (*names, "lift", *rivals.values()) for c in (s, *(f"{s}_{end}".removeprefix("precision_") for end in ("low", "high"))))]
    if rows.empty:
        return pd.DataFrame(columns=columns)
    size = rows["pool"].map(rows["pool"].value_counts()).to_numpy()
    called = np.column_stack([_place(rows, name.replace("precision", "p"), seed) <= (np.maximum(np.round(size * c), 1) if c < 1 else c) for name in names for c in capacities] + [size > 0])
    y = np.repeat(rows["y"].to_numpy(float)[:, None], called.shape[1], axis=1)
    found = np.vstack([(y * called).sum(0) / called.sum(0), grouped_means(y, rows["group"].to_numpy(), seed, called.astype(float))])  # the first row is what was seen, the others are drawn
    parts = dict(zip(names, np.split(found[:, :-1], len(names), axis=1), strict=True))
    parts |= {"lift": parts["precision"] / np.where(found[:, -1:] > 0, found[:, -1:], np.nan)} | {more: parts["precision"] - parts[r] for r, more in rivals.items()}
    told = (v for part in parts.values() for v in (part[0], *np.nanquantile(part[1:], ENDS, axis=0)))
    return pd.DataFrame(dict(zip(columns, [capacities, called[:, :len(capacities)].sum(0), *told], strict=True)))


def best_cut(p: np.ndarray, gain: np.ndarray) -> float:
    """The lowest probability still worth a call: calling everybody from it up gains most; infinity = call nobody. Equals are called together.

    >>> best_cut(np.array([.9, .6, .3]), np.array([5., -1., -1.])), best_cut(np.array([.9, .9]), np.array([5., -9.]))
    (0.9, inf)
    """
    order = np.argsort(-p, kind="stable")
    total, falling = np.cumsum(gain[order]), p[order]
    total[:-1][falling[1:] == falling[:-1]] = -np.inf
    return float(falling[np.argmax(total)]) if len(p) and total.max() > 0 else np.inf


def _gain(rows: pd.DataFrame, cost_per_call: float, value_per_conversion: float) -> np.ndarray:
    if not (0 <= cost_per_call < np.inf and 0 < value_per_conversion < np.inf):
        raise WorkbenchError("A call costs 0 or more, and a conversion is worth more than 0.", fix="Mend cost_per_call and value_per_conversion in [value] of workbench.toml.")
    return 100 * (rows["y"].to_numpy(float) * value_per_conversion - cost_per_call)


def profit_curve(rows: pd.DataFrame, *, cost_per_call: float, value_per_conversion: float, seed: int = 7) -> pd.DataFrame:
    """Profit per 100 judged rows of calling the best down to a cut; one row a cut, from nobody (infinite) to everybody: cut, share called, profit, low, high (95 %, by record)."""
    gain, p = _gain(rows, cost_per_call, value_per_conversion), rows["p"].to_numpy(float)
    if rows.empty:
        return pd.DataFrame(columns=["cut", "share", "profit", "low", "high"])
    cuts = np.r_[np.inf, np.unique(np.quantile(p, np.linspace(0, 1, POINTS + 1), method="inverted_cdf"))[::-1]]
    called = p[:, None] >= cuts
    low, high = np.quantile(grouped_means(gain[:, None] * called, rows["group"].to_numpy(), seed), ENDS, axis=0)
    return pd.DataFrame({"cut": cuts, "share": called.mean(0), "profit": gain @ called / len(p), "low": low, "high": high})


def cut_table(rows: pd.DataFrame, *, cost_per_call: float, value_per_conversion: float, seed: int = 7) -> pd.DataFrame:
    """One row a way to choose whom to call, indexed by a key of POLICIES: policy, cut (the least p called), share called, profit per 100 judged rows with its 95 %
    interval, and `more`: the break-even cut's profit less this one's, with the interval of the paired difference.

    The break-even cut is cost / value and learns nothing. A best cut is searched on one half of the records and judged on the other, both ways; judged on the
    rows that it was found on it flatters, as the last row shows.
    """
    gain, p, groups = _gain(rows, cost_per_call, value_per_conversion), rows["p"].to_numpy(float), rows["group"].to_numpy()
    if rows.empty:
        return pd.DataFrame(columns=["policy", "cut", "share", "profit", "low", "high", "more", "more_low", "more_high"])
    records, code = np.unique(groups, return_inverse=True)
    half, even = np.random.default_rng(seed).permutation(len(records))[code] % 2, cost_per_call / value_per_conversion
    found = np.array([best_cut(p[half != h], gain[half != h]) for h in (0, 1)])
    cuts = {"everybody": 0.0, "nobody": np.inf, "newest": np.nan, "even": even, "crossed": found.mean(), "same": best_cut(p, gain)}
    n_called = pd.Series(p >= even).groupby(rows["pool"].to_numpy()).transform("sum").to_numpy()
    called = pd.DataFrame({k: p >= (found[half] if k == "crossed" else cut) for k, cut in cuts.items()}).assign(newest=_place(rows, "newest", seed) <= n_called)
    profits, base = gain[:, None] * called.to_numpy(), list(cuts).index("even")
    draws, mean = grouped_means(profits, groups, seed), profits.mean(axis=0)
    (low, high), (more_low, more_high) = (np.quantile(d, ENDS, axis=0) for d in (draws, draws[:, [base]] - draws))
    return pd.DataFrame({"policy": list(POLICIES.values()), "cut": list(cuts.values()), "share": called.mean(), "profit": mean, "low": low, "high": high,
                         "more": mean[base] - mean, "more_low": more_low, "more_high": more_high})


def profit_sentence(cuts: pd.DataFrame, *, currency: str = "", noun: str = "record") -> str:
    """From which chance on a call pays, what that would have earned, and against what; from `cut_table`."""
    if cuts.empty:
        return "No probabilities were given out, so no profit can be told."
    row = cuts.to_dict("index")
    even, more = row["even"], [f"{row[k]['more']:+,.0f} ({row[k]['more_low']:+,.0f} to {row[k]['more_high']:+,.0f})" for k in ("everybody", "newest")]
    return (f"A call pays from a chance of **{even['cut']:.1%}** on: its cost divided by the value of a conversion. Of the judged {noun}s {even['share']:.0%} had that. Calling them would have earned "
            f"**{even['profit']:,.0f}{currency and ' ' + currency}** per 100 judged (95 % interval {even['low']:,.0f} to {even['high']:,.0f}): {more[0]} against calling everybody, {more[1]} against as many "
            f"calls newest first. A cut searched for on one half of the records earned {row['crossed']['profit']:,.0f} on the other. All this counts every conversion of those called as the call's own; "
            "how many would have come without it, the past does not tell.")


def lift_sentence(lifted: pd.DataFrame, capacity: float = 0.1) -> str:
    """What the score's choice brings at one capacity beside its rivals', and whether the difference is more than chance; from `lift`."""
    if lifted.empty:
        return "No probabilities were given out, so there is nothing to compare."
    row = lifted.iloc[(lifted["capacity"] - capacity).abs().argmin()]
    out = (f"Of the first {row['capacity']:{'.0%' if row['capacity'] < 1 else '.0f'}} by score **{row['precision']:.0%}** converted ({row['low']:.0%} to {row['high']:.0%}), "
           f"{row['lift']:.1f} times the base rate ({row['lift_low']:.1f} to {row['lift_high']:.1f}).")
    for rival, words, more in (("newest", "Newest first", "more"), ("crm", "The CRM's own score", "more_crm")):
        if rival in row:
            low, high = row[f"{more}_low"], row[f"{more}_high"]
            verdict = "the score does better" if low > 0 else "the score does **worse**" if high < 0 else "no difference can be told"
            out += f" {words} finds {row[rival]:.0%}: {verdict} ({100 * low:+.0f} to {100 * high:+.0f} points)."
    return out
