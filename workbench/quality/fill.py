"""How full the fields are, now and at the time of decision, and what the data are good for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

import pandas as pd

from workbench import schema
from workbench.rows import of_source, quoted
from workbench.schema import CLOSED, LOST, WON

PLACEHOLDERS = ("", "-", "--", "?", "n/a", "na", "none", "null", "nan", "select", "unknown", "tbd", "not set")
MIN_OUTCOMES = 30
LATE, GAP, PARTIAL, SPARSE = .2, .2, .6, .05
FILL = ["entity", "field", "n", "filled", "fill_share", "fill_at_decision", "fill_won", "fill_lost", "gap", "known_at", "verdict"]


def is_filled(column: str, kind: str) -> str:
    """SQL condition: the column holds a value; a placeholder such as Select or n/a is none."""
    if kind != "VARCHAR":
        return f"{column} is not null"
    return f"coalesce(lower(trim({column})) not in ({', '.join(map(quoted, PLACEHOLDERS))}), false)"


def fill_rates(lake, entity: str, as_of: datetime | None = None, source: str | None = None) -> pd.DataFrame:
    """One row a field of `entity`: how many records fill it, now and when they were decided; placeholders count as missing.

    n, filled, fill_share: records as of `as_of`. fill_at_decision: share among decided records in the version that stood
    just before the decision; missing where no history tells. fill_won, fill_lost, gap (their difference): now.
    known_at: table `field`, else the schema. verdict: empty, outcome, current only, filled late (after the decision),
    suspect (no history, but filled differently by outcome), sparse, partial or good.
    """
    kinds = _field_types(lake, entity)
    won, lost = WON.get(entity, "false"), LOST.get(entity, "false")
    parts = [f"count(*) filter (where {is_filled(f, k)} and {c}) as n{i}_{j}" for i, (f, k) in enumerate(kinds.items())
             for j, c in enumerate(("true", won, lost, _decided(entity)))]
    row = lake.sql(f'''select count(*), count(*) filter (where {won}), count(*) filter (where {lost}), count(*) filter (where {_decided(entity)}),
        {", ".join(parts)} from "{entity}" where {of_source(source)}''', as_of).fetchall()[0]
    n, n_won, n_lost, n_decided = row[:4]
    known, before = _known_at(lake, entity, source), _fill_before(lake, entity, kinds, as_of, source)
    rows = []
    for i, field in enumerate(kinds):
        filled, on_won, on_lost, on_decided = row[4 + 4 * i: 8 + 4 * i]
        at = before.get(field) if {"fixed", "historized"} >= set(known[field].split(", ")) else None
        w, lo, share = _ratio(on_won, n_won), _ratio(on_lost, n_lost), _ratio(filled, n)
        gap = None if w is None or lo is None else w - lo
        outcome = (item := schema.entity(entity).fields.get(field)) is not None and item.outcome
        rows.append((entity, field, n, filled, share, at, w, lo, gap, known[field],
                     _verdict(outcome, known[field], share, at, _ratio(on_decided, n_decided), gap)))
    frame = pd.DataFrame(rows, columns=FILL)
    return frame.astype({c: "float64" for c in ("fill_share", "fill_at_decision", "fill_won", "fill_lost", "gap")})


def _decided(entity: str) -> str:
    return f"({CLOSED[entity]}) is not null" if entity in CLOSED else "false"


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _verdict(outcome: bool, known_at: str, share: float | None, at: float | None, decided: float | None, gap: float | None) -> str:
    """The first of the reasons that holds.

    >>> _verdict(False, "historized", .9, .3, .9, .1), _verdict(False, "assumed", .9, None, .9, .5), _verdict(False, "fixed", .9, .9, .9, .5)
    ('filled late', 'suspect', 'good')
    """
    if not share:
        return "empty"
    if outcome or "outcome" in known_at:
        return "outcome"
    if "current_only" in known_at:
        return "current only"
    if at is not None and decided is not None and decided - at > LATE:
        return "filled late"
    if at is None and gap is not None and abs(gap) >= GAP:
        return "suspect"
    return "sparse" if share < SPARSE else "partial" if share < PARTIAL else "good"


def _field_types(lake, entity: str) -> dict[str, str]:
    """Fields that people or the CRM fill -> DuckDB type; not the bookkeeping of versions, not the flags of placeholders."""
    skip = {name for name, _, _ in schema.VERSION} | {f.name for f in schema.COMMON}
    return {c: k for c, k in lake.column_types(entity).items() if c not in skip and not c.endswith("_not_chosen")}


def _known_at(lake, entity: str, source: str | None) -> dict[str, str]:
    """Field -> how its value is known; several words where the sources differ."""
    defaults = {f.name: f.known_at for f in schema.entity(entity).fields.values()}
    rows = lake.fields()
    rows = rows[(rows["entity"] == entity) & ((rows["source"] == source) if source else True)]
    told = rows.groupby("field")["known_at"].agg(lambda words: ", ".join(sorted(set(words)))).to_dict()
    return {f: told.get(f, defaults.get(f, "assumed")) for f in _field_types(lake, entity)}


def _fill_before(lake, entity: str, kinds: dict[str, str], as_of: datetime | None, source: str | None) -> dict[str, float | None]:
    """Field -> fill just before the decision, among the decisions that history covers; a version that knows the outcome is not before it."""
    if entity not in CLOSED:
        return {}
    masks = lake.fields()
    masks = masks[(masks["entity"] == entity) & masks["history_from"].notna()]
    parts = []
    for field, kind in kinds.items():
        unknown = [f"({of_source(r.source)} and decided_at < TIMESTAMP '{r.history_from}')" for r in masks[masks["field"] == field].itertuples()]
        covered = f"not ({' or '.join(unknown)})" if unknown else "true"
        parts += [f"count(*) filter (where {covered})", f"count(*) filter (where {covered} and {is_filled(field, kind)})"]
    row = lake.sql(f"""with closed as (select id, {CLOSED[entity]} as decided_at from {entity} where {_decided(entity)} and {of_source(source)})
        select {', '.join(parts)} from (select v.*, c.decided_at from {entity}_versions v join closed c on v.id = c.id
        where {CLOSED[entity]} is null and v.valid_from < c.decided_at and (v.valid_to is null or v.valid_to >= c.decided_at))""", as_of).fetchall()[0]
    return {field: _ratio(row[2 * i + 1], row[2 * i]) for i, field in enumerate(kinds)}


def capability_verdicts(lake, as_of: datetime | None = None, source: str | None = None) -> pd.DataFrame:
    """One row a capability: ready (yes, partly, no) and a sentence that gives the numbers behind it."""
    judges: dict[str, Callable] = {"lead scoring": partial(_outcomes, entity="lead", words=("converted", "not converted")),
              "win probability": partial(_outcomes, entity="deal", words=("won", "lost")), "forecast": _forecast,
              "next best action": _next_best_action, "personalization": _personalization, "data quality": _data_quality}
    rows = [(name, *judge(lake, as_of, source)) for name, judge in judges.items()]
    return pd.DataFrame(rows, columns=["capability", "ready", "sentence"])


def _changed(entity: str) -> str:
    """SQL: ids of records whose changes were recorded; the two states that an import makes of one row are no history."""
    return f"select id from \"{entity}_versions\" where origin <> 'import' group by id having count(*) > 1"


def _outcomes(lake, as_of: datetime | None, source: str | None, *, entity: str, words: tuple[str, str]) -> tuple[str, str]:
    n_won, n_lost, n_dated, n_story = lake.sql(f"""select count(*) filter (where {WON[entity]}), count(*) filter (where {LOST[entity]}),
        count(*) filter (where ({WON[entity]} or {LOST[entity]}) and {_decided(entity)} and created_at is not null),
        count(*) filter (where id in ({_changed(entity)})) from {entity} where {of_source(source)}""", as_of).fetchall()[0]
    what = f"{n_won:,} {entity}s {words[0]} and {n_lost:,} {words[1]}"
    if min(n_won, n_lost) < MIN_OUTCOMES:
        return "no", f"Too little to learn from: {what}; at least {MIN_OUTCOMES} of each are needed."
    dated = n_dated / (n_won + n_lost)
    if dated < .9:
        return "partly", f"{what}, but only {dated:.0%} of them have dates: scored at creation, judged in grouped folds, blind to drift."
    if not n_story:
        return "partly", f"{what}, dated, but without any history of changes: scored at creation only."
    return "yes", f"{what}, {dated:.0%} of them dated, {n_story:,} {entity}s with a history of changes."


def _forecast(lake, as_of, source) -> tuple[str, str]:
    n_won, n_months, n_open, n_planned = lake.sql(f"""select count(*) filter (where is_won and closed_at is not null and amount > 0),
        count(distinct date_trunc('month', closed_at)) filter (where is_won and amount > 0), count(*) filter (where is_won is null),
        count(*) filter (where is_won is null and close_on is not null) from deal where {of_source(source)}""", as_of).fetchall()[0]
    what = f"{n_won:,} won deals with date and amount over {n_months:,} months, {n_open:,} open deals ({n_planned:,} with a planned close date)"
    if n_won < MIN_OUTCOMES or n_months < 6:
        return "no", f"Too little to forecast from: {what}; at least {MIN_OUTCOMES} wins over 6 months are needed."
    if n_months < 24 or 2 * n_planned < n_open:
        return "partly", f"{what}: 24 months (for seasons) and planned dates on half of the open deals make a full forecast."
    return "yes", f"{what}."


def _next_best_action(lake, as_of, source) -> tuple[str, str]:
    n, n_kinds = lake.sql(f"""select count(*), count(distinct kind) from activity where coalesce(is_done, true)
        and coalesce(lead_id, deal_id, contact_id) is not null and {of_source(source)}""", as_of).fetchall()[0]
    n_decided = sum(lake.sql(f"""select count(*) from {e} where ({WON[e]} or {LOST[e]}) and {of_source(source)}
        and id in (select {e}_id from activity)""", as_of).fetchall()[0][0] for e in WON)
    what = f"{n:,} activities of {n_kinds:,} kinds, {n_decided:,} decided leads and deals that had any"
    if n_decided < MIN_OUTCOMES:
        return "no", f"Nothing to compare actions by: {what}; at least {MIN_OUTCOMES} are needed."
    if n < 1000 or n_kinds < 2:
        return "partly", f"{what}: timing can be advised; choosing among actions takes 1,000 activities of two kinds."
    return "yes", f"{what}; advice rests on observation, not on an experiment."


def _personalization(lake, as_of, source) -> tuple[str, str]:
    n_people, n_often, n_in = lake.sql(f"""select count(*), count(*) filter (where n >= 5), coalesce(sum(n_in), 0)::bigint from (select count(*) as n,
        count(*) filter (where direction = 'in') as n_in from activity where coalesce(contact_id, lead_id) is not null and {of_source(source)}
        group by coalesce(contact_id, lead_id))""", as_of).fetchall()[0]
    what = f"{n_people:,} people with activities ({n_often:,} with five or more), {n_in:,} of these incoming"
    if n_people < MIN_OUTCOMES or n_in < MIN_OUTCOMES:
        return "no", f"Nobody's preferences can be seen: {what}; at least {MIN_OUTCOMES} people and {MIN_OUTCOMES} answers are needed."
    if n_often < 200:
        return "partly", f"{what}: habits of groups, not of single people."
    return "yes", f"{what}."


def _data_quality(lake, as_of, source) -> tuple[str, str]:
    counts = [lake.sql(f"""select count(*), count(*) filter (where id in ({_changed(e)}))
        from "{e}" where {of_source(source)}""", as_of).fetchall()[0] for e in lake.entities()]
    n, n_story = sum(c[0] for c in counts), sum(c[1] for c in counts)
    if not n:
        return "no", "There is no record to judge."
    if not n_story:
        return "partly", f"{n:,} records, none with a history: fill can be told for now, not for the time of decision."
    return "yes", f"{n:,} records, {n_story:,} of them with a history of changes."
