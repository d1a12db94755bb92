"""What came of the scores that were given, and what changed since and why: differences in points (ten double the odds) that add up.

points now - points then = data (today's model on what is known now, less the same on what was known then; split by feature)
+ model (today's model on what was known then, less what was said then).
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit

from workbench import ledger
from workbench.errors import WorkbenchError
from workbench.features.as_of import as_of_features
from workbench.features.snapshots import seen_records, state_sql
from workbench.lake import open_lake
from workbench.models.leads import LeadScores
from workbench.models.reasons import POINT, Scorer, readable, shown_values
from workbench.models.saved import model_card, save_model
from workbench.rows import scratch

STRONGEST, LEAST = 8, 3  # features whose points the ledger keeps; points by which a score must move to be called risen or fallen


def outcomes(lake, said: pd.DataFrame, *, as_of: datetime) -> pd.DataFrame:
    """`said` (rows of the ledger; id, entity, as_of and horizon_days suffice) with state (open, won, lost, gone), decided_at and event: see outcomes.sql.

    AUC, Brier score and ECE are reckoned on the rows that have an event: those whose horizon has passed, whatever came of them.
    """
    connection, sql = scratch(), resources.files("workbench.models").joinpath("outcomes.sql").read_text(encoding="utf-8")
    told = [f"select '{e}' as entity, id, state, decided, to_at > TIMESTAMP '{as_of}' as is_last from ({state_sql(e, as_of, None)})" for e in ("lead", "deal")]
    connection.register("states", lake.sql(" union all ".join(told)).to_arrow_table())
    connection.register("said", said.reset_index(drop=True).reset_index(names="row")[["row", "id", "entity", "as_of", "horizon_days"]])
    found = connection.sql(sql, params={"now": as_of}).df()
    return said.reset_index(drop=True).assign(state=found["state"], decided_at=found["decided_at"], event=found["event"].astype("boolean"))


def total_points(scorer: Scorer, X: pd.DataFrame) -> pd.Series:
    """The log-odds of each row, in points."""
    return pd.Series((scorer.map.a_ + scorer.parts(X) @ scorer.map.b_) / POINT, index=X.index)


def remember(lake, s: LeadScores, **told: Any) -> int:
    """Save the model under `<lake>/_models` and write every open record's score to the ledger, a batch a horizon; the rows written.

    told: purpose, made_at and run; by default what the run says, so that a notebook run by hand keeps nothing."""
    told, spine = told or ledger.this_run(lake, as_of=s.spine.as_of, source=s.spine.source), s.spine
    if not told or s.scorer is None or s.examples:
        return 0
    X, (facts, card) = spine.open.set_index("id")[spine.features], model_card(s)
    told |= {"model": save_model(s.scorer, lake.path / "_models", features=X, facts=facts, card=card).name, "as_of": spine.as_of, "lake_version": lake.version,
             "source": spine.source, "entity": spine.entity}
    kept = [p[p.abs().nlargest(STRONGEST).index] for _, p in s.points.iterrows()]
    why = pd.DataFrame({"start": s.start, "points": [p.to_json(double_precision=15) for p in kept], "others": s.points.sum(axis=1) - [p.sum() for p in kept]}, index=s.points.index)
    frame = s.scores.rename(columns={"p_convert": "p"}).join(why).assign(total=s.scores["id"].map(total_points(s.scorer, X)))
    n = ledger.write_scores(lake, frame, **told, horizon_days=spine.horizon_days if spine.evaluation == "time" else None)
    for r in s.horizons.itertuples():  # models of their own, of the same kind
        if (p := "p_ever" if r.horizon.startswith("ever") else f"p_{r.days}") in s.scores and r.days != spine.horizon_days:
            n += ledger.write_scores(lake, s.scores[["id"]].assign(p=s.scores[p]), **told, horizon_days=r.days)
    return n


@dataclass
class Changes:
    """rows: one row a record scored then or now, by id: name, state (open, entered; left since: won, lost, gone, other), p_then, p_now, points_then, points_now, change
    = data + model; for those whose probability moved most also parts (feature: points; they add up to `data`) and a sentence. then: what it is compared with; None = nothing."""

    rows: pd.DataFrame
    then: datetime | None
    entity: str
    note: str

    def movers(self, n: int = 5) -> pd.DataFrame:
        """The n whose probability rose most and the n whose fell most, by LEAST points or more: name, change, sentence."""
        rows = self.rows.loc[(self.rows["p_now"] - self.rows["p_then"]).sort_values(ascending=False, kind="stable").index]
        return pd.concat([rows[rows["change"] >= LEAST].head(n), rows[rows["change"] <= -LEAST].tail(n)])[["name", "change", "sentence"]]

    def summary(self) -> str:
        """What changed, as Markdown; it holds no text from the CRM."""
        r, n, wins = self.rows, self.rows["state"].value_counts(), "converted" if self.entity == "lead" else "won"
        left = f"{n.drop(['open', 'entered'], errors='ignore').sum():,} left: {n.get('won', 0):,} {wins}, {n.get('lost', 0):,} lost, {n.get('gone', 0):,} deleted or merged"
        lines = [f"**{n.get('entered', 0):,} {self.entity}s entered and {left}**" + (f", {n['other']:,} no longer scored." if "other" in n else ".")]
        if (won := r.loc[r["state"] == "won", "p_then"].dropna()).size:
            lines.append(f"The {len(won):,} that {wins if wins == 'converted' else 'were won'} had been given {won.mean():.0%} on average; all that were scored then, {r['p_then'].mean():.0%}.")
        if (both := r[r["change"].notna()]).size:
            lines.append(f"Of {len(both):,} scored then and now, {(both['change'] >= LEAST).sum():,} rose and {(both['change'] <= -LEAST).sum():,} fell by {LEAST} points or more. "
                         f"On average new data moved them by {round(both['data'].mean(), 1) + 0:+.1f} points, the model by {round(both['model'].mean(), 1) + 0:+.1f}.")
        return "\n".join([self.note, "", *(f"- {line}" for line in lines)]) if self.then else self.note


def changes(lake, s: LeadScores, *, since: datetime | None = None, allow: list[str] | None = None, explained: int = 300) -> Changes:
    """What changed since the last production run on record before `s` (or that of `since` or before), else since what today's model makes of a week ago.

    allow: as in `lead_scores`. explained: so many records, those whose probability moved most, are split by feature."""
    spine, names, now = s.spine, s.spine.features, s.spine.open.set_index("id")
    said = ledger.latest_run(lake, before=since + timedelta(microseconds=1) if since else spine.as_of, source=spine.source, entity=spine.entity,
                             horizon_days=spine.horizon_days if spine.evaluation == "time" else None).set_index("id")
    note = "Compared with the scores that were given as of {:%Y-%m-%d %H:%M} UTC."
    if recorded := len(said) > 0:
        old = _known_then(lake, s, said, allow)
    elif spine.score_at == "grid":
        seen = seen_records(lake, spine.entity, week := spine.as_of - timedelta(days=7), spine.source).set_index("id").query("is_open and created_at.notna()")
        said = seen[[]].assign(as_of=pd.Timestamp(week), lake_version=lake.version, p=np.nan, total=np.nan)
        old, note = _known_then(lake, s, said, allow), "No earlier run is on record: compared with what today's model makes of {:%Y-%m-%d %H:%M} UTC, so that the model moved nothing."
    if not len(said):
        return Changes(_rows(lake, s, said, now), None, spine.entity, "No earlier run is on record, and these data have no history to compare with.")
    if s.scorer is not None and not recorded:
        said = said.assign(p=s.scorer.probabilities(old), total=total_points(s.scorer, old))
    rows, then = _rows(lake, s, said, now), said["as_of"].iloc[0].to_pydatetime()
    if s.scorer is not None and len(both := said.index.intersection(now.index)):
        asked = total_points(s.scorer, old.loc[both])
        rows["change"], rows["data"], rows["model"] = rows["points_now"] - rows["points_then"], rows["points_now"] - asked, asked - rows["points_then"]
        top = (rows["p_now"] - rows["p_then"]).loc[both].abs().nlargest(explained).index
        moved = s.scorer.points(now.loc[top, names])[0] - s.scorer.points(old.loc[top])[0]
        was, is_ = (shown_values(lake, spine.entity, X, at) for X, at in ((old.loc[top], then), (now.loc[top, names], spine.as_of)))
        rows["parts"] = pd.Series(moved.to_dict("index"), dtype=object)
        rows["sentence"] = pd.Series({i: _sentence(rows.loc[i], moved.loc[i], was.loc[i], is_.loc[i]) for i in top}, dtype=object)
    return Changes(rows, then, spine.entity, note.format(then))


def _known_then(lake, s: LeadScores, said: pd.DataFrame, allow: list[str] | None) -> pd.DataFrame:
    """The features of the records of `said` as the lake of that run knew them; as today's lake tells them where that one is gone or had not all."""
    then = s.spine.open.set_index("id")["as_of"].reindex(said.index).fillna(said["as_of"]).clip(upper=said["as_of"])  # where a score is made at creation: then
    ask = partial(as_of_features, entity=s.spine.entity, spine=then.reset_index(), allow=allow, half_life=s.spine.half_life)
    with suppress(WorkbenchError):
        found = ask(open_lake(lake.path, version=int(said["lake_version"].iloc[0]))).set_index(said.index)
        if set(s.spine.features) <= set(found):
            return found[s.spine.features]
    return ask(lake).set_index(said.index)[s.spine.features]


def _rows(lake, s: LeadScores, said: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """One row a record of `said` or `now`: state, name, and both scores."""
    came = outcomes(lake, said.reset_index().assign(entity=s.spine.entity, horizon_days=None), as_of=s.spine.as_of).set_index("id")["state"]
    rows = pd.DataFrame({"p_then": said["p"], "points_then": said["total"].fillna(logit(said["p"]) / POINT), "state": came.where(came.isin(["won", "lost", "gone"]), "other")})
    rows = rows.reindex(said.index.union(now.index))
    rows.loc[now.index, "state"] = np.where(now.index.isin(said.index), "open", "entered")
    rows["name"] = lake.read(s.spine.entity, s.spine.as_of, columns=["id", "name"]).set_index("id")["name"]
    rows["p_now"] = s.scores.set_index("id")["p_convert"].reindex(now.index)
    rows["points_now"] = total_points(s.scorer, now[s.spine.features]) if s.scorer else np.nan
    return rows.assign(name=rows["name"].fillna(rows.index.to_series()), change=np.nan, data=np.nan, model=np.nan, parts=None, sentence=None)


def _sentence(row: pd.Series, moved: pd.Series, was: pd.Series, is_: pd.Series) -> str:
    top = [c for c in moved.abs().nlargest(3).index if abs(moved[c]) >= 0.5]
    told = [f"{readable(c)} {was[c]}{f' → {is_[c]}' if was[c] != is_[c] else ''} ({moved[c]:+.0f})" for c in top]
    rest = (("other fields", moved.drop(top).sum()), ("model retrained", row["model"]))
    return f"{row['p_then']:.0%} → {row['p_now']:.0%} ({row['change']:+.0f} points): " + "; ".join([*told, *(f"{what} ({points:+.0f})" for what, points in rest if abs(points) >= 0.5)])
