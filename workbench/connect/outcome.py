"""Which column of leads or deals tells how the story ended, and which of its values mean what."""

from __future__ import annotations

import re

from workbench.connect.drafted import Draft
from workbench.connect.guess import NAMES, WORD, plain
from workbench.connect.profile import PLAIN, WORDS, Column
from workbench.connect.typed import raw_sql
from workbench.rows import quoted


def _map_values(c: Column) -> dict[str, object]:
    """value -> won, lost or "" (open), by words."""
    return {v: False if WORD["lost"].search(plain(v)) else True if WORD["won"].search(plain(v)) else "" for v, _ in c.values}


def find_outcome(f: Draft) -> None:
    """Which column tells won and lost (deal) or converted and given up (lead); sets f.won."""
    texts = [c for c in f.columns.values() if c.kind == "text" and 1 < c.distinct <= 60 and WORD["outcome"].search(plain(c.name))]
    texts.sort(key=lambda c: sum(v == "" for v in _map_values(c).values()))
    flags = {plain(c.name): c for c in f.columns.values() if c.kind == "bool"}
    (_deal_outcome if f.entity == "deal" else _lead_outcome)(f, texts, flags)


def _deal_outcome(f: Draft, texts: list[Column], flags: dict[str, Column]) -> None:
    both = [c for c in texts if {True, False} <= set(_map_values(c).values())]
    closed, won = (next((c for n, c in flags.items() if re.search(p, n)), None) for p in (r"\bclosed$", r"\bwon\b"))
    ended = next((c for c in f.columns.values() if c.kind in ("date", "time") and re.fullmatch(NAMES["dates"]["won"][0], plain(c.name, "deal"))), None)
    if both:
        told = _map_values(both[0])
        f.put(both[0].name, "is_won", "which values mean won and lost, by their words; the others are open", values={v: w for v, w in told.items() if w != ""} | {"*": ""})
        f.won = _case(both[0].name, told)
    elif closed and won:
        word = {(c.name, b): next((v for v, w in _yes_no(c).items() if w is b), "?") for c in (closed, won) for b in (True, False)}
        f.join("Closed and won", [closed.name, won.name])
        f.put("Closed and won", "is_won", "won and lost count only where the deal is closed",
              values={f"{word[closed.name, True]} {word[won.name, b]}": b for b in (True, False)} | {"*": ""})
        f.won = f"case when {_case(closed.name, _yes_no(closed))} then {_case(won.name, _yes_no(won))} end"
    elif won:
        f.put(won.name, "is_won", "QUESTION: does a no mean lost, or may it still be open? Map open ones to missing", **foreign_words(won))
        f.won = _case(won.name, _yes_no(won))
    elif ended:
        f.put(ended.name, "is_won", "QUESTION: a deal with this date is won; which are lost?", values={"*": True})
        f.won = f"case when {raw_sql(ended.name)} is not null then true end"
    else:
        f.head.append("# QUESTION: which column tells whether a deal was won or lost? Map it to is_won; without it nothing can be learned.")


def _lead_outcome(f: Draft, texts: list[Column], flags: dict[str, Column]) -> None:
    named = next((c for n, c in flags.items() if WORD["lead_outcome"].search(n)), None)
    worded = next((c for c in texts if True in _map_values(c).values()), None)
    if named:
        f.put(named.name, "is_converted", "the outcome, by its name and its two values", **foreign_words(named))
        f.won = _case(named.name, _yes_no(named))
    elif worded:
        told = _map_values(worded)
        f.put(worded.name, "is_converted", "QUESTION: which values mean converted? Read by their words", values={v: True for v, w in told.items() if w is True} | {"*": False})
        f.won = _case(worded.name, told)
    else:
        f.head.append("# QUESTION: which column tells whether a lead became a customer? Map it to is_converted; without it nothing can be learned.")
        return
    steps = [c for c in texts if re.search(r"status|stage|phase|disposition|stufe", plain(c.name))]
    if steps:
        c = max(steps, key=lambda c: sum(w is False for w in _map_values(c).values()))
        lost = {v: True for v, w in _map_values(c).items() if w is False}
        f.put(c.name, "is_lost", "these values mean given up, by their words; the others may still convert" if lost else "QUESTION: does one of its values mean given up?",
              values=lost | {"*": False} | ({"": False} if c.filled < c.n else {}))
    else:
        f.head.append('# QUESTION: may a lead that has not converted still do so? As it stands, "no" counts as decided.')


def _yes_no(c: Column) -> dict:
    return {v: WORDS[v.lower()] for v, _ in c.values}


def foreign_words(c: Column) -> dict:
    """What yes and no mean where the import does not know the words."""
    told = {v: b for v, b in _yes_no(c).items() if v.lower() not in PLAIN}
    return {"values": told} if told else {}


def _case(column: str, told: dict) -> str:
    cases = " ".join(f"when {quoted(v)} then {str(w).lower() if isinstance(w, bool) else 'null'}" for v, w in told.items())
    return f"(case {raw_sql(column)} {cases} end)::boolean" if cases else "null::boolean"
