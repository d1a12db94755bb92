"""Groups of scores against what came of them: bins, bands, segments; and how far the open records have moved from those learned from.

`rows` are judged rows: p (out of sample), y (0 or 1) and luck, the record: its snapshots share their luck, so together they count as one.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from scipy.special import gammainc, gammaln
from scipy.stats import false_discovery_control

from workbench.models.calibration import equal_mass

# Bands: odds against the base rate's odds, from above.
BANDS = {"A": (3.0, "three times the base rate's odds or more"), "B": (1.5, "one and a half to three times"), "C": (1 / 1.5, "about the base rate's odds"),
         "D": (1 / 3, "a third to two thirds"), "E": (0.0, "less than a third")}
LOOK, MOVED = 0.1, 0.25  # the rule of thumb of credit scoring (N. Siddiqi, Credit Risk Scorecards, 2006)
FALSE_SHARE, EMPTY, OTHERS = 0.05, "not given", "any other value"
SPREADS, LEVELS = np.geomspace(0.02, 1.5, 40), np.exp(np.linspace(-0.7, 0.7, 57))  # grid of the segments' standard deviation and common level
LABELS = {"team": ("owner_id", "user", "team"), "product": ("product_id", "product", "name"), "campaign": ("campaign_id", "campaign", "name"), "source": ("source",), "origin": ("origin_form",)}


def wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share seen in n records.

    >>> [round(v, 3) for v in wilson(.5, 100)]
    [0.404, 0.596]
    """
    middle, half = (share + z * z / (2 * n)) / (1 + z * z / n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return float(max(middle - half, 0)), float(min(middle + half, 1))


def shares(rows: pd.DataFrame, labels: np.ndarray | list, name: str) -> pd.DataFrame:
    """One row a label: n, n_records, expected and actual events, the same as shares (p_mean, observed), Wilson's interval of the observed by records."""
    out = [(label, len(part), n := part["luck"].nunique(), part["p"].sum(), part["y"].sum(), part["p"].mean(), y := part["y"].mean(), *wilson(y, n)) for label, part in rows.groupby(labels)]
    return pd.DataFrame(out, columns=[name, "n", "n_records", "expected", "actual", "p_mean", "observed", "low", "high"])


def calibration_bins(rows: pd.DataFrame) -> pd.DataFrame:
    """`shares` of ten bins of equal mass, lowest probabilities first."""
    bins = np.zeros(len(rows), dtype=int)
    for i, part in enumerate(equal_mass(rows["p"].to_numpy(float)), 1):
        bins[part] = i
    return shares(rows, bins, "bin")


def band_of(p: np.ndarray, base: float) -> np.ndarray:
    """The band of each probability: its odds against those of the base rate.

    >>> band_of(np.array([.9, .5, .1]), .5).tolist()  # odds of 9, 1 and 1/9 times those of the base rate
    ['A', 'C', 'E']
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        against = p / (1 - p) / (base / (1 - base))
    return np.select([against >= low for low, _ in BANDS.values()], list(BANDS), "E")


def band_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`shares` of each band that holds a row, best first, and what the band means."""
    found = shares(rows, band_of(rows["p"].to_numpy(float), rows["y"].mean()) if len(rows) else [], "band")
    return found.assign(meaning=found["band"].map({b: meaning for b, (_, meaning) in BANDS.items()}))


def psi(then: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Population stability index of counts by group, half a record added to each: sum of (share now - share then) x ln(share now / share then).

    >>> round(float(psi(np.array([99.5, 99.5]), np.array([149.5, 49.5]))), 3)  # .25 x ln(.75/.5) - .25 x ln(.25/.5)
    0.275
    """
    old, new = ((n + 0.5) / (n + 0.5).sum(axis=-1, keepdims=True) for n in (then, now))
    return ((new - old) * np.log(new / old)).sum(axis=-1)


def stability(then: pd.DataFrame, now: pd.DataFrame, fields: list[str], *, groups: np.ndarray | None = None, seed: int = 7, draws: int = 4000) -> pd.DataFrame:
    """How far the records scored `now` have moved from those learned from, or judged, `then`: one row a field of both frames, most moved first.

    psi over tenths of a number's values then, or the ten commonest values; chance = the 95th percentile of psi where nothing moved, at this n (drawn);
    reading: stable below .1, look, above .25 moved, where chance does not explain it (5 % false among all fields, Benjamini and Hochberg), else chance.
    where: the group that moved most, share_then and share_now. groups: the record of each row of `then`: its rows count as little more than one (Kish).
    """
    sizes = np.unique(groups, return_counts=True)[1] if groups is not None else np.ones(len(then))
    n_then, n_now, rng, out = sizes.sum() ** 2 / max((sizes**2).sum(), 1), len(now), np.random.default_rng(seed), []
    for field in fields if len(then) and n_now else []:
        old, new, names = _counts(then[field], now[field])
        old = old * n_then / old.sum()
        drawn = psi(*(rng.multinomial(round(n), (old + new) / (old + new).sum(), draws) for n in (n_then, n_now)))
        found, most = psi(old, new), int(np.argmax(np.abs(new / n_now - old / n_then)))
        out.append((field, found, np.quantile(drawn, 0.95), names[most], old[most] / n_then, new[most] / n_now, (1 + (drawn >= found).sum()) / (1 + draws)))
    table = pd.DataFrame(out, columns=["field", "psi", "chance", "where", "share_then", "share_now", "reading"])
    told = false_discovery_control(table["reading"]) <= FALSE_SHARE if len(table) else []
    table["reading"] = np.select([table["psi"] < LOOK, ~np.array(told, bool), table["psi"] <= MOVED], ["stable", "chance", "look"], "moved")
    return table.sort_values("psi", ascending=False, ignore_index=True)


def _counts(then: pd.Series, now: pd.Series, bins: int = 10) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows of each group then and now, and the groups' names: by the values then, in tenths or by the commonest; what is empty last."""
    if is_numeric_dtype(then) and not is_bool_dtype(then) and then.nunique() > bins:
        edges = np.unique(then.dropna().astype(float).quantile(np.linspace(0, 1, bins + 1)[1:-1]))
        names = [f"up to {edges[0]:.4g}", *(f"{a:.4g} to {b:.4g}" for a, b in zip(edges[:-1], edges[1:], strict=True)), f"above {edges[-1]:.4g}", EMPTY]
        codes = [np.where(v.isna(), len(edges) + 1, np.searchsorted(edges, v.astype(float))) for v in (then, now)]
    else:
        names = [*(top := _texts(then).value_counts().index[:bins]), OTHERS]
        codes = [np.where((i := top.get_indexer(_texts(v))) < 0, len(top), i) for v in (then, now)]
    old, new = (np.bincount(code, minlength=len(names)).astype(float) for code in codes)
    return old[(held := old + new > 0)], new[held], [name for name, h in zip(names, held, strict=True) if h]


def _texts(values: pd.Series) -> pd.Series:
    return values.astype(object).where(values.notna(), EMPTY).astype(str)


def segments(rows: pd.DataFrame, labels: pd.DataFrame, *, open_labels: pd.DataFrame | None = None, seed: int = 7, draws: int = 4000) -> pd.DataFrame:
    """Do the scores hold in every segment? One row a column of `labels` (by) and value (segment); `labels` stands beside `rows`, row by row.

    n, n_records, n_open (rows of `open_labels`), expected and actual events, ratio = actual / expected partially pooled, with its 95 % interval: a segment with
    little of its own borrows from the others, one with nothing is given what they do. reading: more or less than said where the interval leaves out 1 also
    after control of false discoveries (5 %, over all segments), else as said. Gamma-Poisson: actual ~ Poisson(expected x ratio), ratio ~ Gamma with level and
    spread on a grid (spread half-normal, .5), then conjugate; counts are divided by how much their variance exceeds a Poisson's.
    """
    p, y, tables, rng = rows["p"].to_numpy(float), rows["y"].to_numpy(float), [], np.random.default_rng(seed)
    base = pd.DataFrame({"n": 1, "expected": p, "actual": y, "var": p * (1 - p), "luck": rows["luck"].to_numpy()})
    off = base.assign(off=y - p).groupby("luck")["off"].sum()  # of a record over its snapshots
    excess = max((off**2).sum() / max(base["var"].sum(), 1e-9), 0.05)
    for by in labels:
        n_open = _texts(open_labels[by]).value_counts() if open_labels is not None else pd.Series(dtype=int)
        parts = base.groupby(_texts(labels[by]).to_numpy())
        found = parts[["n", "expected", "actual", "var"]].sum().assign(n_records=parts["luck"].nunique())
        found = found.reindex(found.index.union(n_open.index)).assign(by=by, n_open=n_open).rename_axis("segment").reset_index().fillna(0)
        scale = excess * (found["var"] / found["expected"]).fillna(1)
        shape, rate = _posterior((found["actual"] / scale).to_numpy(), (found["expected"] / scale).to_numpy(), rng, draws)
        (low, high), below = np.quantile(rng.gamma(shape) / rate, (0.025, 0.975), axis=0), gammainc(shape, rate).mean(axis=0)
        tables.append(found.assign(ratio=(shape / rate).mean(axis=0), low=low, high=high, reading=2 * np.minimum(below, 1 - below)))
    columns = ["by", "segment", "n", "n_records", "n_open", "expected", "actual", "ratio", "low", "high", "reading"]
    if not sum(map(len, tables)):
        return pd.DataFrame(columns=columns)
    out = pd.concat(tables, ignore_index=True).astype(dict.fromkeys(("n", "n_records", "n_open", "actual"), int))
    told = (false_discovery_control(out["reading"].clip(0, 1)) <= FALSE_SHARE) & ((out["low"] > 1) | (out["high"] < 1))
    out["reading"] = np.select([~told, out["ratio"] > 1], ["as said", "more than said"], "less than said")
    return out.sort_values(["by", "n", "segment"], ascending=[True, False, True], ignore_index=True)[columns]


def _posterior(actual: np.ndarray, expected: np.ndarray, rng: np.random.Generator, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws (rows) of shape and rate of each segment's (columns) gamma law: points of the grid by their marginal likelihood, each with its conjugate law."""
    spread, level = (g.ravel() for g in np.meshgrid(SPREADS, LEVELS))
    a, b = 1 / spread**2, 1 / spread**2 / level
    log = (gammaln(actual + a[:, None]) - (gammaln(a) - a * np.log(b))[:, None] - (actual + a[:, None]) * np.log(expected + b[:, None])).sum(axis=1)
    log += np.log(spread) - spread**2 / (2 * 0.5**2)  # the grid is even in log spread
    chosen = rng.choice(len(a), draws, p=(weight := np.exp(log - log.max())) / weight.sum())
    return actual + a[chosen, None], expected + b[chosen, None]


def segment_labels(lake, frame: pd.DataFrame, *, as_of: datetime) -> pd.DataFrame:
    """Team, product, campaign, source and form of origin of each row of features, where it has them; names, and owners' teams, as of `as_of`."""
    return pd.DataFrame({name: frame[field].map(lake.read(*table[:1], as_of, columns=["id", *table[1:]]).set_index("id").iloc[:, 0]) if table else frame[field]
                         for name, (field, *table) in LABELS.items() if field in frame}, index=frame.index)
