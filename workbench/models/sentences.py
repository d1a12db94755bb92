"""What a manager reads about scores: Markdown made from the numbers of `LeadScores`; it holds no text from the CRM but field names."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from workbench.models import value
from workbench.models.leads import LeadScores
from workbench.models.reasons import readable

BAND_FORMATS = {c: "share" for c in ("p_mean", "observed", "low", "high", "p_open", "p_open_low", "p_open_high")} | {"expected": ".1f"}


@dataclass(frozen=True)
class Profit:
    """What calling by score would have earned: a sentence, and the frames of `value.profit_curve` and `value.cut_table`."""

    sentence: str
    curve: pd.DataFrame
    cuts: pd.DataFrame
    currency: str = ""


def profit(s: LeadScores, costs: dict) -> Profit:
    """The profit of calling by score, with the table [value] of workbench.toml; a conversion without a value there is worth what its like brought."""
    worth = costs.get("value_per_conversion") or (s.scores["value"].median() if s.scores["value"].notna().any() else 0)
    if not s.usable or not worth or "cost_per_call" not in costs:
        why = ("No score is usable, so no profit can be told." if not s.usable else
               "Write cost_per_call and value_per_conversion below [value] in workbench.toml, and this tells from which chance on a call pays.")
        return Profit(why, pd.DataFrame(), pd.DataFrame())
    curve, cuts = (f(s.rows, cost_per_call=costs["cost_per_call"], value_per_conversion=worth) for f in (value.profit_curve, value.cut_table))
    return Profit(value.profit_sentence(cuts, currency=costs.get("currency", ""), noun=s.spine.entity), curve, cuts, costs.get("currency", ""))


def segments_sentence(s: LeadScores) -> str:
    """Whether the scores hold in every segment."""
    if s.segments.empty:
        return "No score was judged, so none can be judged by segment."
    off = s.segments[s.segments["reading"] != "as said"]
    told = f"In {counted(len(off), 'segment')} of {len(s.segments):,} the scores say too much or too little" if len(off) else f"In all {len(s.segments):,} segments the outcomes agree with the scores"
    return f"{told}, after control of false discoveries. Small segments borrow from the others; every one is scored by the same model."


def counted(n: int, noun: str) -> str:
    """A number and its noun.

    >>> counted(1, "lead"), counted(1200, "lead")
    ('1 lead', '1,200 leads')
    """
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def event_words(s: LeadScores) -> str:
    """What is foretold: the event and by when."""
    verb = "converted" if s.spine.entity == "lead" else "were won"
    return f"{verb} within {counted(s.spine.horizon_days, 'day')}" if s.spine.evaluation == "time" else f"{verb} by the time of the export"


def rows_words(s: LeadScores, n: int) -> str:
    """n judged rows: leads, or snapshots where each open lead counts once at every origin."""
    return counted(n, s.spine.entity + (" snapshot" if s.spine.score_at == "grid" else ""))


def verdict_sentence(s: LeadScores) -> str:
    """Whether the score may be used, and the gain that says so."""
    if s.judged.verdict != "usable":
        return f"**{s.judged.verdict.capitalize()}.** {s.judged.why} No score is given, and lists are newest first."
    r = s.results()
    return (f"**Usable.** On {rows_words(s, r['n'])} that the model had not learned from, the {r['model']} puts one with the event above one without it in {r['auc']:.0%} of pairs "
            f"(AUC {r['auc']:.3f}). Its log loss is {r['log_loss']:.3f}, that of the base rate {r['baselines']['base rate']['log_loss']:.3f}; with 99 % confidence the gain is at least {r['gain_low']:.3f}.")


def base_rate_sentence(s: LeadScores) -> str:
    """What the base rate is, and of what."""
    r = s.results()
    if not r["n"]:
        return f"Of no {s.spine.entity}s is it known yet whether they {event_words(s)}."
    judged = "judged " if len(s.judged.rows) else ""
    sample = "" if s.spine.evaluation == "time" else " This is the rate of the export, which may be a sample and not the funnel."
    return f"The base rate is **{r['base_rate']:.1%}**: {r['n_events']:,} of the {judged}{rows_words(s, r['n'])} {event_words(s)}.{sample}"


def calibration_sentence(s: LeadScores) -> str:
    """How far the probabilities are off, beside what chance alone makes."""
    r = s.results()
    if s.calibration.empty:
        return "No probabilities were given out, so there is nothing to check."
    judged = "no error of calibration can be seen" if r["ece"] <= r["ece_perfect"] else "that is more than chance explains; read the scores as an order rather than as rates"
    return (f"Over ten groups of equal size the probabilities are off by {r['ece']:.3f} on average (ECE). A perfect model stays at or below {r['ece_perfect']:.3f} in 95 of 100 "
            f"samples of this size: **{judged}**.")


def trust_points(s: LeadScores) -> str:
    """Can this be trusted: a list of what was measured, what was taken on trust and what was not looked at."""
    r, entity = s.results(), s.spine.entity
    how = ("Nothing was judged." if s.judged.rows.empty else
           f"Judged in order of time: learned from the earlier, tested on the later {rows_words(s, r['n'])}; no {entity} was judged by a model that had learned from it." if r["evaluation"] == "time" else
           f"Judged in five folds of {rows_words(s, r['n'])}, twins on one side, since nothing here has a date. "
           + ("Drift shows only as far as the running number is an order of time: the table in the order of the export tells." if len(s.drift) else
              f"**Drift was not measured**: nothing says that the next {entity}s are like these."))
    points = [how, *s.notes]
    if r["assumed"]:
        points.append(f"Taken as known when scored, though no history dates them ({len(r['assumed'])}): {', '.join(readable(c) for c in r['assumed'])}.")
    if s.half_life:
        how = f"about {s.half_life.days:.0f} days" if s.half_life.known else f"a time that these data can hardly tell (taken as {s.half_life.days:.0f} days)"
        points.append(f"What an inbound activity or visit tells halves in {how} (95 % interval {s.half_life.low:.0f} to {s.half_life.high:.0f} days); "
                      + ("it is used with that half-life." if s.half_life.pays else "it foretells nothing beyond the other fields out of sample, so it is not used."))
    named = s.suspects[s.suspects["verdict"] != "fine"].assign(used=lambda f: f["field"].isin(s.spine.features))
    for used, words in ((True, "**In use although they know much alone**; find out when they are filled"), (False, "Kept out, and they do know much of the outcome")):
        fields = [f"{readable(f.field)} ({f.verdict}, AUC {f.auc:.2f})" for f in named[named["used"] == used].itertuples()]
        if fields:
            points.append(f"{words}: {', '.join(fields)}.")
    if named.empty and len(s.suspects) and len(s.judged.rows):
        points.append(f"None of {counted(len(s.suspects), 'candidate field')} knows suspiciously much of the outcome by itself.")
    if len(s.excluded):
        points.append(f"{counted(len(s.excluded), 'field')} took no part; the table of excluded fields gives the reasons.")
    return "\n".join(f"- {p}" for p in points)


def scores_sentence(s: LeadScores) -> str:
    """What the scores add up to, and how to read points; or why there are none."""
    n, entity = 0 if s.examples else len(s.scores), s.spine.entity
    if s.examples:
        return f"No {entity} is open, so there is nobody to call. As examples: what a new {entity} with the fields of each of the newest {counted(len(s.scores), entity)} would be told."
    if not n or not s.usable:
        return f"{counted(n, f'open {entity}')}, newest first; none has a score." if n else f"No {entity} is open, so there is nobody to call."
    return (f"{counted(n, f'open {entity}')}: {s.scores['p_convert'].sum():,.1f} of them are expected to {'convert' if entity == 'lead' else 'be won'}. Ten points double the odds. "
            "The interval (80 %) is what records scored alike did on average, not this one; where it leaves the chance out, trust the interval."
            + " Fewer than 100 records had the event, so the best scores' intervals may be too narrow." * (s.judged.rows.loc[s.judged.rows["y"] == 1, "group"].nunique() < 100))


def call_sentence(s: LeadScores, capacity: int, worth: float | None = None) -> str:
    """What a list of `capacity` calls brings, and who was left out; worth as in `LeadScores.call_list`."""
    chosen, refused = s.call_list(capacity, worth), 0 if s.examples else int((~s.scores["may_call"].astype(bool)).sum())
    left = f" {counted(refused, f'open {s.spine.entity}')} refused calls and {'is' if refused == 1 else 'are'} never on the list." if refused else ""
    if chosen.empty:
        return "" if s.examples else f"The list is empty.{left}"
    if not s.usable:
        return f"{counted(len(chosen), s.spine.entity)}, **newest first**, because no score is usable.{left}"
    return f"{counted(len(chosen), s.spine.entity)}: {chosen['p_convert'].sum():,.1f} conversions expected, {len(chosen) * s.results()['base_rate']:,.1f} at the base rate.{left}"


def next_steps(s: LeadScores) -> str:
    """What to do next: a list."""
    steps = []
    if s.usable:
        steps.append("Score new ones as they come in and record every outcome, lost ones too: the next run learns from them." if s.examples else
                     "Work the list from the top and record every outcome, lost ones too: the next run learns from them.")
    elif s.judged.verdict == "no usable signal":
        steps.append("Do not buy or build a score on these fields; collect what is not here yet: activities, answers, sources.")
    else:
        steps.append(f"Wait for more outcomes, or import older {s.spine.entity}s, lost ones too.")
    if s.spine.evaluation != "time" and s.results()["n"]:
        steps.append("Bring creation and closing dates into the export: then the score can be judged in order of time, and for a horizon.")
    if (s.suspects["verdict"] != "fine").any():
        steps.append("Ask who fills the accused fields, and when; let one in by name (parameter `allow`) if it is known when the record is scored.")
    if len(s.spine.assumed):
        steps.append("Import or sync again after a while: fields that changed show their history, and need no assumption any more.")
    return "\n".join(f"- {p}" for p in steps)
