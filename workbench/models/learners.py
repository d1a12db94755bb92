"""The rungs that learn weights: a logistic regression, boosted trees, and a bag of trees blended with the regression. See rungs.py for what a rung does."""

from __future__ import annotations

import numpy as np
import pandas as pd

from workbench.models.rungs import BaseRate, NaiveBayes, SegmentRate, as_numbers, as_text, kinds

WORD = r"(?u)\b[^\W\d_]{3,}\b"


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
        words = {c: terms.weights(X[c]) for c, terms in self.words_.items()}
        self.owner_ = [*owner, *self.numeric_, *(c for c, levels in self.levels_.items() for _ in levels), *(c for c, w in words.items() for _ in range(w.shape[1]))]
        design, at, row = np.zeros((len(X), len(self.owner_))), bent.shape[1], np.arange(len(X))
        design[:, :at] = np.nan_to_num(np.clip((bent - self.mean_) / self.scale_, -6, 6))
        design[:, at: at + len(self.numeric_)] = as_numbers(X, self.numeric_).isna()
        at += len(self.numeric_)
        for c, levels in self.levels_.items():
            code = pd.Index(levels, dtype=object).get_indexer(as_text(X[c]))
            design[row[code >= 0], at + code[code >= 0]] = 1
            at += len(levels)
        for block in words.values():
            design[:, at: at + block.shape[1]] = block
            at += block.shape[1]
        return design

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
            settings = {"objective": "binary", "learning_rate": 0.1, "num_leaves": 6, "min_data_in_leaf": int(30 * min(len(y) / len(unique), 10)), "feature_fraction": 0.8,
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
        return np.mean([m.predict(data, raw_score=True, num_threads=0) for m in self.models_], axis=0)

    def contributions(self, X: pd.DataFrame) -> list[pd.DataFrame]:
        """Exact tree SHAP values (LightGBM's pred_contrib), mean of the bags."""
        data = self._data(X)
        parts = np.mean([m.predict(data, pred_contrib=True, num_threads=0) for m in self.models_], axis=0)[:, :-1]
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
