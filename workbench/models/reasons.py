"""Why a record has its score: SHAP values of the rung that was chosen, in points, as sentences.

Ten points double the odds. Each part's SHAP values are multiplied by the slope that the calibration gave the part, so that start
plus points is the log-odds of the probability shown: log-odds = (start + sum of points) x ln 2 / 10.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from workbench import schema
from workbench.models.calibration import Interval, Platt
from workbench.models.rungs import BaseRate

POINT = np.log(2) / 10  # log-odds
BATCH = 100_000  # rows scored at a time
MOST = 3  # reasons for and against
ENGAGEMENT = {"engagement", "enquiry_text", "days_since_activity", "web_seconds", "pages_per_visit"}
HANDLING = {"owner_id", "status", "stage", "rating", "age_days", "days_since_change", "days_to_close", "n_planned", "has_next_step", "pipeline", "next_step"}


@dataclass
class Scorer:
    """A rung fitted on every labelled row; the map, and the interval around it, learned from rows that its like had not seen."""

    rung: BaseRate
    map: Platt
    interval: Interval | None = None

    def parts(self, X: pd.DataFrame) -> np.ndarray:
        """The rung's log-odds, a row a record and a column a part; in batches, so that a million records need little memory."""
        done = [self.rung.parts(X.iloc[i: i + BATCH]) for i in range(0, len(X), BATCH)]
        return np.vstack(done) if done else np.empty((0, len(self.map.b_)))

    def probabilities(self, X: pd.DataFrame) -> np.ndarray:
        """Calibrated probability of each row."""
        return self.map.predict(self.parts(X))

    def scored(self, X: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Calibrated probability of each row, and the 80 % interval of what records scored alike do."""
        parts = self.parts(X)
        return (self.map.predict(parts), *(self.interval.bounds(self.map, parts) if self.interval else np.full((2, len(X)), np.nan)))

    def interval_of_mean(self, X: pd.DataFrame) -> tuple[float, float]:
        """The 80 % interval of the mean rate of these rows together."""
        return self.interval.of_mean(self.map, self.parts(X)) if self.interval and len(X) else (np.nan, np.nan)

    def points(self, X: pd.DataFrame) -> tuple[pd.DataFrame, float]:
        """Points of each feature (a row a record), and the start that they are added to: the same for all."""
        if X.empty:
            return pd.DataFrame(columns=X.columns, dtype="float64"), 0.0
        total = sum(b * part for b, part in zip(self.map.b_, self.rung.contributions(X), strict=True)) / POINT
        log_odds = self.map.a_ + self.rung.parts(X.iloc[:1]) @ self.map.b_
        return total, float(log_odds[0] / POINT - total.iloc[0].sum())


def readable(name: str) -> str:
    """A field's name for people.

    >>> [readable(n) for n in ("n_calls_28_days", "x_city_not_chosen", "age_days", "owner_id")]
    ['number of calls in 28 days', 'city shown, not chosen', 'age in days', 'owner']
    """
    name = re.sub(r"^x_|_id$", "", name)
    name = re.sub(r"_not_chosen$", "_shown, not chosen", re.sub(r"_(\d+)_days$", r"_in_\1_days", re.sub(r"^n_", "number of_", name)))
    return re.sub(r"([a-z])_days$", r"\1 in days", name).replace("_", " ")


def part_of(name: str) -> str:
    """Whether a feature tells of the record's fit, its engagement, or of how we handle it.

    >>> [part_of(n) for n in ("industry", "n_inbound_28_days", "owner_id", "x_budget_band")]
    ['fit', 'engagement', 'handling', 'fit']
    """
    if name in HANDLING:
        return "handling"
    return "engagement" if name in ENGAGEMENT or name.startswith(("n_", "has_migrated")) else "fit"


def shown_values(lake, entity: str, X: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    """The features as a person would write them: names for ids, yes and no, two digits, `not given`."""
    fields, out = schema.entity(entity).fields, {}
    for c in X:
        values = X[c]
        if c in fields and fields[c].references:
            names = lake.read(fields[c].references, as_of, columns=["id", "name"]).set_index("id")["name"]
            values = values.map(names).where(values.map(names).notna(), values)
        out[c] = [_shown(v) for v in values]
    return pd.DataFrame(out, index=X.index, columns=X.columns)


def _shown(value: Any) -> str:
    if pd.isna(value):
        return "not given"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if pd.api.types.is_number(value):
        return f"{value:,.0f}" if float(value).is_integer() or abs(float(value)) >= 100 else f"{value:.2g}"
    return str(value)


def reason_sentences(points: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """One row a record: reasons_for and reasons_against, the three strongest of each of at least half a point, with their points.

    >>> reason_sentences(pd.DataFrame({"source": [14.2], "n_visits": [-3.0]}), pd.DataFrame({"source": ["Fair"], "n_visits": ["0"]})).iloc[0].tolist()
    ['source: Fair (+14)', 'number of visits: 0 (-3)']
    """
    names, rows = [readable(c) for c in points], []
    for p, v in zip(points.to_numpy(float), values.to_numpy(object), strict=True):
        told = [[f"{names[i]}: {v[i]} ({p[i]:+.0f})" for i in np.argsort(-sign * p, kind="stable")[:MOST] if sign * p[i] >= 0.5]
                for sign in (1, -1)]
        rows.append(["; ".join(part) for part in told])
    return pd.DataFrame(rows, columns=["reasons_for", "reasons_against"], index=points.index)
