"""The rungs of the ladder, from the base rate to a bag of boosted trees blended with a logistic regression.

Every rung: fit(X, y, groups), log_odds(X) and contributions(X) (a row a record, a column a feature, in log-odds, centred on
the training rows). X holds bool, number and text columns; nothing is learned outside fit.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit, logit

CLIP = 1e-4


def kinds(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Numeric (bool too) and categorical column names."""
    numeric = [c for c in frame if pd.api.types.is_numeric_dtype(frame[c]) or pd.api.types.is_bool_dtype(frame[c])]
    return numeric, [c for c in frame if c not in numeric]


def as_numbers(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Numbers with NaN for unknown."""
    return frame[columns].apply(lambda c: pd.to_numeric(c.astype("Float64"))).astype("float64")


class BaseRate:
    """The share of events among the training rows, for everybody."""

    name = "base rate"

    def fit(self, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray) -> BaseRate:
        """Learn the rate, drawn one row towards a half."""
        self.rate_ = (y.sum() + 0.5) / (len(y) + 1)
        return self

    def log_odds(self, X: pd.DataFrame) -> np.ndarray:
        """The same for every row."""
        return np.full(len(X), logit(self.rate_))

    def contributions(self, X: pd.DataFrame) -> pd.DataFrame:
        """No feature has a part."""
        return pd.DataFrame(0.0, index=X.index, columns=X.columns)


class SegmentRate(BaseRate):
    """The rate of the record's segment: the one categorical field that separates the training rows best."""

    name = "rate by segment"
    weight = 20.0  # rows of the base rate added to each segment

    def fit(self, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray) -> SegmentRate:
        """Choose the field by its penalized likelihood (BIC), so that a field of many values has to earn them."""
        super().fit(X, y, groups)
        best, self.field_, self.table_ = -0.5 * np.log(max(len(y), 2)), "", pd.Series(dtype="float64")
        for c in kinds(X)[1]:
            if X[c].nunique() > 60:
                continue
            count = pd.Series(y).groupby(X[c].fillna("(none)").to_numpy()).agg(["sum", "count"])
            rate = (count["sum"] + self.weight * self.rate_) / (count["count"] + self.weight)
            gain = (count["sum"] * np.log(rate / self.rate_) + (count["count"] - count["sum"]) * np.log((1 - rate) / (1 - self.rate_))).sum()
            if gain - 0.5 * len(count) * np.log(len(y)) > best:
                best, self.field_, self.table_ = gain - 0.5 * len(count) * np.log(len(y)), c, rate
        return self

    def log_odds(self, X: pd.DataFrame) -> np.ndarray:
        """The segment's log-odds; the base rate's for a segment never seen."""
        if not self.field_:
            return super().log_odds(X)
        return logit(X[self.field_].fillna("(none)").map(self.table_).astype("float64").fillna(self.rate_).to_numpy())

    def contributions(self, X: pd.DataFrame) -> pd.DataFrame:
        """All of it is the segment's."""
        out = super().contributions(X)
        if self.field_:
            out[self.field_] = self.log_odds(X) - logit(self.rate_)
        return out


class NaiveBayes(BaseRate):
    """Count-based naive Bayes after Odoo's lead scoring: 0.1 added to every count, missing values skipped, numbers in deciles.

    log-odds = ln(W/L) + sum over fields of ln((won + .1) / T_won) - ln((lost + .1) / T_lost), T = the field's column sums.
    """

    name = "naive Bayes"

    def fit(self, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray) -> NaiveBayes:
        """Count won and lost by field and value."""
        super().fit(X, y, groups)
        numeric = kinds(X)[0]
        numbers = as_numbers(X, numeric)
        self.edges_ = {c: np.unique(np.nanquantile(numbers[c], np.linspace(0.1, 0.9, 9))) for c in numeric if numbers[c].notna().any()}
        self.prior_ = np.log(y.sum() + 0.1) - np.log((1 - y).sum() + 0.1)
        self.tables_ = {}
        for c, values in self._values(X).items():
            count = pd.crosstab(values.to_numpy(), y).reindex(columns=[0, 1], fill_value=0) + 0.1
            if len(count) > 1:
                self.tables_[c] = np.log(count[1] / count[1].sum()) - np.log(count[0] / count[0].sum())
        self.centre_ = {c: values.map(self.tables_[c]).astype("float64").fillna(0).mean() for c, values in self._values(X).items() if c in self.tables_}
        return self

    def _values(self, X: pd.DataFrame) -> dict[str, pd.Series]:
        numeric, text = kinds(X)
        numbers = as_numbers(X, numeric)
        out = {c: X[c].where(X[c].notna()) for c in text}
        for c, edges in self.edges_.items():
            out[c] = pd.Series(np.searchsorted(edges, numbers[c], side="right"), index=X.index).where(numbers[c].notna())
        return out

    def log_odds(self, X: pd.DataFrame) -> np.ndarray:
        """Prior plus the sum of the fields' parts; a value never seen is skipped."""
        values = self._values(X)
        total = self.prior_ + sum(values[c].map(t).astype("float64").fillna(0).to_numpy() for c, t in self.tables_.items())
        return np.clip(total + np.zeros(len(X)), logit(CLIP), logit(1 - CLIP))

    def contributions(self, X: pd.DataFrame) -> pd.DataFrame:
        """Each field's part less its mean."""
        out, values = super().contributions(X), self._values(X)
        for c, t in self.tables_.items():
            out[c] = values[c].map(t).astype("float64").fillna(0).to_numpy() - self.centre_[c]
        return out


class Logistic(BaseRate):
    """Ridge logistic regression: rare levels pooled, numbers log-scaled and standardized, missing flagged."""

    name = "logistic regression"

    def fit(self, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray) -> Logistic:
        """Fit with the penalty chosen by grouped cross-validation among three."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import log_loss
        from sklearn.model_selection import StratifiedGroupKFold

        super().fit(X, y, groups)
        design = self._learn_design(X)
        best = (np.inf, 0.1)
        for C in (0.01, 0.1, 1.0):
            try:
                folds = list(StratifiedGroupKFold(3, shuffle=True, random_state=0).split(design, y, groups))
                loss = np.mean([log_loss(y[b], LogisticRegression(C=C, max_iter=500).fit(design[a], y[a]).predict_proba(design[b])[:, 1], labels=[0, 1]) for a, b in folds])
            except ValueError:  # too few groups or events for three folds: the middle penalty
                continue
            best = min(best, (loss, C))
        self.model_ = LogisticRegression(C=best[1], max_iter=1000).fit(design, y)
        self.centre_ = design.mean(axis=0)
        return self

    def _learn_design(self, X: pd.DataFrame) -> np.ndarray:
        self.numeric_, self.text_ = kinds(X)
        numbers = _squash(as_numbers(X, self.numeric_))
        self.mean_, self.scale_ = numbers.mean().fillna(0), numbers.std(ddof=0).fillna(1).replace(0, 1)
        self.levels_ = {c: list(X[c].fillna("(none)").value_counts().loc[lambda n: n >= max(10, 0.002 * len(X))].index[:80]) for c in self.text_}
        return self._design(X)

    def _design(self, X: pd.DataFrame) -> np.ndarray:
        numbers = as_numbers(X, self.numeric_)
        scaled = ((_squash(numbers) - self.mean_) / self.scale_).clip(-6, 6).fillna(0)
        blocks, self.owner_ = [scaled.to_numpy(), numbers.isna().to_numpy(dtype=float)], [*self.numeric_, *self.numeric_]
        for c, levels in self.levels_.items():
            values = X[c].fillna("(none)").to_numpy(dtype=object)
            blocks.append((values[:, None] == np.array(levels, dtype=object)[None, :]).astype(float).reshape(len(X), len(levels)))
            self.owner_ += [c] * len(levels)
        return np.hstack(blocks)

    def log_odds(self, X: pd.DataFrame) -> np.ndarray:
        """The linear predictor."""
        return self.model_.decision_function(self._design(X))

    def contributions(self, X: pd.DataFrame) -> pd.DataFrame:
        """Coefficient times distance from the mean, summed by feature (SHAP of a linear model with independent columns)."""
        parts = (self._design(X) - self.centre_) * self.model_.coef_[0]
        return pd.DataFrame(parts, index=X.index).T.groupby(np.array(self.owner_)).sum().T.reindex(columns=X.columns, fill_value=0.0)


def _squash(numbers: pd.DataFrame) -> pd.DataFrame:
    return np.sign(numbers) * np.log1p(numbers.abs())


class Boosted(BaseRate):
    """LightGBM stopped early on a held-back seventh of the groups; `bags` of them averaged in log-odds."""

    name = "LightGBM"
    bags, seed = 1, 7

    def fit(self, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray) -> Boosted:
        """Train each bag on its own split by group."""
        import lightgbm as lgb

        super().fit(X, y, groups)
        self.levels_ = {c: list(X[c].fillna("(none)").value_counts().index[:120]) for c in kinds(X)[1]}
        data, unique = self._data(X), np.unique(groups)
        self.models_ = []
        for bag in range(self.bags):
            held = np.isin(groups, np.random.default_rng(self.seed + bag).choice(unique, max(1, len(unique) // 7), replace=False))
            if held.all() or len(np.unique(y[held])) < 2 or len(np.unique(y[~held])) < 2:
                held = np.zeros(len(y), dtype=bool)
            settings = {"objective": "binary", "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 30, "feature_fraction": 0.8, "bagging_fraction": 0.8,
                        "bagging_freq": 1, "lambda_l2": 5.0, "cat_smooth": 20.0, "num_threads": 2, "deterministic": True, "force_row_wise": True,
                        "seed": self.seed + bag, "verbose": -1}
            train = lgb.Dataset(data[~held], y[~held], free_raw_data=False)
            stops = [lgb.Dataset(data[held], y[held], reference=train)] if held.any() else []
            self.models_.append(lgb.train(settings, train, 400 if stops else 60, valid_sets=stops, callbacks=[lgb.early_stopping(25, verbose=False)] if stops else []))
        return self

    def _data(self, X: pd.DataFrame) -> pd.DataFrame:
        numeric, text = kinds(X)
        out = as_numbers(X, numeric)
        for c in text:
            out[c] = pd.Categorical(X[c].fillna("(none)"), categories=self.levels_[c])
        return out

    def log_odds(self, X: pd.DataFrame) -> np.ndarray:
        """Mean of the bags' raw scores."""
        data = self._data(X)
        return np.mean([m.predict(data, raw_score=True) for m in self.models_], axis=0)

    def contributions(self, X: pd.DataFrame) -> pd.DataFrame:
        """Exact tree SHAP values (LightGBM's pred_contrib), mean of the bags."""
        data = self._data(X)
        parts = np.mean([m.predict(data, pred_contrib=True) for m in self.models_], axis=0)[:, :-1]
        return pd.DataFrame(parts, index=X.index, columns=data.columns)[list(X.columns)]


class Blend(BaseRate):
    """Half a bag of LightGBMs, half the logistic regression, in log-odds."""

    name = "blend"

    def fit(self, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray) -> Blend:
        """Fit both halves."""
        self.trees_, self.linear_ = Boosted(), Logistic().fit(X, y, groups)
        self.trees_.bags = 3
        self.trees_.fit(X, y, groups)
        return self

    def log_odds(self, X: pd.DataFrame) -> np.ndarray:
        """Mean of the two log-odds."""
        return (self.trees_.log_odds(X) + self.linear_.log_odds(X)) / 2

    def contributions(self, X: pd.DataFrame) -> pd.DataFrame:
        """Mean of the two halves' parts."""
        return (self.trees_.contributions(X) + self.linear_.contributions(X)) / 2


RUNGS = (BaseRate, SegmentRate, NaiveBayes, Logistic, Boosted, Blend)


class Platt:
    """A two-parameter map of log-odds, p = expit(a + b z), fitted by maximum likelihood with a slight pull to (0, 1)."""

    def fit(self, z: np.ndarray, y: np.ndarray) -> Platt:
        """Learn a and b from cross-fitted log-odds."""
        from scipy.optimize import minimize

        if np.ptp(z) < 1e-9:  # one value for everybody: only a level can be learned
            self.a_, self.b_ = float(logit(np.clip(y.mean(), CLIP, 1 - CLIP)) - z.mean()), 1.0
            return self

        def loss(w: np.ndarray) -> float:
            m = w[0] + w[1] * z
            return float(np.sum(np.logaddexp(0, m) - y * m) + 0.5 * (w[0] ** 2 + 4 * (w[1] - 1) ** 2))

        self.a_, self.b_ = map(float, minimize(loss, np.array([0.0, 1.0]), method="Nelder-Mead").x)
        self.b_ = max(self.b_, 0.0)
        return self

    def predict(self, z: np.ndarray) -> np.ndarray:
        """Calibrated probabilities."""
        return np.clip(expit(self.a_ + self.b_ * z), CLIP, 1 - CLIP)
