"""Calibration: the map from log-odds to probabilities, how far these are off, and the interval of what records scored alike do."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

CLIP, MONTH = 1e-4, 30.4375  # days
Z80 = 1.2815515655446004  # the normal distribution's 90th percentile: 80 % lie within
TYPICAL = 0.1  # how far, in log-odds, a map's bends and a level's moves between quarters usually are
HIDDEN = 0.1  # the share of the binomial variance that hidden causes explain beyond a score: an assumption, no data of ours can tell it


class Platt:
    """p = expit(a + sum of b x part), b >= 0, by maximum likelihood with a slight pull to a = 0 and equal b that add up to 1."""

    def fit(self, parts: np.ndarray, y: np.ndarray) -> Platt:
        """Learn a and b from the log-odds (a row a record, a column a part) of rows that the model has not seen."""
        even, spread = np.full(parts.shape[1], 1 / parts.shape[1]), np.ptp(parts, axis=0) > 1e-9
        if not spread.any():  # one value for everybody: only a level can be learned
            self.a_, self.b_ = float(logit(np.clip(y.mean(), CLIP, 1 - CLIP)) - parts.mean(axis=0) @ even), even
            return self

        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            m, away = w[0] + parts @ w[1:], w[1:] - even
            slope = expit(m) - y
            return (np.sum(np.logaddexp(0, m) - y * m) + 0.5 * w[0] ** 2 + 2 * away @ away, np.r_[slope.sum() + w[0], parts.T @ slope + 4 * away])

        found = minimize(loss, np.r_[0.0, even], jac=True, method="L-BFGS-B", bounds=[(None, None)] + [(0, None)] * len(even)).x
        self.a_, self.b_ = float(found[0]), found[1:]
        return self

    def predict(self, parts: np.ndarray) -> np.ndarray:
        """Calibrated probabilities."""
        return np.clip(expit(self.a_ + parts @ self.b_), CLIP, 1 - CLIP)


def log_losses(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Log loss of each row, in nats.

    >>> [round(float(v), 3) for v in log_losses(np.array([1, 0]), np.array([.8, .5]))]
    [0.223, 0.693]
    """
    p = np.clip(p, CLIP, 1 - CLIP)
    return -np.where(y == 1, np.log(p), np.log(1 - p))


def equal_mass(p: np.ndarray, bins: int = 10) -> list[np.ndarray]:
    """Row numbers of each bin, lowest probabilities first; every bin holds as many rows, give or take one."""
    return [part for part in np.array_split(np.argsort(p, kind="stable"), bins) if len(part)]


def calibration_error(y: np.ndarray, p: np.ndarray, bins: int = 10) -> float:
    """ECE over bins of equal mass: mean |observed - predicted|, weighted by rows.

    >>> round(calibration_error(np.array([0, 1]), np.array([.25, .75]), bins=2), 2)
    0.25
    """
    return float(sum(len(i) * abs(y[i].mean() - p[i].mean()) for i in equal_mass(p, bins)) / len(p))


def perfect_calibration_error(p: np.ndarray, groups: np.ndarray, seed: int = 7, draws: int = 400) -> tuple[float, float]:
    """ECE (mean, 95th percentile) of a model whose probabilities p are exactly true, at this n: what chance alone makes.

    Rows of one group (snapshots of one record) share their luck, so they count as little more than one.
    """
    _, code = np.unique(groups, return_inverse=True)
    parts, rng, found = equal_mass(p), np.random.default_rng(seed), np.empty(draws)
    for i in range(draws):
        off = (rng.random(code.max() + 1)[code] < p) - p
        found[i] = sum(abs(off[part].sum()) for part in parts) / len(p)
    return float(found.mean()), float(np.quantile(found, 0.95))


class Interval:
    """80 % interval of the mean rate of records scored alike, in log-odds: what may be wrong with the map and what moves from quarter to quarter.

    Four independent parts: the map's own parameters (inverse information, as many times as rows of one record crowd), the bends that the map leaves (an
    offset a bin), how differently models learned from other records are off (an offset a fold and third; of both, what exceeds chance counts, by a
    normal-normal model over a grid of its variance), and what moves the level (`Pace`), which the caller adds to `common_variance_`.
    """

    def fit(self, map: Platt, parts: np.ndarray, y: np.ndarray, groups: np.ndarray, fold: np.ndarray) -> Interval:
        """Learn from the judged rows; fold numbers the model of each."""
        p = map.predict(parts)
        x, slope = np.column_stack([np.ones(len(p)), parts]), p * (1 - p)
        pull = np.diag(np.r_[1.0, np.full(parts.shape[1], 4.0)])  # Platt's
        crowding = _offsets(np.zeros(len(p), dtype=int), y - p, slope, groups)[1][0] * slope.sum()
        self.covariance_ = crowding * np.linalg.inv(x.T @ (x * slope[:, None]) + pull)
        bins = equal_mass(p, int(np.clip(len(np.unique(groups[y == 1])) // 20, 1, 10)))
        if len(bins) == 10:  # the ends apart: who can hardly convert any more is a few in a hundred
            (low, first), (last, high) = (np.split(part, [int(share * len(part))]) for part, share in ((bins[0], 0.3), (bins[-1], 0.7)))
            bins = [low, first, *bins[1:-1], last, high]
        label = np.empty(len(p), dtype=int)
        for k, part in enumerate(bins):
            label[part] = k
        self.at_ = np.array([logit(p[part].mean()) for part in bins])
        chance = _offsets(label, y - p, slope, groups)[1]
        came, told, rest, half = (np.bincount(label, v) for v in (y, p, 1 - p, chance[label] * slope / 2))  # half = half a record more on each side
        offset = np.log((came + half) / (told + rest - came + half)) - np.log((told + half) / (rest + half))
        z = logit(p)
        middle = slope @ z / slope.sum()
        away = (self.at_ - middle) ** 2 / max(slope @ (z - middle) ** 2 / slope.sum(), 1e-9)  # a line is held in its middle: what bends it grows with the square
        self.bend_, self.bend_variance_, _ = _shrunk(offset, chance, 2 * np.maximum(1.0, away))
        third = 3 * label // max(len(bins), 1)
        k = len(np.unique(fold))  # the folds' mean is in the map already, and one new model lies as far from it again: (k + 1) / (k - 1)
        self.common_variance_ = _shrunk(*_offsets(3 * fold + third, y - p - slope * self.bend_[label], slope, groups))[2] * (k + 1) / max(k - 1, 1)
        return self

    def bounds(self, map: Platt, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Low and high of each row."""
        z, x, share = self._placed(map, parts)
        variance = np.einsum("ij,jk,ik->i", x, self.covariance_, x) + share**2 @ self.bend_variance_ + self.common_variance_
        return expit(z - Z80 * np.sqrt(variance)), expit(z + Z80 * np.sqrt(variance))

    def of_mean(self, map: Platt, parts: np.ndarray) -> tuple[float, float]:
        """Low and high of the mean rate of these very rows; that they differ in what nobody recorded adds HIDDEN of the binomial variance of each."""
        z, x, share = self._placed(map, parts)
        p = expit(z)
        slope = p * (1 - p)
        by_map, by_bin, level = slope @ x / len(p), slope @ share / len(p), slope.mean()
        mean = np.clip(p.mean(), CLIP, 1 - CLIP)
        spread = np.sqrt(by_map @ self.covariance_ @ by_map + by_bin**2 @ self.bend_variance_ + level**2 * self.common_variance_ + HIDDEN * level / len(p)) / (mean * (1 - mean))
        return float(expit(logit(mean) - Z80 * spread)), float(expit(logit(mean) + Z80 * spread))

    def _placed(self, map: Platt, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-odds with the bends, the map's design, and each row's share in the two bins that it lies between."""
        z = logit(map.predict(parts))
        right = np.clip(np.searchsorted(self.at_, z), 1, max(len(self.at_) - 1, 1))
        share, row = np.zeros((len(z), len(self.at_))), np.arange(len(z))
        if len(self.at_) > 1:
            gap = np.maximum(self.at_[right] - self.at_[right - 1], 1e-9)
            share[row, right] = np.clip((z - self.at_[right - 1]) / gap, 0, 1)
            share[row, right - 1] = 1 - share[row, right]
        else:
            share[:] = 1.0
        return z + share @ self.bend_, np.column_stack([np.ones(len(z)), parts]), share


class Pace:
    """How fast conversions come, month by month, against what the scores of the records then open let expect; and what follows for the months ahead.

    Each row's first `step` days count once (the grid's rows follow each other), up to today: no waiting for a horizon to end. The log of a month's pace is a
    Gaussian process: a season (period 12, half of it smooth, half each month's own), moves that last some three or some twelve months, a level, and chance
    (Poisson's). How large season and moves are is integrated over a grid, half-normal with scale 2 and 3 x TYPICAL: under a year of rows the season stays open.
    """

    SEASONS, MOVES, LASTING = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45]), np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7]), (3, 12)

    def __init__(self, horizon_days: float, step_days: float):
        self.horizon, self.step = horizon_days, min(step_days, horizon_days)

    def fit(self, z: np.ndarray, days_to_win: np.ndarray, days_ago: np.ndarray) -> Pace:
        """Learn from rows (z: log-odds out of sample; days_to_win: nan = not so far; days_ago: from the row to now) whose first days have passed."""
        passed = days_ago >= self.step
        z, wait, ago = z[passed, None], days_to_win[passed], days_ago[passed]
        won = wait <= self.step
        month, expected = np.floor((ago - self.step / 2) / MONTH).astype(int), Platt().fit(z, won).predict(z)
        self.at_, inside = np.unique(month, return_inverse=True)
        mean = np.maximum(np.bincount(inside, expected), 0.5)
        self.offset_, self.chance_ = np.bincount(inside, won - expected) / mean, 1 / mean
        ahead = wait[(wait <= self.horizon) & (ago >= self.horizon)]
        self.months_ = np.bincount((ahead / MONTH).astype(int)) / len(ahead) if len(ahead) else np.ones(1)  # when, within a horizon, conversions come
        return self

    def level(self, learned_ago: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
        """How far, in log-odds, the level of the horizon that begins today lies from that of the rows which a map was learned from (their days_ago, and
        weights p (1 - p)), and the variance of that guess."""
        begin, window = np.round(learned_ago / MONTH).astype(int), 1 + np.arange(len(self.months_))
        both = np.unique(np.r_[(np.unique(np.r_[0, begin])[:, None] - window).ravel(), self.at_])
        contrast, seen = np.zeros(len(both)), np.searchsorted(both, self.at_)
        for k, share in zip(window, self.months_, strict=True):
            contrast[np.searchsorted(both, -k)] += share
            contrast -= share * np.bincount(np.searchsorted(both, begin - k), weight, len(both)) / weight.sum()
        apart = np.abs(both[:, None] - both)
        season = (np.exp(-2 * np.sin(np.pi * apart / 12) ** 2 / 0.36) + (apart % 12 == 0)) / 2
        noise, even, found = 1.0 + np.diag(self.chance_), np.outer(np.gradient(self.SEASONS), np.gradient(self.MOVES)), []
        for lasting in self.LASTING:
            moves = np.exp(-apart / lasting)
            for i, s in enumerate(self.SEASONS):
                for j, t in enumerate(self.MOVES):
                    prior = s**2 * season + t**2 * moves
                    lower = np.linalg.cholesky(prior[np.ix_(seen, seen)] + noise)
                    white, cross = np.linalg.solve(lower, self.offset_), np.linalg.solve(lower, (prior @ contrast)[seen])
                    fit = -0.5 * white @ white - np.log(np.diag(lower)).sum() - s**2 / (8 * TYPICAL**2) - t**2 / (18 * TYPICAL**2) + np.log(even[i, j])
                    found.append((fit, cross @ white, contrast @ prior @ contrast - cross @ cross))
        fit, mean, variance = np.array(found).T
        chance = np.exp(fit - fit.max())
        chance /= chance.sum()
        return float(chance @ mean), float(chance @ (variance + (mean - chance @ mean) ** 2))


def _offsets(label: np.ndarray, off: np.ndarray, slope: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each label's rows are off in log-odds, and the variance that chance gives it: the binomial's, as many times as rows of one record crowd.

    Residuals of the label itself would say that nothing can be wrong where nobody had the event."""
    _, code = np.unique(label, return_inverse=True)
    _, cell = np.unique(np.unique(groups, return_inverse=True)[1] * (code.max() + 1) + code, return_inverse=True)
    weight = np.maximum(np.bincount(code, slope), 1e-9)
    crowding = max((np.bincount(cell, off) ** 2).sum() / weight.sum(), 0.2)
    return np.bincount(code, off) / weight, crowding / weight


def _shrunk(offset: np.ndarray, chance: np.ndarray, size: np.ndarray | float = 1.0) -> tuple[np.ndarray, np.ndarray, float]:
    """Posterior mean and variance of each true offset, and the mean of their common variance, given offsets seen with variance `chance`.

    offset ~ N(true, chance), true ~ N(0, (t x size)^2), t half-normal with scale TYPICAL; a grid over t, so that what few offsets cannot tell stays open.
    """
    t2 = np.linspace(0, 4 * TYPICAL, 60)[:, None] ** 2
    prior = t2 * np.broadcast_to(size, offset.shape) ** 2
    fit = -0.5 * (np.log(prior + chance) + offset**2 / (prior + chance)).sum(axis=1) - 0.5 * t2[:, 0] / TYPICAL**2
    weight = np.exp(fit - fit.max())
    weight /= weight.sum()
    mean, variance = offset * prior / (prior + chance), chance * prior / (prior + chance)
    middle = weight @ mean
    return middle, weight @ (variance + (mean - middle) ** 2), float(weight @ t2[:, 0])
