"""The rungs of the ladder, from the base rate to a bag of boosted trees blended with a logistic regression.

Every rung: fit(X, y, groups, beside) with `beside` = the rungs already fitted on the same rows; parts(X) = log-odds, a row a
record and a column a part (the blend has two); contributions(X) = for each part a frame, a row a record and a column a feature,
whose row sums differ from the part by one constant. X holds bool, number, date and category columns, and free text in columns whose
name ends in _text: only the logistic regression (and the blend) reads these.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import betaln, logit

NONE, WORD = "(none)", r"(?u)\b[^\W\d_]{3,}\b"


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


class Terms:
    """TF-IDF of a free text: the words, of three letters or more, found in ten or more of the rows learned from; at most 100, the commonest."""

    def fit(self, texts: pd.Series) -> Terms:
        from sklearn.feature_extraction.text import CountVectorizer

        self.terms_, self.idf_ = [], np.empty(0)
        if texts.notna().sum() >= 10:
            count = CountVectorizer(token_pattern=WORD, binary=True).fit(texts.fillna(""))
            found = np.asarray(count.transform(texts.fillna("")).sum(axis=0)).ravel()
            names = count.get_feature_names_out()
            kept = np.sort(np.lexsort((names, -found))[: min(100, int((found >= 10).sum()))])
            self.terms_, self.idf_ = names[kept].tolist(), np.log((1 + len(texts)) / (1 + found[kept])) + 1
        return self

    def weights(self, texts: pd.Series) -> np.ndarray:
        """A row a text, a column a word: count x idf, each row of length 1 (0 where no word is known)."""
        from sklearn.feature_extraction.text import CountVectorizer

        if not self.terms_:
            return np.empty((len(texts), 0))
        told = CountVectorizer(token_pattern=WORD, vocabulary=self.terms_).transform(texts.fillna("")).toarray() * self.idf_
        return told / np.maximum(np.sqrt((told**2).sum(axis=1, keepdims=True)), 1e-12)


class Logistic(BaseRate):
    """Ridge logistic regression, its penalty chosen among three: rare levels pooled, numbers log-scaled, piecewise linear and standardized, missing flagged."""

    name = "logistic regression"
    chosen_on = 8_000  # rows that choose the penalty

    def fit(self, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray, beside: dict | None = None) -> Logistic:
        super().fit(X, y, groups)
        design = self.learned_design(X)
        self.model_ = ridge(_penalty(design, y, groups)).fit(design, y)
        self.centre_ = design.mean(axis=0)
        return self

    def learned_design(self, X: pd.DataFrame) -> np.ndarray:
        """The design matrix of rows to learn from, whose levels, bends and scales later rows are given."""
        self.numeric_, self.text_ = kinds(X)
        numbers = _squash(as_numbers(X, self.numeric_))
        self.knots_ = {c: np.unique(np.nanquantile(v, (0.2, 0.4, 0.6, 0.8))) if v.notna().any() else np.empty(0) for c, v in numbers.items()}
        self.levels_ = {c: [v for v, n in as_text(X[c]).value_counts().items() if n >= max(10, 0.002 * len(X))][:60] for c in self.text_}
        self.words_ = {c: Terms().fit(X[c]) for c in X if c.endswith("_text")}
        bent, _ = self._bent(X)
        self.mean_, self.scale_ = np.nanmean(bent, axis=0) if len(X) else 0.0, np.nanstd(bent, axis=0)
        self.scale_[~(self.scale_ > 0)] = 1.0
        self.mean_ = np.nan_to_num(self.mean_)
        return self._design(X)

    def _bent(self, X: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
        """Each number and its part above each knot."""
        numbers = _squash(as_numbers(X, self.numeric_))
        columns = [np.maximum(numbers[c].to_numpy() - k, 0) if np.isfinite(k) else numbers[c].to_numpy() for c in self.numeric_ for k in (-np.inf, *self.knots_[c])]
        return np.column_stack(columns) if columns else np.empty((len(X), 0)), [c for c in self.numeric_ for _ in (0, *self.knots_[c])]

    def _design(self, X: pd.DataFrame) -> np.ndarray:
        bent, owner = self._bent(X)
        blocks = [np.nan_to_num(np.clip((bent - self.mean_) / self.scale_, -6, 6)), as_numbers(X, self.numeric_).isna().to_numpy(dtype=float)]
        self.owner_ = [*owner, *self.numeric_]
        for c, levels in self.levels_.items():
            blocks.append((as_text(X[c]).to_numpy()[:, None] == np.array(levels, dtype=object)[None, :]).astype(float).reshape(len(X), len(levels)))
            self.owner_ += [c] * len(levels)
        for c, terms in self.words_.items():
            blocks.append(terms.weights(X[c]))
            self.owner_ += [c] * len(terms.terms_)
        return np.hstack(blocks)

    def log_odds(self, X: pd.DataFrame) -> np.ndarray:
        return self.model_.decision_function(self._design(X))

    def contributions(self, X: pd.DataFrame) -> list[pd.DataFrame]:
        """Coefficient times distance from the mean, summed by feature (SHAP of a linear model with independent columns)."""
        parts = (self._design(X) - self.centre_) * self.model_.coef_[0]
        return [pd.DataFrame(parts, index=X.index).T.groupby(np.array(self.owner_)).sum().T.reindex(columns=X.columns, fill_value=0.0)]


def _squash(numbers: pd.DataFrame) -> pd.DataFrame:
    return np.sign(numbers) * np.log1p(numbers.abs())


def ridge(strength: float):
    """A logistic regression with a quadratic penalty."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, solver="newton-cholesky", max_iter=100)


def _penalty(design: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    """The penalty of least log loss when each row is left out, by one Newton step from the fit of all (Rad and Maleki 2020); one row a group, so that none is
    foretold by its like; the middle penalty where there are too few events."""
    order = np.random.default_rng(0).permutation(len(y))
    one = order[np.unique(groups[order], return_index=True)[1]][: Logistic.chosen_on]
    x, y = np.column_stack([design[one], np.ones(len(one))]), y[one]
    if min(y.sum(), len(y) - y.sum()) < 10:
        return 0.1
    losses = {}
    for strength in (0.01, 0.1, 1.0):
        model = ridge(strength).fit(x[:, :-1], y)
        z = model.decision_function(x[:, :-1])
        p = 1 / (1 + np.exp(-z))
        weight = p * (1 - p)
        spread = np.linalg.inv((x.T * weight) @ x + np.diag(np.r_[np.full(x.shape[1] - 1, 1 / strength), 1e-9]))
        lever = np.einsum("ij,jk,ik->i", x, spread, x, optimize=True)
        alone = z - lever * (y - p) / np.maximum(1 - weight * lever, 1e-3)
        losses[strength] = np.mean(np.logaddexp(0, alone) - y * alone)
    return min(losses, key=losses.__getitem__)


class Boosted(BaseRate):
    """LightGBM stopped early on a held-back seventh of the groups; `bags` of them averaged in log-odds."""

    name = "LightGBM"

    def __init__(self, bags: int = 1, seed: int = 7):
        self.bags, self.seed = bags, seed

    def fit(self, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray, beside: dict | None = None) -> Boosted:
        import lightgbm as lgb

        super().fit(X, y, groups)
        first = (beside or {}).get(self.name)
        self.levels_ = {c: list(as_text(X[c]).value_counts().index[:120]) for c in kinds(X)[1]}
        self.models_ = list(first.models_) if first else []
        data, unique = self._data(X), np.unique(groups)
        for seed in range(self.seed + len(self.models_), self.seed + self.bags):
            held = np.isin(groups, np.random.default_rng(seed).choice(unique, max(1, len(unique) // 7), replace=False))
            if len(np.unique(y[held])) < 2 or len(np.unique(y[~held])) < 2:
                held = np.zeros(len(y), dtype=bool)
            settings = {"objective": "binary", "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": int(30 * min(len(y) / len(unique), 10)), "feature_fraction": 0.8,
                        "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5.0, "cat_smooth": 20.0, "num_threads": 1, "deterministic": True, "force_row_wise": True,
                        "seed": seed, "verbose": -1}
            train = lgb.Dataset(data[~held], y[~held], free_raw_data=False)
            stops = [lgb.Dataset(data[held], y[held], reference=train)] if held.any() else []
            self.models_.append(lgb.train(settings, train, 400 if stops else 60, valid_sets=stops, callbacks=[lgb.early_stopping(25, verbose=False)] if stops else []))
        return self

    def _data(self, X: pd.DataFrame) -> pd.DataFrame:
        numeric, text = kinds(X)
        return as_numbers(X, numeric).assign(**{c: pd.Categorical(as_text(X[c]), categories=self.levels_[c]) for c in text})

    def log_odds(self, X: pd.DataFrame) -> np.ndarray:
        data = self._data(X)
        return np.mean([m.predict(data, raw_score=True) for m in self.models_], axis=0)

    def contributions(self, X: pd.DataFrame) -> list[pd.DataFrame]:
        """Exact tree SHAP values (LightGBM's pred_contrib), mean of the bags."""
        data = self._data(X)
        parts = np.mean([m.predict(data, pred_contrib=True) for m in self.models_], axis=0)[:, :-1]
        return [pd.DataFrame(parts, index=X.index, columns=data.columns).reindex(columns=X.columns, fill_value=0.0)]


class Blend(BaseRate):
    """A bag of LightGBMs and the logistic regression; how much of each is learned by the calibration."""

    name = "blend"
    bags = 4

    def fit(self, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray, beside: dict | None = None) -> Blend:
        self.linear_ = (beside or {}).get(Logistic.name) or Logistic().fit(X, y, groups)
        self.trees_ = Boosted(self.bags).fit(X, y, groups, beside)
        return self

    def parts(self, X: pd.DataFrame) -> np.ndarray:
        return np.column_stack([self.trees_.log_odds(X), self.linear_.log_odds(X)])

    def contributions(self, X: pd.DataFrame) -> list[pd.DataFrame]:
        return self.trees_.contributions(X) + self.linear_.contributions(X)


RUNGS = (BaseRate, SegmentRate, NaiveBayes, Logistic, Boosted, Blend)
