"""Which fields know too much: what a single field alone tells of the outcome, and a verdict on each."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from workbench.models.rungs import as_numbers, as_text, kinds

PURE, MIN_ROWS = 0.98, 30


def field_evidence(values: pd.Series, event: np.ndarray) -> dict:
    """What one field tells of the event, in one row a record, in no order: n filled, auc (0.5 .. 1, each value's rate learned on other rows), pure_share.

    pure_share = share of rows whose value, seen in 30 rows or more, had the same outcome in 98 % of them (for "no" only where
    the base rate is .1 or more, or else any rare event would look pure).
    """
    y, base = event.astype(float), event.mean()
    coded = _levels(values)
    fold = np.arange(len(y)) % 2
    rate = np.empty(len(y))
    for side in (0, 1):
        learned = pd.DataFrame({"v": coded[fold != side], "y": y[fold != side]}).groupby("v")["y"].agg(["sum", "count"])
        smooth = (learned["sum"] + 5 * base) / (learned["count"] + 5)
        rate[fold == side] = pd.Series(coded[fold == side]).map(smooth).astype("float64").fillna(base)
    count = pd.DataFrame({"v": coded, "y": y}).groupby("v")["y"].agg(["mean", "count"])
    pure = count[(count["count"] >= MIN_ROWS) & ((count["mean"] >= PURE) & (base <= 0.9) | (count["mean"] <= 1 - PURE) & (base >= 0.1))]
    auc = float(roc_auc_score(y, rate)) if 0 < base < 1 else 0.5
    return {"n_filled": int(values.notna().sum()), "auc": max(auc, 0.5), "pure_share": float(pure["count"].sum() / max(len(y), 1))}


def _levels(values: pd.Series) -> np.ndarray:
    frame = values.to_frame("v")
    numbers = as_numbers(frame, ["v"])["v"] if kinds(frame)[0] and values.notna().any() else values
    if numbers is not values and numbers.nunique() > 20:
        numbers = pd.Series(np.searchsorted(np.nanquantile(numbers, np.linspace(0.05, 0.95, 19)), numbers)).where(numbers.notna().to_numpy())
    return as_text(numbers).to_numpy()


def field_verdicts(frame: pd.DataFrame, fields: list[str], event: np.ndarray) -> pd.DataFrame:
    """One row a field: field, n_filled, auc, pure_share, verdict (leak, suspect or fine).

    leak: alone an auc above .95, or a fifth of the rows in pure values. suspect: above .85, or a tenth.
    """
    rows = []
    for name in fields:
        found = field_evidence(frame[name], event)
        leak = found["auc"] > 0.95 or found["pure_share"] >= 0.2
        suspect = found["auc"] > 0.85 or found["pure_share"] >= 0.1
        rows.append({"field": name, **found, "verdict": "leak" if leak else "suspect" if suspect else "fine"})
    return pd.DataFrame(rows, columns=["field", "n_filled", "auc", "pure_share", "verdict"]).sort_values("auc", ascending=False, ignore_index=True)
