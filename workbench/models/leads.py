"""Lead scores: what every open lead is worth, how well that was foretold before, and whether it may be used at all.

Where a source has no leads its deals are scored. A verdict other than `usable` sells nothing: no probabilities, and the list to
call is newest first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from workbench import schema
from workbench.features.snapshots import Snapshots, snapshots
from workbench.models import ladder
from workbench.models.leaks import field_verdicts
from workbench.models.reasons import Scorer, readable, reason_sentences, shown_values
from workbench.models.rungs import RUNGS, BaseRate
from workbench.rows import of_source

CAPACITIES = (0.05, 0.1, 0.2, 0.3, 0.5)
EXPLAINED = 2000  # records whose reasons are worked out: the best scored
# Bands: odds against the base rate's odds, from above.
BANDS = {"A": (3.0, "three times the base rate's odds or more"), "B": (1.5, "one and a half to three times"), "C": (1 / 1.5, "about the base rate's odds"),
         "D": (1 / 3, "a third to two thirds"), "E": (0.0, "less than a third")}
SCORE_COLUMNS = ["id", "name", "owner", "created_at", "p_convert", "p_low", "p_high", "band", "expected", "reasons_for", "reasons_against", "may_call"]


@dataclass
class LeadScores:
    """Everything that a report on scores shows.

    ladder: columns of `Evaluation.ladder`. calibration: one row a bin. bands: one row a band. lift: one row a capacity. importance: one row a feature.
    scores: one row an open record, best first (p_convert within the horizon, p_low and p_high = its 80 % interval, expected = conversions when
    all down to this row are called); where none is open, examples. points: the same rows, points of each feature; start: what they are added to.
    suspects: one row a candidate field with evidence and verdict. excluded: field, reason. scorer: what scored them, None where nothing is sold.
    """

    spine: Snapshots
    judged: ladder.Evaluation
    numbers: dict
    usable: bool
    ladder: pd.DataFrame
    excluded: pd.DataFrame
    suspects: pd.DataFrame
    calibration: pd.DataFrame
    bands: pd.DataFrame
    lift: pd.DataFrame
    importance: pd.DataFrame
    scores: pd.DataFrame
    points: pd.DataFrame
    values: pd.DataFrame
    start: float
    examples: bool
    notes: list[str] = field(default_factory=list)
    scorer: Scorer | None = None
    past: pd.DataFrame = field(default_factory=pd.DataFrame)  # a sample of the rows learned from: id, as_of, event, points of each feature

    def results(self) -> dict:
        """The headline numbers, as plain JSON values."""
        told = {r.model: {"auc": round(r.auc, 5), "log_loss": round(r.log_loss, 5)} for r in self.ladder.itertuples()}
        named = self.suspects.loc[self.suspects["verdict"] != "fine", "field"].tolist()
        return {"verdict": self.judged.verdict, "model": self.judged.model, **self.numbers, "baselines": told, "features": list(self.spine.features),
                "assumed": list(self.spine.assumed), "suspects": named, "evaluation": self.spine.evaluation}

    def call_list(self, capacity: int) -> pd.DataFrame:
        """The first `capacity` open records that may be called: best first, or newest first where no score is sold."""
        shown = self.scores[self.scores["may_call"].astype(bool) & (not self.examples)].head(max(int(capacity), 0)).drop(columns="may_call")
        shown = shown.assign(expected=shown["p_convert"].cumsum()).reset_index(drop=True)
        return shown if self.usable else shown[["id", "name", "owner", "created_at"]]

    def call_table(self, capacity: int) -> pd.DataFrame:
        """The call list (the examples, where nobody is open) as people read it: name, chance with its interval, owner, reasons."""
        rows = (self.scores if self.examples else self.call_list(capacity)).head(max(int(capacity), 0))
        if not self.usable:
            return rows[["name", "owner"]].assign(created_on=rows["created_at"].dt.date).dropna(axis=1, how="all")
        chance = [f"{p:.0%} ({low:.0%}–{high:.0%})" for p, low, high in zip(rows["p_convert"], rows["p_low"], rows["p_high"], strict=True)]
        return pd.DataFrame({"name": rows["name"], "chance": chance, "owner": rows["owner"], "speaks_for": rows["reasons_for"],
                             "speaks_against": rows["reasons_against"]}).dropna(axis=1, how="all")

    def reasons_of(self, record: str | None = None, most: int = 8) -> pd.DataFrame:
        """The points that make one explained record's score (default: the first): feature, value, points; the start first, what is left last."""
        row = np.flatnonzero(self.scores["id"].head(len(self.points)) == record) if record else np.arange(len(self.points))
        if not len(row):
            return pd.DataFrame(columns=["feature", "value", "points"])
        points, values = self.points.iloc[row[0]], self.values.iloc[row[0]]
        first = points.abs().sort_values(ascending=False, kind="stable").index[:most]
        rows = [("start", "", self.start), *((readable(c), values[c], float(points[c])) for c in first), ("all other fields", "", float(points.drop(first).sum()))]
        return pd.DataFrame(rows, columns=["feature", "value", "points"])


def lead_scores(lake, *, as_of: datetime, source: str | None = None, horizon_days: int = 90, score_at: str = "auto", allow: list[str] | None = None,
                seed: int = 7, progress: Callable[[str], None] | None = None) -> LeadScores:
    """Score every lead (or deal, where `source` has no leads) that is open at `as_of`, and judge the score out of sample.

    `allow` lets fields in by name that are not known to be dated; `snapshots` and `evaluate` say how records are labelled and judged.
    """
    say = progress or (lambda text: None)
    entity, notes = _entity(lake, as_of, source)
    say(f"reading {entity}s as they stood")
    spine = snapshots(lake, entity, as_of=as_of, horizon_days=horizon_days, source=source, score_at=score_at, allow=allow)
    told = spine.frame[spine.frame["event"].notna()].reset_index(drop=True)
    judged = ladder.evaluate(told, spine.features, evaluation=spine.evaluation, horizon_days=horizon_days, seed=seed, progress=progress)
    say("judging single fields")
    suspects = _court(lake, spine, told, seed)
    rows = judged.rows.rename(columns={judged.model: "p"}) if judged.model in judged.rows else judged.rows.assign(p=np.nan)
    rows["luck"] = rows["group"] if spine.evaluation == "time" else np.arange(len(rows))  # snapshots of one record share their luck; twins are as they are
    scorer = None
    if judged.verdict == "usable":
        say("fitting on every outcome")
        part = told.iloc[ladder.learned_from(np.ones(len(told), dtype=bool), seed)]
        rung = next(r for r in RUNGS if r.name == judged.model)().fit(part[spine.features], part["event"].astype(int).to_numpy(), part["group"].to_numpy(dtype=object).astype(str))
        scorer = Scorer(rung, ladder.Platt().fit(judged.parts[judged.model], rows["y"].to_numpy()))
    say("scoring and explaining")
    known, examples = (spine.open, False) if len(spine.open) or scorer is None else (_newest(lake, spine, told), True)
    scores, points, values, start = _scored(lake, spine, known, scorer, judged, rows, seed)
    past = told.sample(min(len(told), EXPLAINED), random_state=seed) if scorer else told.head(0)
    past_points = scorer.points(past[spine.features])[0] if scorer else past[[]]
    shown = rows if judged.model != BaseRate.name else rows.head(0)  # the base rate ranks nobody
    return LeadScores(spine, judged, _numbers(told, judged, rows), scorer is not None, judged.ladder, spine.excluded, suspects, _calibration(shown), _bands(shown),
                      _lift(spine, told, shown, seed), _importance(past_points), scores, points, values, start, examples, notes + spine.notes, scorer,
                      past[["id", "as_of", "event"]].join(past_points))


def _entity(lake, as_of: datetime, source: str | None) -> tuple[str, list[str]]:
    n = {e: lake.sql(f"select count(*) from {e}_versions where {of_source(source)} and valid_from <= TIMESTAMP '{as_of}'").fetchall()[0][0] for e in ("lead", "deal")}
    if n["lead"] or not n["deal"]:
        return "lead", []
    return "deal", ["There are no leads here; its deals are judged instead, and to convert means to win."]


def _numbers(told: pd.DataFrame, judged: ladder.Evaluation, rows: pd.DataFrame) -> dict:
    y = rows["y"].to_numpy(int) if len(rows) else told["event"].astype(int).to_numpy()
    out: dict = {"n": len(y), "n_events": int(y.sum()), "base_rate": round(float(y.mean()), 5) if len(y) else None}
    out |= dict.fromkeys(("auc", "log_loss", "brier", "ece", "ece_perfect", "gain_low"))
    if len(rows):
        row, p = judged.ladder[judged.ladder["chosen"]].iloc[0], rows["p"].to_numpy()
        found = row[["auc", "log_loss", "brier", "gain_low"]].to_dict()
        found |= {"ece": ladder.calibration_error(y, p), "ece_perfect": ladder.perfect_calibration_error(p, rows["luck"].to_numpy())[1]}
        out |= {k: round(float(v), 5) for k, v in found.items()}
    return out


def _court(lake, spine: Snapshots, told: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Evidence on every candidate field, one row a record: features as they stood when scored, excluded fields as they stand now."""
    if told.empty:
        return field_verdicts(told, [], np.empty(0)).assign(used=pd.Series(dtype=bool), reason="")
    one = told.sample(frac=1, random_state=seed).drop_duplicates("group")
    fields, declared = schema.entity(spine.entity).fields, spine.excluded.set_index("field")["reason"]
    out = [c for c in declared.index if c in lake.columns(spine.entity) and not (c in fields and fields[c].outcome)]
    event = told.groupby("id")["event"].max()
    now = lake.read(spine.entity, spine.as_of, columns=["id", *out]).set_index("id").reindex(one["id"])
    used = field_verdicts(one, spine.features, one["event"].to_numpy(bool)).assign(used=True, reason="")
    left = field_verdicts(now, out, event.reindex(one["id"]).to_numpy(bool)).assign(used=False)
    left["reason"] = left["field"].map(declared)
    return pd.concat([used, left], ignore_index=True).sort_values(["verdict", "auc"], key=lambda s: s.map({"leak": 0, "suspect": 1, "fine": 2}) if s.name == "verdict" else -s, ignore_index=True)


def wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share seen in n records.

    >>> [round(v, 3) for v in wilson(.5, 100)]
    [0.404, 0.596]
    """
    middle, half = (share + z * z / (2 * n)) / (1 + z * z / n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return float(max(middle - half, 0)), float(min(middle + half, 1))


def _shares(rows: pd.DataFrame, labels: np.ndarray | list, name: str) -> pd.DataFrame:
    """One row a label: n, n_records, mean p, observed share with its Wilson interval, in which rows of one record count as one."""
    out = [(label, len(part), part["luck"].nunique(), part["p"].mean(), part["y"].mean(), *wilson(part["y"].mean(), part["luck"].nunique())) for label, part in rows.groupby(labels)]
    return pd.DataFrame(out, columns=[name, "n", "n_records", "p_mean", "observed", "low", "high"])


def _calibration(rows: pd.DataFrame) -> pd.DataFrame:
    bins = np.zeros(len(rows), dtype=int)
    for i, part in enumerate(ladder.equal_mass(rows["p"].to_numpy(float))):
        bins[part] = i + 1
    return _shares(rows, bins, "bin")


def _band(p: np.ndarray, base: float) -> np.ndarray:
    against = p / (1 - p) / (base / (1 - base))
    return np.select([against >= low for low, _ in BANDS.values()], list(BANDS), "E")


def _bands(rows: pd.DataFrame) -> pd.DataFrame:
    found = _shares(rows, _band(rows["p"].to_numpy(float), rows["y"].mean()), "band") if len(rows) else _shares(rows, [], "band")
    return found.assign(meaning=found["band"].map({b: meaning for b, (_, meaning) in BANDS.items()}))


def _lift(spine: Snapshots, told: pd.DataFrame, rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row a capacity: share of the open records that can be called at each origin, precision of the score's and of the newest first's choice."""
    columns = ["capacity", "n_called", "precision", "low", "high", "newest", "newest_low", "newest_high", "lift", "more", "more_low", "more_high"]
    if rows.empty:
        return pd.DataFrame(columns=columns)
    rng, seen = np.random.default_rng(seed), told.iloc[rows["row"]].reset_index(drop=True)
    pool = seen["as_of"] if spine.score_at == "grid" else pd.Series(0, index=seen.index)
    newest = -seen["age_days"] if "age_days" in seen else seen["order"].astype(float)
    shuffled, size = rng.permutation(len(rows)), pool.map(pool.value_counts())
    place = {name: pd.Series(key.to_numpy()[shuffled]).groupby(pool.to_numpy()[shuffled]).rank(method="first", ascending=False).set_axis(shuffled).sort_index()
             for name, key in (("score", rows["p"]), ("newest", newest))}
    chosen = np.column_stack([place[name] <= np.maximum(np.round(size * c), 1) for c in CAPACITIES for name in ("score", "newest")]).astype(float)
    y = np.repeat(rows["y"].to_numpy(float)[:, None], chosen.shape[1], axis=1)
    draws, mean, base = ladder.grouped_means(y, rows["group"].to_numpy(), seed, chosen), (y * chosen).sum(0) / chosen.sum(0), rows["y"].mean()
    low, high = np.nanquantile(np.column_stack([draws, draws[:, ::2] - draws[:, 1::2]]), (0.025, 0.975), axis=0)
    ours, new, more = slice(0, -len(CAPACITIES), 2), slice(1, -len(CAPACITIES), 2), slice(-len(CAPACITIES), None)
    return pd.DataFrame(dict(zip(columns, (CAPACITIES, chosen[:, ::2].sum(0).astype(int), mean[::2], low[ours], high[ours], mean[1::2], low[new], high[new],
                                           mean[::2] / base, mean[::2] - mean[1::2], low[more], high[more]), strict=True)))


def _importance(points: pd.DataFrame) -> pd.DataFrame:
    """Mean |points| of each feature over a sample of the records learned from, largest first."""
    mean = points.abs().mean().sort_values(ascending=False)
    return pd.DataFrame({"field": mean.index, "feature": [readable(c) for c in mean.index], "points": mean.to_numpy(float)})


def _newest(lake, spine: Snapshots, told: pd.DataFrame, n: int = 20) -> pd.DataFrame:
    """The newest records whose story has ended, as examples where none is open."""
    last = told.sort_values("order", kind="stable").drop_duplicates("id", keep="last").tail(n).drop(columns=["event", "group", "order"])
    names = lake.sql(f"select e.id, coalesce(e.name, e.id) as name, u.name as owner, e.created_at, e.created_order from {spine.entity} e left join user u on u.id = e.owner_id", spine.as_of).df()
    return last.merge(names, on="id", how="left")


def _scored(lake, spine: Snapshots, known: pd.DataFrame, scorer: Scorer | None, judged: ladder.Evaluation, rows: pd.DataFrame,
            seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, float]:
    scores = known.assign(may_call=~known["id"].isin(_refused(lake, spine.entity, spine.as_of)))
    if scorer is None or scores.empty:
        scores = scores.sort_values(["created_at", "created_order", "id"], ascending=[False, False, True]).assign(reasons_for=None, reasons_against=None)
        return scores.reindex(columns=SCORE_COLUMNS).reset_index(drop=True), pd.DataFrame(), pd.DataFrame(), 0.0
    scores["p_convert"] = scorer.probabilities(scores[spine.features])
    scores["p_low"], scores["p_high"] = _interval(scorer.map.predict(judged.parts[judged.model]), rows, scores["p_convert"].to_numpy(), seed)
    scores["band"] = _band(scores["p_convert"].to_numpy(), rows["y"].mean())
    scores = scores.sort_values(["p_convert", "id"], ascending=[False, True]).reset_index(drop=True)
    scores["expected"] = scores["p_convert"].cumsum()
    best = scores[spine.features].head(EXPLAINED)
    points, start = scorer.points(best)
    values = shown_values(lake, spine.entity, best, spine.as_of)
    return scores.join(reason_sentences(points, values)).reindex(columns=SCORE_COLUMNS), points, values, start


def _interval(p_judged: np.ndarray, rows: pd.DataFrame, p: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """80 % interval of the mean rate of records scored like each: bootstrap by record of what the judged ones in its bin did.

    How far the bin was off shifts p in log-odds: a bin may hold scores of 2 % and of 12 %."""
    parts = ladder.equal_mass(p_judged, int(np.clip(rows["y"].sum() // 20, 1, 10)))
    inside = np.zeros((len(rows), len(parts)))
    for i, part in enumerate(parts):
        inside[part, i] = 1
    off = np.repeat((rows["y"].to_numpy() - p_judged)[:, None], len(parts), axis=1)
    low, high = np.nanquantile(ladder.grouped_means(off, rows["group"].to_numpy(), seed, inside), (0.1, 0.9), axis=0)
    mine = np.searchsorted([p_judged[part].max() for part in parts[:-1]], p)
    said = np.array([p_judged[part].mean() for part in parts])
    below, above = (logit(np.clip(said + off, ladder.CLIP, 1 - ladder.CLIP)) - logit(said) for off in (low, high))
    return expit(logit(p) + below[mine]), expit(logit(p) + above[mine])


def _refused(lake, entity: str, as_of: datetime) -> set[str]:
    """Records that must not be called: refused as of then, or by the lake's latest state."""
    refused = "select id from lead where do_not_call" if entity == "lead" else "select d.id from deal d join contact c on c.id = d.contact_id where c.do_not_call"
    return {r[0] for at in (as_of, None) for r in lake.sql(refused, at).fetchall()}
