"""Lead scores: what every open lead is worth, how well that was foretold before, and whether it may be used at all.

Where a source has no leads its deals are scored. A verdict other than `usable` sells nothing: no probabilities, and the list to
call is newest first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import pandas as pd

from workbench.features.as_of import engagement_at
from workbench.features.snapshots import Snapshots, snapshots
from workbench.models import bands, ladder, value
from workbench.models.calibration import calibration_error, perfect_calibration_error
from workbench.models.engagement import HalfLife, learned_half_life
from workbench.models.horizons import consistent, fitted_scorer, horizon_scores, in_order, ordered_trial
from workbench.models.leaks import leak_court
from workbench.models.learners import Boosted
from workbench.models.reasons import Scorer, part_of, readable, reason_sentences, shown_values
from workbench.models.rungs import BaseRate
from workbench.rows import of_source

EXPLAINED = 10_000  # records whose reasons are worked out: the best scored
MOST_JUDGED = 150_000  # rows: of more, every second (third ...) of each record is left out
PAST = 2_000  # labelled rows whose points tell what moves scores in general
SCORE_COLUMNS = ["id", "name", "owner", "created_at", "p_convert", "p_low", "p_high", "band", "fit", "engagement", "handling", "value", "expected", "reasons_for", "reasons_against", "may_call"]


@dataclass
class LeadScores:
    """Everything that a report on scores shows.

    ladder: columns of `Evaluation.ladder`. calibration, bands, segments, stability: see models/bands.py. lift: one row a capacity. importance: one row a
    feature. horizons, drift: see models/horizons.py. suspects: one row a candidate field with evidence and verdict; trial: log loss and AUC without the
    accused fields and with them. excluded: field, reason. rows: judged rows (p, y, group, pool, newest, crm).
    scores: one row an open record, best first (p_convert within the horizon, p_low and p_high = its 80 % interval, p_<horizon>; fit, engagement,
    handling = points of the three parts; value of a conversion where one is known; expected = conversions when all down to this row are called);
    where none is open, examples. points: the same rows, points of each feature; start: what they are added to. scorer: what made them (None: no score
    is sold). past: labelled rows, id, as_of, event and their points by today's scorer.
    """

    spine: Snapshots
    judged: ladder.Evaluation
    numbers: dict
    scorer: Scorer | None
    rows: pd.DataFrame
    suspects: pd.DataFrame
    trial: pd.DataFrame
    horizons: pd.DataFrame
    drift: pd.DataFrame
    half_life: HalfLife | None
    calibration: pd.DataFrame
    bands: pd.DataFrame
    segments: pd.DataFrame
    stability: pd.DataFrame
    lift: pd.DataFrame
    scores: pd.DataFrame
    points: pd.DataFrame
    values: pd.DataFrame
    start: float
    past: pd.DataFrame
    examples: bool
    notes: list[str] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether probabilities are sold."""
        return self.scorer is not None

    @property
    def ladder(self) -> pd.DataFrame:
        return self.judged.ladder

    @property
    def excluded(self) -> pd.DataFrame:
        return self.spine.excluded

    @property
    def importance(self) -> pd.DataFrame:
        """One row a feature: field, feature, points = mean |points| over past rows, largest first."""
        mean = self.past.drop(columns=["id", "as_of", "event"]).abs().mean().sort_values(ascending=False)
        return pd.DataFrame({"field": mean.index, "feature": [readable(c) for c in mean.index], "points": mean.to_numpy(float)})

    def results(self) -> dict:
        """The headline numbers, as plain JSON values."""
        plain = lambda frame: [{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in frame.astype(object).where(frame.notna(), None).to_dict("records")]  # noqa: E731
        told = {r.model: {"auc": round(r.auc, 5), "log_loss": round(r.log_loss, 5)} for r in self.ladder.itertuples()}
        named = self.suspects.loc[self.suspects["verdict"] != "fine", "field"].tolist()
        return {"verdict": self.judged.verdict, "model": self.judged.model, **self.numbers, "baselines": told, "features": list(self.spine.features),
                "assumed": list(self.spine.assumed), "suspects": named, "evaluation": self.spine.evaluation, "horizons": plain(self.horizons), "trial": plain(self.trial),
                "drift": plain(self.drift), "bands": plain(self.bands), "half_life_days": round(self.half_life.days, 2) if self.half_life and self.half_life.known else None,
                "half_life_pays": bool(self.half_life and self.half_life.pays)}

    def call_list(self, capacity: int, worth: float | None = None) -> pd.DataFrame:
        """The first `capacity` open records that may be called: most worth first (`worth` = value of any conversion), or newest first where no score is sold."""
        scores = self.scores if worth is None else self.scores.assign(value=float(worth))
        shown = value.call_list(scores[scores["may_call"].notna() & (not self.examples)], calls_per_day=capacity)
        return shown if self.usable else shown[["id", "name", "owner", "created_at"]]

    def call_table(self, capacity: int, worth: float | None = None) -> pd.DataFrame:
        """The call list (the examples, where nobody is open) as people read it: name, chance with its interval, worth (chance x value, by which it is ordered), owner, reasons."""
        rows = (self.scores if self.examples else self.call_list(capacity, worth)).head(max(int(capacity), 0))
        if not self.usable:
            return rows[["name", "owner"]].assign(created_on=rows["created_at"].dt.date).dropna(axis=1, how="all")
        chance = [f"{p:.0%} ({low:.0%}–{high:.0%})" for p, low, high in zip(rows["p_convert"], rows["p_low"], rows["p_high"], strict=True)]
        parts = {part: [f"{p:+.0f}" for p in rows[part].fillna(0) + 0.0] for part in ("fit", "engagement")}
        brings = (rows["p_convert"] * rows["value"].astype(float)).map(lambda w: None if pd.isna(w) else f"{w:,.0f}")
        return pd.DataFrame({"name": rows["name"], "chance": chance, "worth": brings, "owner": rows["owner"], **parts, "speaks_for": rows["reasons_for"],
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

    `allow` lets fields in by name that are not known to be dated, or that the court accuses; `snapshots` and `evaluate` say how records are labelled and judged.
    """
    say = progress or (lambda text: None)
    entity, notes = _entity(lake, as_of, source)
    say(f"reading {entity}s as they stood")
    spine = snapshots(lake, entity, as_of=as_of, horizon_days=horizon_days, source=source, score_at=score_at, allow=allow)
    whole = spine.frame
    if len(whole) > MOST_JUDGED:
        thin = thinned(whole, seed)
        spine, notes = replace(spine, frame=thin), [*notes, f"Learned from and judged on {len(thin):,} of {len(whole):,} rows: of each record one in {-(-len(whole) // MOST_JUDGED)}."]
    say("judging single fields")
    suspects = leak_court(lake, spine, seed=seed)
    accused = suspects[(suspects["verdict"] != "fine") & ~suspects["field"].isin(allow or [])]
    with_accused, spine = spine, _without(spine, accused[accused["used"].astype(bool)])
    say("learning how fast interest fades")
    half_life = learned_half_life(lake, entity, whole, spine.features, seed=seed)
    spine = _with_half_life(lake, spine, half_life)
    seen = in_order(spine.frame, spine)
    told = seen[seen["event"].notna()]
    judged = ladder.evaluate(seen, spine.features, evaluation=spine.evaluation, horizon_days=horizon_days, seed=seed, progress=progress)
    rows = judged.rows.rename(columns={judged.model: "p"}) if judged.model in judged.rows else judged.rows.assign(p=np.nan)
    rows["luck"] = rows["group"] if spine.evaluation == "time" else np.arange(len(rows))  # snapshots of one record share their luck; twins are as they are
    numbers, shown = _numbers(told, judged, rows), rows if judged.model != BaseRate.name else rows.head(0)  # the base rate ranks nobody
    say("weighing the accused fields")
    trial = _trial(lake, with_accused, told, judged, accused, seed)
    drift = ordered_trial(told, spine, judged, seed)
    scorer = fitted_scorer(seen, spine, judged, judged.model, horizon_days=horizon_days, seed=seed) if judged.verdict == "usable" else None
    known, examples = (spine.open, False) if len(spine.open) or scorer is None else (_newest(lake, spine, told), True)
    say("scoring other horizons")
    horizons, others = horizon_scores(spine, judged, known[spine.features] if scorer else None, seed)
    say("scoring and explaining")
    scores, points, values, start = _scored(lake, spine, known, scorer, rows["y"].mean() if len(rows) else 0.5, others)
    past = told.sample(min(len(told), PAST), random_state=seed) if scorer else told.head(0)
    past_points = scorer.points(past[spine.features])[0] if scorer else past[[]]
    judged_rows = value.with_rivals(shown, told, score_at=spine.score_at, crm=_crm_score(told)) if len(shown) else shown
    labels, now = (bands.segment_labels(lake, frame, as_of=as_of) for frame in (told.iloc[shown["row"].astype(int)], spine.open))
    return LeadScores(spine, judged, numbers, scorer, judged_rows, suspects, trial, horizons, drift, half_life, bands.calibration_bins(shown), _bands(shown, scorer, scores, spine),
                      bands.segments(shown, labels, open_labels=now, seed=seed),
                      bands.stability(told, spine.open, [c for c in spine.features if not c.endswith("_text")] if scorer and not examples else [], groups=told["group"].to_numpy(), seed=seed),
                      value.lift(judged_rows, seed=seed), scores, points, values, start, past[["id", "as_of", "event"]].join(past_points), examples, notes + spine.notes)


def thinned(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row in so many of each record, from a first one drawn at random, that at most MOST_JUDGED are left: nearly all that the records know, while
    fewer records would know less."""
    every, record = -(-len(frame) // MOST_JUDGED), pd.factorize(frame["group"])[0]
    first = np.random.default_rng(seed).integers(0, every, record.max() + 1)[record]
    return frame[(frame.groupby(record).cumcount() + first) % every == 0].reset_index(drop=True)


def _without(spine: Snapshots, accused: pd.DataFrame) -> Snapshots:
    """The spine without the features on trial, which the table of excluded fields then names."""
    if accused.empty:
        return spine
    why = pd.DataFrame({"field": accused["field"], "reason": "on trial as a " + accused["verdict"] + ": the table of fields that know too much says why"})
    excluded = pd.concat([spine.excluded, why], ignore_index=True).drop_duplicates("field").sort_values("field", ignore_index=True)
    return replace(spine, features=[c for c in spine.features if c not in set(accused["field"])], assumed=[c for c in spine.assumed if c not in set(accused["field"])], excluded=excluded)


def _with_half_life(lake, spine: Snapshots, found: HalfLife | None) -> Snapshots:
    """The spine with `engagement` at the learned half-life; without it where it does not pay out of time."""
    if "engagement" not in spine.features:
        return spine
    if found is None or not found.pays:
        return replace(spine, features=[c for c in spine.features if c != "engagement"])
    frame, now = (part.assign(engagement=engagement_at(lake, spine.entity, part[["id", "as_of"]], [found.days])[found.days].to_numpy()) for part in (spine.frame, spine.open))
    return replace(spine, frame=frame, open=now, half_life=found.days)


def _trial(lake, spine: Snapshots, told: pd.DataFrame, judged: ladder.Evaluation, accused: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Log loss and AUC of boosted trees without the accused fields and with them, as a careless model would have had them: as they stand now where they are no feature."""
    if accused.empty or judged.rows.empty:
        return pd.DataFrame(columns=["fields", "n_fields", "auc", "log_loss"])
    features, late = [c for c in spine.features if c in told], [c for c in accused["field"] if c not in spine.features]
    frame = told.join(lake.read(spine.entity, spine.as_of, columns=["id", *late]).set_index("id"), on="id") if late else told
    fields, plain = [*(c for c in features if c not in set(accused["field"])), *accused["field"]], judged.ladder.set_index("model").loc[Boosted.name]
    careless = ladder.evaluate(frame, fields, evaluation=spine.evaluation, horizon_days=spine.horizon_days, seed=seed, rungs=(BaseRate, Boosted)).ladder.set_index("model").loc[Boosted.name]
    return pd.DataFrame([("without the accused", len(fields) - len(accused), plain["auc"], plain["log_loss"]), ("with the accused", len(fields), careless["auc"], careless["log_loss"])],
                        columns=["fields", "n_fields", "auc", "log_loss"])


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
        found |= {"ece": calibration_error(y, p), "ece_perfect": perfect_calibration_error(p, rows["luck"].to_numpy())[1]}
        out |= {k: round(float(v), 5) for k, v in found.items()}
    return out


def _crm_score(told: pd.DataFrame) -> str:
    """The field by which the CRM ranks on its own: `rating`, where every value has a known rank."""
    said = set(told["rating"].dropna().astype(str).str.strip().str.lower()) if "rating" in told else set()
    return "rating" if said and said <= set(value.RANKS) else ""


def _bands(rows: pd.DataFrame, scorer: Scorer | None, scores: pd.DataFrame, spine: Snapshots) -> pd.DataFrame:
    """`bands.band_table`, and of the open records of each band their number, mean chance and the 80 % interval of their mean rate."""
    table = bands.band_table(rows)
    if scorer is None or "band" not in scores:
        return table
    placed = scores.set_index("id")["band"].reindex(spine.open["id"])
    now = {b: scorer.interval_of_mean(spine.open.loc[(placed == b).to_numpy(), spine.features]) for b in placed.dropna().unique()}
    n, mean = placed.value_counts(), scores.groupby("band")["p_convert"].mean().reindex(list(now))  # of the open ones: examples are in no band
    return table.assign(n_open=table["band"].map(n).fillna(0).astype(int), p_open=table["band"].map(mean),
                        p_open_low=table["band"].map({b: v[0] for b, v in now.items()}), p_open_high=table["band"].map({b: v[1] for b, v in now.items()}))


def _newest(lake, spine: Snapshots, told: pd.DataFrame, n: int = 20) -> pd.DataFrame:
    """The newest records whose story has ended, as examples where none is open."""
    last = told.sort_values("order", kind="stable").drop_duplicates("id", keep="last").tail(n).drop(columns=["event", "group", "order"])
    names = lake.sql(f"select e.id, coalesce(e.name, e.id) as name, u.name as owner, e.created_at, e.created_order from {spine.entity} e left join user u on u.id = e.owner_id", spine.as_of).df()
    return last.merge(names, on="id", how="left")


def _scored(lake, spine: Snapshots, known: pd.DataFrame, scorer: Scorer | None, base: float, others: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, float]:
    scores = known.assign(may_call=~known["id"].isin(_refused(lake, spine.entity, spine.as_of)))
    if scorer is None or scores.empty:
        scores = scores.sort_values(["created_at", "created_order", "id"], ascending=[False, False, True])
        return scores.assign(engagement=np.nan).reindex(columns=SCORE_COLUMNS).reset_index(drop=True), pd.DataFrame(), pd.DataFrame(), 0.0
    scores["p_convert"], scores["p_low"], scores["p_high"] = scorer.scored(scores[spine.features])
    main = f"p_{spine.horizon_days}"
    if main in others:
        others = consistent(others.assign(**{main: scores["p_convert"]}), main)
    scores = scores.drop(columns="value", errors="ignore").join(others).assign(band=bands.band_of(scores["p_convert"].to_numpy(), base), value=_values(lake, spine, scores))
    scores = scores.sort_values(["p_convert", "id"], ascending=[False, True]).reset_index(drop=True)
    scores["expected"] = scores["p_convert"].cumsum()
    best = scores[spine.features].head(EXPLAINED)
    points, start = scorer.points(best)
    values = shown_values(lake, spine.entity, best, spine.as_of)
    parts = points.T.groupby(part_of).sum().T.reindex(columns=["fit", "engagement", "handling"], fill_value=0.0)
    scores = scores.drop(columns=["engagement", "fit", "handling"], errors="ignore").join(parts).join(reason_sentences(points, values))
    return scores.reindex(columns=[*SCORE_COLUMNS, *others.columns]), points, values, start


def _values(lake, spine: Snapshots, scores: pd.DataFrame) -> pd.Series | float:
    """What a conversion brings, in the organization's currency at the latest rate known (fx_rate; none = 1): a deal's amount; of a lead, the typical amount
    of deals won from its source, twenty of all sources added to each."""
    rates = dict(lake.sql("select currency, arg_max(rate, on_date) from fx_rate group by currency", spine.as_of).fetchall())
    if spine.entity == "deal":
        rate = scores["currency"].map(rates).astype(float).fillna(1.0) if "currency" in scores else 1.0
        return scores["amount"] * rate if "amount" in scores else np.nan
    won = lake.sql("select l.source, d.currency, ln(d.amount) as log from lead l join deal d on d.id = l.converted_deal_id where d.is_won and d.amount > 0", spine.as_of).df()
    if len(won) < 30 or "source" not in scores:
        return np.nan
    won["log"] += np.log(won["currency"].map(rates).astype(float).fillna(1.0))
    of = won.groupby("source")["log"].agg(["sum", "count"])
    return np.exp(scores["source"].map((of["sum"] + 20 * won["log"].mean()) / (of["count"] + 20)).astype(float).fillna(won["log"].mean()))


def _refused(lake, entity: str, as_of: datetime) -> set[str]:
    """Records that must not be called: refused as of then, or by the lake's latest state."""
    refused = "select id from lead where do_not_call" if entity == "lead" else "select d.id from deal d join contact c on c.id = d.contact_id where c.do_not_call"
    return {r[0] for at in (as_of, None) for r in lake.sql(refused, at).fetchall()}
