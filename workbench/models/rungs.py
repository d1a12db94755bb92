"""The rungs of the ladder: what every one does, and those that count (the others learn weights: learners.py).

Every rung: fit(X, y, groups, beside) with `beside` = the rungs already fitted on the same rows; parts(X) = log-odds, a row a
record and a column a part (the blend has two); contributions(X) = for each part a frame, a row a record and a column a feature,
whose row sums differ from the part by one constant. X holds bool, number, date and category columns, and free text in columns whose
name ends in _text: only the logistic regression (and the blend) reads these.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import betaln, logit

NONE = "(none)"


def kinds(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Numeric (dates too) and categorical (yes and no too) column names; free text is neither."""
    numeric = [c for c in frame if not pd.api.types.is_bool_dtype(frame[c])
               and (pd.api.types.is_numeric_dtype(frame[c]) or pd.api.types.is_datetime64_any_dtype(frame[c]))]
    return numeric, [c for c in frame if c not in numeric and not c.endswith("_text")]


def as_numbers(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Numbers (a date = its day number), NaN for unknown."""
    out = {c: (frame[c] - pd.Timestamp(0)) / pd.Timedelta(days=1) if pd.api.types.is_datetime64_any_dtype(frame[c]) else frame[c] for c in columns}
    return pd.DataFrame({c: v.astype("Float64").to_numpy("float64", na_value=np.nan) for c, v in out.items()}, index=frame.index).replace([np.inf, -np.inf], np.nan)


def as_text(column: pd.Series) -> pd.Series:
    """Levels as text, (none) for unknown; levels that differ in case or outer blanks only are one.

    >>> as_text(pd.Series(["Retail", " RETAIL", None])).tolist()
    ['retail', 'retail', '(none)']
    """
    codes, levels = pd.factorize(column.astype("string"))
    names = np.array([*(str(level).strip().casefold() for level in levels), NONE], dtype=object)
    return pd.Series(names[codes], index=column.index)


def group_folds(y: np.ndarray, groups: np.ndarray, k: int = 5, seed: int = 7, alike: np.ndarray | None = None) -> np.ndarray:
    """Each row's fold: groups are dealt out whole, those with an event and those without apart, the large ones first.

    alike: a number a row; groups of one number are dealt one after the other, so that every fold learns of all of them.

    >>> group_folds(np.array([1, 1, 0, 0, 0]), np.array(["a", "b", "c", "c", "d"]), k=2)[[2, 3, 4]].tolist()
    [0, 0, 1]
    """
    _, first, code = np.unique(groups, return_index=True, return_inverse=True)
    size, event = np.bincount(code), np.bincount(code, y) > 0
    cell = np.zeros(len(size), dtype=int) if alike is None else np.unique(alike[first], return_inverse=True)[1]
    large, k = np.bincount(cell, size)[cell], int(max(2, min(k, event.sum(), (~event).sum())))
    fold, rng = np.empty(len(size), dtype=int), np.random.default_rng(seed)
    for side in (event, ~event):
        order = np.flatnonzero(side)[np.lexsort((rng.random(side.sum()), -size[side], cell[side], -large[side]))]
        fold[order] = np.resize(np.r_[np.arange(k), np.arange(k)[::-1]], len(order))
    return fold[code]


class BaseRate:
    """The share of events among the training rows, for everybody."""

    name = "base rate"

    def fit(self, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray, beside: dict | None = None) -> BaseRate:
        self.rate_ = (y.sum() + 0.5) / (len(y) + 1)
        return self

    def log_odds(self, X: pd.DataFrame) -> np.ndarray:
        """Log-odds before calibration."""
        return np.full(len(X), logit(self.rate_))

    def parts(self, X: pd.DataFrame) -> np.ndarray:
        """The log-odds, a column a part."""
        return self.log_odds(X)[:, None]

    def contributions(self, X: pd.DataFrame) -> list[pd.DataFrame]:
        """What each feature adds to each part."""
        return [pd.DataFrame(0.0, index=X.index, columns=X.columns)]


class SegmentRate(BaseRate):
    """The rate of the record's segment, partially pooled: the one categorical field that separates the training rows best; a segment never seen has the base rate.

    Segments' rates ~ beta(k x base rate, k x (1 - base rate)); k, the records of the base rate that each segment is given, is learned.
    """

    name = "rate by segment"
    strengths = np.geomspace(2, 2000, 13)

    def fit(self, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray, beside: dict | None = None) -> SegmentRate:
        """Choose the field by its marginal likelihood over the k, in which a field of many values has to earn them; rows of one group count as one."""
        super().fit(X, y, groups)
        rows = len(y) / len(np.unique(groups))  # a group
        best, self.field_, self.table_ = np.log(10), "", pd.Series(dtype="float64")  # ten times likelier than no segments at all
        k = self.strengths[:, None]
        for c in kinds(X)[1]:
            count = pd.Series(y).groupby(as_text(X[c]).to_numpy()).agg(["sum", "count"]) / rows
            if len(count) > 60:
                continue
            won, lost = count["sum"].to_numpy(), (count["count"] - count["sum"]).to_numpy()
            likely = (betaln(won + k * self.rate_, lost + k * (1 - self.rate_)) - betaln(k * self.rate_, k * (1 - self.rate_))).sum(axis=1)
            worth = np.logaddexp.reduce(likely) - np.log(len(k)) - won.sum() * np.log(self.rate_) - lost.sum() * np.log(1 - self.rate_)
            if worth > best:
                strength = self.strengths[likely.argmax()]
                best, self.field_, self.table_ = worth, c, (count["sum"] + strength * self.rate_) / (count["count"] + strength)
        return self

    def log_odds(self, X: pd.DataFrame) -> np.ndarray:
        if not self.field_:
            return super().log_odds(X)
        return logit(as_text(X[self.field_]).map(self.table_).astype("float64").fillna(self.rate_).to_numpy())

    def contributions(self, X: pd.DataFrame) -> list[pd.DataFrame]:
        out = super().contributions(X)
        if self.field_:
            out[0][self.field_] = self.log_odds(X) - logit(self.rate_)
        return out


class NaiveBayes(BaseRate):
    """Count-based naive Bayes after Odoo's lead scoring: 0.1 added to every count, missing values skipped, numbers in deciles.

    log-odds = ln(W/L) + sum over fields of ln((won + .1) / T_won) - ln((lost + .1) / T_lost), T = the field's column sums; a value never seen is skipped.
    Without its stage term, since the stage that a lost record reached is known only afterwards.
    """

    name = "naive Bayes"

    def fit(self, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray, beside: dict | None = None) -> NaiveBayes:
        super().fit(X, y, groups)
        numbers = as_numbers(X, kinds(X)[0])
        self.edges_ = {c: np.unique(np.nanquantile(v, np.linspace(0.1, 0.9, 9))) for c, v in numbers.items() if v.notna().any()}
        self.prior_ = np.log(y.sum() + 0.1) - np.log((1 - y).sum() + 0.1)
        self.tables_, self.centre_ = {}, {}
        for c, values in self._values(X).items():
            count = pd.crosstab(values.to_numpy(), y).reindex(columns=[0, 1], fill_value=0) + 0.1
            if len(count) > 1:
                self.tables_[c] = np.log(count[1] / count[1].sum()) - np.log(count[0] / count[0].sum())
                self.centre_[c] = self._part(values, c).mean()
        return self

    def _values(self, X: pd.DataFrame) -> dict[str, pd.Series]:
        numeric, text = kinds(X)
        numbers, out = as_numbers(X, numeric), {c: as_text(X[c]).where(X[c].notna(), None) for c in text}
        for c, edges in self.edges_.items():  # up to and with an edge: zeros, where they are many, have a bin of their own
            out[c] = pd.Series(np.searchsorted(edges, numbers[c], side="left"), index=X.index).where(numbers[c].notna())
        return out

    def _part(self, values: pd.Series, column: str) -> np.ndarray:
        return values.map(self.tables_[column]).astype("float64").fillna(0).to_numpy()

    def log_odds(self, X: pd.DataFrame) -> np.ndarray:
        values = self._values(X)
        return self.prior_ + sum((self._part(values[c], c) for c in self.tables_), np.zeros(len(X)))

    def contributions(self, X: pd.DataFrame) -> list[pd.DataFrame]:
        out, values = super().contributions(X), self._values(X)
        for c in self.tables_:
            out[0][c] = self._part(values[c], c) - self.centre_[c]
        return out
