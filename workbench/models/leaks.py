"""The leak court: which fields know of the outcome what nobody knew when a record was scored.

A number counts when it clears its bar by SURE standard errors, since one court looks at some hundreds of numbers. A standard field whose history is
known (a stage) may change at the close: scores see it before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import logit
from scipy.stats import f as f_distribution
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from workbench import schema
from workbench.features.snapshots import Snapshots, seen_records, state_sql
from workbench.models.rungs import as_numbers, kinds
from workbench.rows import scratch

SURE, FEW = 3.5, 30  # of fewer records of a kind nothing is said
SETTLED = 20.0  # a value that moves the odds of the outcome by this factor settles it
MANY = 20  # of so many other fields one at least goes with an honest sign of the outcome
MOST_RECORDS = 50_000  # a larger source is judged on as many, drawn at random
NUMBERS = ("n_filled", "auc", "auc_low", "auc_high", "settled_share", "late_share", "n_late", "mass_share", "fill_gap", "blank_auc", "blank_beyond",
           "fill_drop", "auc_drop", "growth", "tied")


@dataclass
class Hearing:
    """What is said of one field: numbers by name, accusations as (weight, clause; 1 = suspect, 2 = leak), and what speaks for it."""

    numbers: dict = field(default_factory=dict)
    against: list[tuple[int, str]] = field(default_factory=list)
    defence: list[str] = field(default_factory=list)

    def accuse(self, value: float, suspect: float, leak: float, clause: str) -> None:
        """Note `clause` where `value` is above the bar of a suspect, or of a leak."""
        if value > suspect:
            self.against.append((1 + (value > leak), clause))

    def told(self) -> dict:
        """verdict, why (a sentence: what is against it, what is for it) and the numbers."""
        against, defence = "; ".join(clause for _, clause in sorted(self.against, key=lambda a: -a[0])), "; ".join(self.defence)
        text = f"against it: {against}" + f". For it: {defence}" * bool(defence) if against else defence or "nothing speaks against it"
        if not against and not self.numbers.get("n_filled", 1):
            text = "no value of it is known as of then, so it could not be heard"
        return {"verdict": ("fine", "suspect", "leak")[max((w for w, _ in self.against), default=0)], "why": text[0].upper() + text[1:] + ".", **self.numbers}


def auc_within(score: np.ndarray, event: np.ndarray, strata: np.ndarray | None = None) -> tuple[float, float]:
    """Chance that a record with the event scores above one of the same stratum without, ties half, and its standard error (Hanley and McNeil 1982).

    >>> auc_within(np.array([1, 2, 2, 3]), np.array([0, 0, 1, 1]))[0]
    0.875
    """
    _, level = np.unique(score, return_inverse=True)
    width = level.max(initial=0) + 1
    place = level + width * (0 if strata is None else strata)
    yes, every = (np.bincount(place, w, width * (place.max(initial=0) // width + 1)).reshape(-1, width) for w in (event.astype(float), np.ones(len(event))))
    no, n1, n0 = every - yes, yes.sum(1), (every - yes).sum(1)
    a, pairs = (yes * (np.cumsum(no, 1) - no / 2)).sum(1) / np.maximum(n1 * n0, 1), np.maximum(n1 * n0, 1e-9)
    spread = (a * (1 - a) + (n1 - 1) * (a / (2 - a) - a * a) + (n0 - 1) * (2 * a * a / (1 + a) - a * a)) * pairs
    return (float((a * pairs).sum() / pairs.sum()), float(np.sqrt(np.maximum(spread, 1e-9).sum()) / pairs.sum())) if (n1 * n0).any() else (0.5, np.inf)


def _numbers(values: pd.Series) -> pd.Series | None:
    return as_numbers(values.to_frame("v"), ["v"])["v"] if kinds(values.to_frame("v"))[0] and values.notna().any() else None


def levels(values: pd.Series) -> np.ndarray:
    """A whole number for each value: 0 = blank, then one for each text, day or number; more than 20 numbers are taken in twentieths."""
    x = _numbers(values)
    if x is not None and x.nunique() > 20:
        return np.where(x.isna(), 0, 1 + np.searchsorted(np.nanquantile(x, np.linspace(0.05, 0.95, 19)), x))
    return pd.factorize(values if x is None else x)[0] + 1


def learned_odds(level: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Log-odds of the event at each row's level beyond the base's, as the other half of the rows shows them (and five rows of the base)."""
    half, k, out = np.arange(len(level)) % 2, level.max(initial=0) + 1, np.zeros(len(level))
    for part in (half == 0, half == 1):
        base = (event[part].sum() + 0.5) / (part.sum() + 1)
        out[~part] = logit((np.bincount(level[part], event[part], k) + 5 * base) / (np.bincount(level[part], minlength=k) + 5))[level[~part]] - logit(base)
    return out


def _parts(x: np.ndarray, k: int) -> np.ndarray:
    return (rankdata(x, method="ordinal") - 1).astype(int) * k // max(len(x), 1)


def hear_alone(h: Hearing, level: np.ndarray, odds: np.ndarray, won: np.ndarray, as_of: bool) -> None:
    """Too good alone: AUC of the rates learned for its values; share of records in values that settle the outcome. as_of = it has a history."""
    (auc, se), n, yes = auc_within(odds, won), np.bincount(level), np.bincount(level, won)
    middle, half = (yes + SURE**2 / 2) / (n + SURE**2), SURE / (n + SURE**2) * np.sqrt(yes * (n - yes) / np.maximum(n, 1) + SURE**2 / 4)  # Wilson
    low, high = ((p / (1 - p)) / won.mean() * (1 - won.mean()) for p in np.clip((middle - half, middle + half), 1e-9, 1 - 1e-9))
    settled = float(n[(low >= SETTLED) | (high <= 1 / SETTLED)].sum() / len(level))
    h.numbers |= {"n_filled": int((level > 0).sum()), "auc": max(auc, 0.5), "auc_se": se, "auc_low": auc - 1.96 * se, "auc_high": auc + 1.96 * se, "settled_share": settled}
    told = f"alone it reaches an AUC of {max(auc, 0.5):.2f} ({auc - 1.96 * se:.2f}–{auc + 1.96 * se:.2f})"
    h.accuse(auc - SURE * se, *((0.95, 0.98) if as_of else (0.85, 0.95)), told)
    h.accuse(settled, 0.1, 0.2, f"{settled:.0%} of the records hold values that change the odds of the outcome {SETTLED:.0f}-fold or more")
    h.defence += [f"{told}, no more than honest fields do"] if auc < 0.65 else []


def hear_written(h: Hearing, changes: pd.DataFrame) -> None:
    """Written after the outcome: of the closed records whose value changed after creation, the share in which it changed with the close or later."""
    for row in changes[changes["touched"] >= 20].itertuples():
        p, n, mass = row.late / row.touched, row.touched, row.mass / max(row.late, 1)
        if p >= h.numbers.get("late_share", 0):
            h.numbers |= {"late_share": p, "n_late": row.late, "mass_share": mass}
        batch = f", {mass:.0%} of them at one instant with more than 20 others" if mass > 0.2 else ""
        h.accuse(p - SURE * np.sqrt(max(p * (1 - p), 1 / n) / n), 0.2, 0.5, f"in {p:.0%} of the {n:,} {'won' if row.won else 'lost'} records whose value changed, "
                 f"it changed with the close or later{batch}")
    if h.numbers.get("late_share", 1) <= 0.2:
        h.defence.append(f"its versions tell when it was written: {1 - h.numbers['late_share']:.0%} of the changed records changed before the close")


def hear_open(h: Hearing, level: np.ndarray, closed: np.ndarray, age: np.ndarray) -> None:
    """Closed (1) against open (0) records created at the same time: are they filled more often?"""
    if min((closed == 1).sum(), (closed == 0).sum()) < FEW:
        return
    full = level > 0
    a, se = auc_within(full, closed, age)
    h.numbers["fill_gap"] = 2 * a - 1  # of a yes or no, 2 AUC - 1 is the difference of two shares
    h.accuse(2 * (a - SURE * se) - 1, 0.15, 0.4, f"it is filled once a record is closed: in {full[closed == 1].mean():.0%} of closed and {full[closed == 0].mean():.0%} of open ones "
             f"(at the same age a difference of {2 * a - 1:.0%})")


def hear_over_time(h: Hearing, values: pd.Series, odds: np.ndarray, won: np.ndarray, times: dict[str, np.ndarray]) -> None:
    """Collapses out of time (it stops being filled, or telling) or goes on growing after the close; `times`: of creation and closing, NaN = unknown."""
    full, x, order, closing = values.notna().to_numpy(), _numbers(values), times["creation"], times["closing"]
    a, se = auc_within(odds[full], won[full]) if full.sum() > 2 * FEW else (0.5, np.inf)
    for name, time in times.items():
        before, after, drop, sure = steepest_fall(full, time)
        h.numbers["fill_drop"] = max(drop, h.numbers.get("fill_drop", 0.0))
        h.accuse(sure * (a - SURE * se > 0.53), 0.3, 2, f"its filling stops at a moment (from {before:.0%} to {after:.0%} in the order of {name}), and where filled it tells of the outcome (AUC {a:.2f})")
    if np.isfinite(order).all():
        new = _parts(order, 2) == 1
        (early, e), (late, s) = auc_within(odds[~new], won[~new]), auc_within(odds[new], won[new])
        h.numbers["auc_drop"] = early - late
        h.accuse(early - late - SURE * np.hypot(e, s), 0.08, 0.2, f"it tells of older records (AUC {early:.2f}), not so of newer ones ({late:.2f})")
        h.defence += [f"it tells as much of newer records (AUC {late:.2f}) as of older ones"] if late > 0.6 and early - late < 2 * np.hypot(e, s) else []
    parts = [side & np.isfinite(closing) & full for side in (won, ~won)]
    if x is not None and all(p.sum() > FEW and x[p].nunique() > 1 and np.ptp(closing[p]) > 0 for p in parts):
        first, last = (np.corrcoef(rankdata(x[p]), rankdata(-closing[p]))[0, 1] for p in parts)
        h.numbers["growth"] = first - last
        h.accuse(abs(first - last) - SURE * np.sqrt(sum(1 / p.sum() for p in parts)), 0.1, 0.4,
                 f"it goes on changing after the close: its rank correlation with the time since is {first:.2f} among won and {last:.2f} among lost records")


def steepest_fall(full: np.ndarray, time: np.ndarray) -> tuple[float, float, float, float]:
    """Share filled before and after the moment of `time` at which it falls the most, between neighbouring twentieths; the fall, and its lower bound."""
    full = full[np.isfinite(time)][np.argsort(time[np.isfinite(time)], kind="stable")]
    if len(full) < 4 * (w := max(len(full) // 20, 50)):
        return 0.0, 0.0, 0.0, 0.0
    share = np.convolve(full, np.ones(w) / w, "valid")
    before, after = share[:-w], share[w:]
    i = int(np.argmax(sure := before - after - SURE * np.sqrt((before * (1 - before) + after * (1 - after) + 1 / w) / w)))
    return float(before[i]), float(after[i]), float(before[i] - after[i]), float(sure[i])


@threadpool_limits.wrap(limits=1, user_api="blas")  # small matrices: threads that wait for each other cost more than they bring
def hear_blanks(heard: dict[str, Hearing], frame: pd.DataFrame, odds: dict[str, np.ndarray], won: np.ndarray, still: list[str], blocks: dict[str, list[str]]) -> None:
    """Null pattern equals label: are more of the won filled than of the lost that look alike by the evenly filled fields that nobody accuses?"""
    blank = {c: frame[c].isna().to_numpy() for c in frame}
    alone = {c: auc_within(b, won) if 0.01 < b.mean() < 0.99 else (0.5, 0.0) for c, b in blank.items()}
    uneven = [c for c, (a, se) in alone.items() if abs(a - 0.5) >= 0.03 + se]
    even = [c for c in frame if c not in uneven and not c.endswith("_not_chosen")]  # a placeholder's trace is part of how a field is filled
    half, y = np.arange(len(won)) % 2, won - won.mean()
    for c in (c for c in uneven if c in still):
        alike = [odds[k] for k in even if not heard[k].against and k != c and k not in blocks[c]]
        X, z = np.column_stack(alike or [y * 0]), np.zeros(len(y))
        for k in (0, 1):  # foretold by least squares, learned on the other half
            V = X[half != k]
            z[half == k] = X[half == k] @ np.linalg.solve(V.T @ V + 1e-4 * len(V) * np.eye(V.shape[1]), V.T @ y[half != k])
        a, se = auc_within(blank[c], won, _parts(z, 20))
        heard[c].numbers |= {"blank_auc": 0.5 + abs(alone[c][0] - 0.5), "blank_beyond": 0.5 + abs(a - 0.5)}
        heard[c].accuse(abs(a - 0.5) - SURE * se, 0.05, 0.2, f"{1 - blank[c][won].mean():.0%} of won and {1 - blank[c][~won].mean():.0%} of lost records hold a value, "
                        f"more than the other fields explain (AUC of blank or not {0.5 + abs(a - 0.5):.2f} among records that look alike)")


@threadpool_limits.wrap(limits=1, user_api="blas")
def hear_ties(heard: dict[str, Hearing], frame: pd.DataFrame, odds: dict[str, np.ndarray], won: np.ndarray, still: list[str], blocks: dict[str, list[str]]) -> None:
    """Written from the outcome: among records of one outcome a cause, or a sign of one, still goes with some other field (F test); a copy of the outcome with noise does not."""
    names = [c for c in frame if odds[c].std() > 0]
    X = np.column_stack([odds[c] for c in names] + [frame[c].isna().to_numpy(float) for c in names])
    X -= np.where(won[:, None], X[won].mean(0), X[~won].mean(0))
    gram, n, m = X.T @ X + 1e-6 * len(X) * np.eye(2 * len(names)), len(X), len(names)
    for c in (c for c in names if c in still and heard[c].numbers["auc"] - SURE * heard[c].numbers["auc_se"] > 0.6):
        h, me = heard[c], names.index(c)
        others = [names.index(k) for k in names if not heard[k].against and k != c and k not in blocks[c]]
        j = others + [i + m for i in others]
        if len(others) < MANY or n < 10 * len(j):  # among few fields, or by few records, nothing need be seen of an honest one
            continue
        part = gram[me, j] @ np.linalg.solve(gram[np.ix_(j, j)], gram[j, me]) / gram[me, me]
        h.numbers["tied"] = p = float(f_distribution.sf(part / len(j) / max(1 - part, 1e-9) * (n - len(j) - 2), len(j), n - len(j) - 2))
        h.accuse(p, 0.001, 2, f"it tells the outcome (AUC {h.numbers['auc']:.2f}), yet among records of one outcome none of {len(others)} other fields goes with it (p {p:.2f}), as if it were written from the outcome")
        h.defence += ["it goes with other fields also among records of one outcome, as a cause would"] if p <= 0.001 else []


def blank_together(frame: pd.DataFrame) -> dict[str, list[str]]:
    """For each field those that are blank in the same records, give or take one in fifty, and in 5 % to 99 % of all."""
    some = {c: b for c in frame if 0.05 < (b := frame[c].isna().to_numpy()).mean() < 0.99}
    return {c: [k for k in some if k != c and c in some and (some[c] ^ some[k]).sum() <= 0.02 * (some[c] | some[k]).sum()] for c in frame}


def late_changes(lake, entity: str, columns: list[str], closed: pd.DataFrame, as_of) -> pd.DataFrame:
    """One row a field and outcome of the records `closed` (id, won): touched = number whose value changed after creation, late = those of them with a
    change in a version that is closed already, mass = those of the late with it at an instant that more than 20 share. Imports tell no changes."""
    start = lake.fields().query("entity == @entity and history_from.notna()").groupby("field")["history_from"].max().to_dict()
    rows = lake.sql(f"select * from ({state_sql(entity, as_of, None, ', '.join(columns))}) where origin <> 'import'").to_arrow_table()  # noqa: F841
    local, out = scratch(), []
    local.register("closed", closed.reset_index(names="nr"))
    told = local.sql(f"select nr, won, from_at, state <> 'open' as shut, {', '.join(f'hash({c}) as {c}' for c in columns)} from rows join closed using (id) order by nr, from_at").fetchnumpy()
    nr, at, instant = told["nr"], told["from_at"], np.unique(told["from_at"], return_inverse=True)[1]
    for c in columns:
        changed = np.zeros(len(nr), dtype=bool)
        changed[1:] = (nr[1:] == nr[:-1]) & (told[c][1:] != told[c][:-1]) & (at[:-1] >= np.datetime64(start.get(c, "1900-01-01")))
        late = changed & told["shut"]
        mass = late & (np.bincount(instant, late, minlength=1)[instant] > 20)
        out += [(c, won, *(len(np.unique(nr[part & (told["won"] == won)])) for part in (changed, late, mass))) for won in (True, False)]
    return pd.DataFrame(out, columns=["field", "won", "touched", "late", "mass"])


def leak_court(lake, spine: Snapshots, *, seed: int = 7) -> pd.DataFrame:
    """One row a candidate field (features, and fields kept out): field, verdict (leak, suspect, fine), why, used, reason (it was kept out for), NUMBERS.

    leak and suspect are to leave the features until somebody lets them in by name. Sorted by verdict, then by AUC.
    """
    rng, fields, reasons = np.random.default_rng(seed), schema.entity(spine.entity).fields, spine.excluded.set_index("field")["reason"]
    stored = [c for c in lake.columns(spine.entity) if (c in spine.features or c in reasons.index) and not (c in fields and fields[c].outcome)]
    left = [c for c in stored if c not in spine.features]
    records = seen_records(lake, spine.entity, spine.as_of, spine.source)
    records = records[records["won"] | records["is_open"] | records["gone_at"].isna()]
    records = records.iloc[np.sort(rng.permutation(len(records))[:MOST_RECORDS])].set_index("id")
    seen = spine.frame.iloc[rng.permutation(len(spine.frame))].drop_duplicates("id").set_index("id")
    closed = records.index[~records["is_open"].astype(bool) & records.index.isin(seen.index)]
    won, heard = records.loc[closed, "won"].to_numpy(bool), {c: Hearing() for c in [*spine.features, *left]}
    if heard and min(won.sum(), (~won).sum()) >= FEW:
        _hear(lake, spine, heard, stored, records, seen, closed, won)
    else:
        for h in heard.values():
            h.defence.append(f"nothing can be said: {won.sum():,} won and {(~won).sum():,} lost records are known, and {FEW} of each are needed")
    rows = [{"field": c, "used": c in spine.features, "reason": reasons.get(c, "") if c in left else "", **h.told()} for c, h in heard.items()]
    return pd.DataFrame(rows, columns=["field", "verdict", "why", "used", "reason", *NUMBERS]).sort_values(
        ["verdict", "auc"], key=lambda s: s.map({"leak": 0, "suspect": 1, "fine": 2}) if s.name == "verdict" else -s, ignore_index=True)


def _hear(lake, spine: Snapshots, heard: dict[str, Hearing], stored: list[str], records: pd.DataFrame, seen: pd.DataFrame, closed: pd.Index, won: np.ndarray) -> None:
    """Hear every field: those that stand still on their values as they are now, those that move as a random snapshot saw them, and on their versions."""
    at, own = f"TIMESTAMP '{spine.as_of}'", set(schema.entity(spine.entity).fields)
    now = lake.sql(f"""select {', '.join(['id', *stored])} from (select {lake.masked_columns(spine.entity, at, lake.fields())} from {spine.entity}_versions
        where valid_from <= {at} and (valid_to is null or valid_to > {at}))""").df().set_index("id").reindex(records.index)  # with those deleted: a converted lead may vanish
    changes = late_changes(lake, spine.entity, stored, pd.DataFrame({"id": closed, "won": won}), spine.as_of)
    ended, then, touched = now.loc[closed], seen.loc[closed, spine.features], changes.groupby("field")["touched"].sum()
    moving = {c for c in stored if touched[c] > 0.1 * ended[c].notna().sum()}
    still = [c for c in heard if (c in stored or spine.score_at == "creation") and c not in moving]
    frame = pd.DataFrame({c: then[c] if c in moving.intersection(then) or c not in stored else ended[c] for c in heard})
    made = records["created_at"] if records["created_at"].notna().mean() > 0.5 else records["created_order"]
    made, done = (s.astype("int64" if s.dtype.kind == "M" else "float64").astype(float).where(s.notna()) for s in (made, records["closed_at"]))
    times, dated = {"creation": made[closed].to_numpy(), "closing": done[closed].to_numpy()}, made.notna().to_numpy()
    age, is_closed = _parts(made[dated].to_numpy(), 20), (~records["is_open"].astype(bool)).to_numpy(int)[dated]
    odds = {}
    for c, h in heard.items():
        level = levels(frame[c])
        odds[c] = learned_odds(level, won)
        hear_alone(h, level, odds[c], won, c not in still)
        if c in moving and c not in own:
            hear_written(h, changes[changes["field"] == c])
        elif c not in still:
            h.defence.append("it was read as it stood when the record was scored")
        if c in still:
            if c in stored:
                hear_open(h, levels(now[c])[dated], is_closed, age)
            hear_over_time(h, frame[c], odds[c], won, times)
            latest = c.removeprefix("x_").startswith(("last_", "latest_")) and h.numbers["auc_low"] > 0.55
            h.accuse(latest, 0, 2, "by its name it is the latest state, and nothing here tells what it was when the record was scored")
    blocks = blank_together(frame)
    for hear in (hear_blanks, hear_ties):
        hear(heard, frame, odds, won, still, blocks)
    for c, guilty in [(c, [k for k in mates if heard[k].against]) for c, mates in blocks.items()]:
        heard[c].accuse(len(guilty) * (not heard[c].against and c in still), 0, np.inf, f"it is filled in the same records as {', '.join(guilty[:1])}, which is accused")
