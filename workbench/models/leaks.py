"""The leak court: which fields know of the outcome what nobody knew when a record was scored.

Every candidate field is heard on when its versions were written, on what its values tell of won against lost, and on whether open
records of the same age hold the like. A number counts only when it clears its bar by SURE standard errors, since a court looks at
some hundreds of numbers. Standard fields whose history is known (a stage, a status) may be changed by the close: only what stood
before it reaches a score.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.stats import f as f_distribution
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from workbench import schema
from workbench.features.snapshots import Snapshots, seen_records, state_sql
from workbench.models.rungs import as_numbers, kinds
from workbench.rows import scratch

SETTLED, MIN_ROWS, MIN_OUTCOMES, SURE = 20.0, 30, 30, 3.5
MOST_RECORDS = 50_000  # a larger source is judged on as many, drawn at random
NUMBERS = ("n_filled", "auc", "auc_low", "auc_high", "pure_share", "late_share", "n_late", "mass_share", "fill_gap", "open_auc", "blank_auc", "blank_beyond",
           "fill_drop", "auc_drop", "growth", "tied", "common", "due", "together")
ORDER = {"leak": 0, "suspect": 1, "fine": 2}


@dataclass
class Hearing:
    """What is said of one field: numbers by name, accusations as (2 leak or 1 suspect, clause), and what speaks for it."""

    numbers: dict = field(default_factory=dict)
    against: list[tuple[int, str]] = field(default_factory=list)
    defence: list[str] = field(default_factory=list)

    def accuse(self, value: float, bars: tuple[float, float], clause: str) -> None:
        """Note `clause` where `value` clears the bar of a suspect, or of a leak."""
        if value > bars[0]:
            self.against.append((1 + (value > bars[1]), clause))

    @property
    def verdict(self) -> str:
        return ("fine", "suspect", "leak")[max((weight for weight, _ in self.against), default=0)]


def auc_within(score: np.ndarray, event: np.ndarray, strata: np.ndarray | None = None) -> tuple[float, float]:
    """Chance that a record with the event scores above one of the same stratum without, ties half, and its standard error (Hanley and McNeil).

    >>> auc_within(np.array([1, 2, 2, 3]), np.array([0, 0, 1, 1]))[0]
    0.875
    """
    _, level = np.unique(score, return_inverse=True)
    width, place = level.max(initial=0) + 1, level if strata is None else strata * (level.max(initial=0) + 1) + level
    size = width * (1 if strata is None else int(strata.max(initial=0)) + 1)
    yes, all_ = (np.bincount(place, w, size).reshape(-1, width) for w in (event.astype(float), np.ones(len(event))))
    no = all_ - yes
    n1, n0 = yes.sum(1), no.sum(1)
    pairs = n1 * n0
    if not pairs.any():
        return 0.5, np.inf
    a = (yes * (np.cumsum(no, 1) - no / 2)).sum(1) / np.maximum(pairs, 1)
    spread = (a * (1 - a) + (n1 - 1) * (a / (2 - a) - a * a) + (n0 - 1) * (2 * a * a / (1 + a) - a * a)) * pairs
    return float((a * pairs).sum() / pairs.sum()), float(np.sqrt(np.maximum(spread[pairs > 0], 1e-9).sum()) / pairs.sum())


def levels(values: pd.Series) -> np.ndarray:
    """A whole number for each value: 0 = blank, then one for each text, day or number; more than 20 numbers are taken in twentieths."""
    frame = values.to_frame("v")
    x = as_numbers(frame, ["v"])["v"] if kinds(frame)[0] and values.notna().any() else values
    if x is not values and x.nunique() > 20:
        return np.where(x.isna(), 0, 1 + np.searchsorted(np.nanquantile(x, np.linspace(0.05, 0.95, 19)), x))
    return pd.factorize(x)[0] + 1


def learned_odds(level: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Log-odds of the event at each row's level beyond the base's, as the other half of the rows shows them (and five rows of the base)."""
    half, k, out = np.arange(len(level)) % 2, level.max(initial=0) + 1, np.zeros(len(level))
    for side in (0, 1):
        part = half != side
        base = (event[part].sum() + 0.5) / (part.sum() + 1)
        rate = (np.bincount(level[part], event[part], k) + 5 * base) / (np.bincount(level[part], minlength=k) + 5)
        out[~part] = (np.log(rate / (1 - rate)) - np.log(base / (1 - base)))[level[~part]]
    return out


def _tenths(x: np.ndarray, k: int = 10) -> np.ndarray:
    return (rankdata(x, method="ordinal") - 1).astype(int) * k // max(len(x), 1)


def _alone(h: Hearing, level: np.ndarray, values: pd.Series, won: np.ndarray, as_of: bool) -> None:
    """Too good alone: AUC of the field's cross-fitted rates; share of records in values that had one outcome only."""
    odds, (auc, se) = won.mean() / max(1 - won.mean(), 1e-9), auc_within(learned_odds(level, won), won)
    n, yes = np.bincount(level), np.bincount(level, won)
    middle, half = (yes + SURE**2 / 2) / (n + SURE**2), SURE / (n + SURE**2) * np.sqrt(yes * (n - yes) / np.maximum(n, 1) + SURE**2 / 4)  # Wilson
    low, high = np.clip(middle - half, 0, 1 - 1e-9), np.clip(middle + half, 1e-9, 1 - 1e-9)
    share = float(n[(low / (1 - low) >= SETTLED * odds) | (high / (1 - high) <= odds / SETTLED)].sum() / len(level))
    h.numbers |= {"n_filled": int(values.notna().sum()), "auc": max(auc, 0.5), "auc_se": se, "auc_low": auc - 1.96 * se, "auc_high": auc + 1.96 * se, "pure_share": share}
    h.accuse(auc - SURE * se, (0.95, 0.98) if as_of else (0.85, 0.95), f"alone it tells won from lost with an AUC of {auc:.2f} ({auc - 1.96 * se:.2f}–{auc + 1.96 * se:.2f})")
    h.accuse(share, (0.1, 0.2), f"{share:.0%} of the records hold values that settle the outcome, {SETTLED:.0f} times its usual odds or more")


def _written(h: Hearing, told: pd.DataFrame) -> None:
    """Written after the outcome: of the closed records whose value changed after creation, the share in which it changed with the close or later."""
    for row in told.itertuples():
        if row.touched >= 20:
            p, n = row.late / row.touched, row.touched
            low = p - SURE * np.sqrt(max(p * (1 - p), 1 / n) / n)
            if p >= h.numbers.get("late_share", 0):
                h.numbers |= {"late_share": p, "n_late": int(row.late), "mass_share": row.mass / max(row.late, 1)}
            batch = f", {row.mass / max(row.late, 1):.0%} of them together with 20 others or more at one instant" if row.mass > row.late / 5 else ""
            h.accuse(low, (0.2, 0.5), f"in {p:.0%} of the {n:,} {'won' if row.won else 'lost'} records whose value changed, it changed with the close or later{batch}")
    if h.numbers.get("late_share", 1) <= 0.2:
        h.defence.append(f"its versions tell when it was written: {1 - h.numbers['late_share']:.0%} of its changes came before the close")


def _open_records(h: Hearing, values: pd.Series, level: np.ndarray, closed: np.ndarray, age: np.ndarray) -> None:
    """Closed against open records created at the same time: are they filled more often, do they hold other values?"""
    known = closed >= 0
    if min((closed == 1).sum(), (closed == 0).sum()) < MIN_ROWS:
        return
    level, event, strata, full = level[known], closed[known], age[known], values.notna().to_numpy()[known]
    a, se = auc_within(full.astype(float), event, strata)
    h.numbers["fill_gap"] = 2 * a - 1  # of a yes and no, 2 AUC - 1 is the difference of the two shares
    shares = f"{full[event == 1].mean():.0%} of closed and {full[event == 0].mean():.0%} of open records"
    h.accuse(2 * (a - SURE * se) - 1, (0.15, 0.4), f"it is filled more often once a record is closed: in {shares} (difference at the same age {2 * a - 1:+.0%})")
    a, se = auc_within(learned_odds(level, event)[full], event[full], strata[full])
    h.numbers["open_auc"] = a
    if h.numbers["auc_low"] > 0.53:
        h.accuse(a - SURE * se, (0.6, 0.75), f"its values tell closed records from open ones of the same age (AUC {a:.2f})")


def _over_time(h: Hearing, values: pd.Series, level: np.ndarray, won: np.ndarray, order: np.ndarray, closing: np.ndarray) -> None:
    """Collapses out of time: filled up to a moment and not after it, or telling for older records only; and grows with the time since the close."""
    full, s = values.notna().to_numpy(), learned_odds(level, won)
    a, se = auc_within(s[full], won[full]) if full.sum() > 2 * MIN_ROWS else (0.5, np.inf)
    for by, name in ((order, "creation"), (closing, "closing")):
        drop, low, before, after = _stop(full, by)
        h.numbers["fill_drop"] = max(drop, h.numbers.get("fill_drop", 0.0))
        if a - SURE * se > 0.53:
            h.accuse(low, (0.3, 2.0), f"its filling stops at a moment (from {before:.0%} to {after:.0%} in the order of {name}), and it tells of the outcome (AUC {a:.2f} where filled)")
    if np.isfinite(order).all():
        half = _tenths(order, 2) == 1
        (early, e), (late, l_) = auc_within(s[~half], won[~half]), auc_within(s[half], won[half])
        h.numbers["auc_drop"] = early - late
        h.accuse(early - late - SURE * np.hypot(e, l_), (0.08, 0.2), f"it tells of older records (AUC {early:.2f}), not so of newer ones ({late:.2f})")
    x = as_numbers(values.to_frame("v"), ["v"])["v"].to_numpy() if kinds(values.to_frame("v"))[0] and values.notna().any() else None
    if x is not None and np.isfinite(closing).mean() > 0.5:
        rho, error = [], []
        for side in (won, ~won):
            part = side & np.isfinite(closing) & np.isfinite(x)
            r = np.corrcoef(rankdata(x[part]), rankdata(-closing[part]))[0, 1] if part.sum() > MIN_ROWS and len(np.unique(x[part])) > 1 else 0.0
            rho, error = rho + [r], error + [1 / np.sqrt(max(part.sum(), 2) - 1)]
        h.numbers["growth"] = rho[0] - rho[1]
        h.accuse(abs(rho[0] - rho[1]) - SURE * np.hypot(*error), (0.1, 0.4), f"it goes on changing after the close: its rank correlation with the time since is {rho[0]:.2f} among won and {rho[1]:.2f} among lost")


def _stop(full: np.ndarray, order: np.ndarray) -> tuple[float, float, float, float]:
    """The steepest fall of the share filled along `order`, between neighbouring twentieths: the fall, its lower bound, the share before, after."""
    full = full[np.isfinite(order)][np.argsort(order[np.isfinite(order)], kind="stable")]
    w = max(len(full) // 20, 50)
    if len(full) < 4 * w:
        return 0.0, 0.0, 0.0, 0.0
    share = np.convolve(full, np.ones(w) / w, "valid")
    before, after = share[:-w], share[w:]
    low = before - after - SURE * np.sqrt((before * (1 - before) + after * (1 - after) + 1 / w) / w)
    i = int(np.argmax(low))
    return float(before[i] - after[i]), float(low[i]), float(before[i]), float(after[i])


def _design(values: pd.Series, level: np.ndarray, won: np.ndarray) -> np.ndarray:
    """Columns that stand for a field beside the others: the log-odds of its learned rate, blank or not, its rank if a number."""
    blank = values.isna().to_numpy(float)
    columns = [learned_odds(level, won), *([blank] if 0 < blank.mean() < 1 else [])]
    if kinds(values.to_frame("v"))[0] and 0 <= blank.mean() < 1:
        x = as_numbers(values.to_frame("v"), ["v"])["v"]
        columns.append(x.rank(pct=True).fillna(0.5).to_numpy())
    return np.column_stack(columns)


@threadpool_limits.wrap(limits=1, user_api="blas")  # small matrices: threads that wait for each other cost more than they bring
def _beside_others(heard: dict[str, Hearing], frame: pd.DataFrame, level: dict[str, np.ndarray], still: list[str], won: np.ndarray, blocks: dict[str, list[str]]) -> None:
    """What a field knows beyond the others: is it filled for those who will win, and does nothing but the outcome tie it to other fields?

    The others = fields not accused so far, nor blank in the same records; where filling is judged, only those that are filled evenly.
    """
    parts = {c: _design(frame[c], level[c], won) for c in frame}
    ends = np.cumsum([p.shape[1] for p in parts.values()])
    inside = {c: list(range(end - p.shape[1], end)) for (c, p), end in zip(parts.items(), ends, strict=True)}
    X, n, half = np.column_stack(list(parts.values())), len(frame), np.arange(len(frame)) % 2
    V, y = X - X.mean(0), won - won.mean()
    W = X - np.where(won[:, None], X[won].mean(0), X[~won].mean(0))  # around the mean of the records with the same outcome
    within, gram, to_won = W.T @ W, [V[half != k].T @ V[half != k] for k in (0, 1)], [V[half != k].T @ y[half != k] for k in (0, 1)]

    def foretold(names: list[str]) -> np.ndarray:
        """The outcome as these fields foretell it by least squares, learned on the other half."""
        j, z = [i for k in names for i in inside[k]], np.zeros(n)
        for k in (0, 1) if j else ():
            z[half == k] = V[half == k][:, j] @ np.linalg.solve(gram[k][np.ix_(j, j)] + 1e-4 * n * np.eye(len(j)), to_won[k][j])
        return z

    blank = {c: frame[c].isna().to_numpy(float) for c in frame}
    alone = {c: auc_within(b, won) if 0.01 < b.mean() < 0.99 else (0.5, 0.0) for c, b in blank.items()}
    uneven = {c for c, (a, se) in alone.items() if abs(a - 0.5) >= 0.03 + se}
    even = [c for c in frame if c not in uneven and not c.endswith("_not_chosen")]  # a placeholder's trace is part of how a field is filled
    for c in uneven.intersection(still):
        z = foretold([k for k in even if heard[k].verdict == "fine" and k not in blocks[c]])
        a, se = auc_within(blank[c], won, _tenths(z, 20))
        heard[c].numbers |= {"blank_auc": 0.5 + abs(alone[c][0] - 0.5), "blank_beyond": 0.5 + abs(a - 0.5)}
        heard[c].accuse(abs(a - 0.5) - SURE * se, (0.05, 0.2), f"whether it is filled tells the outcome beyond what is known otherwise: {1 - blank[c][won].mean():.0%} of won and "
                        f"{1 - blank[c][~won].mean():.0%} of lost records hold a value (AUC {0.5 + abs(a - 0.5):.2f} among records that look alike)")
    for c in sorted(still, key=lambda c: -heard[c].numbers["auc"]):
        h, me = heard[c], inside[c][0]
        others = [k for k in frame if heard[k].verdict == "fine" and k != c and k not in blocks[c]]
        j = [i for k in others for i in inside[k]]
        free, total, low = n - len(j) - 2, within[me, me], h.numbers["auc"] - SURE * h.numbers["auc_se"]
        if low < 0.6 or not j or free < 1 or total < 1e-9:
            continue
        r2 = float(within[me, j] @ np.linalg.solve(within[np.ix_(j, j)] + 1e-6 * n * np.eye(len(j)), within[j, me]) / total)
        tied, z = float(f_distribution.sf(r2 / len(j) / max(1 - r2, 1e-9) * free, len(j), free)), foretold(others)
        inner = z - np.where(won, z[won].mean(), z[~won].mean())
        common = float(W[:, me] @ inner / np.sqrt(total * max(inner @ inner, 1e-9) / n))  # standard errors; below 0 for a cause of its own
        due = float(V[:, me] @ y * (z @ y) / (y @ y) / np.sqrt(max((V[:, me] ** 2).sum() * ((z - z.mean()) ** 2).sum(), 1e-9) / n))
        together = auc_within(z, won)[0]
        h.numbers |= {"tied": tied, "common": common, "due": due, "together": together}
        if tied > 0.001 and abs(common) < 3 and (due > 4 and common > -due / 2 or h.numbers["auc"] - 2 * h.numbers["auc_se"] > max(together, 0.5)):
            h.accuse(1.0, (0.5, 2.0), f"it tells the outcome (AUC {h.numbers['auc']:.2f}; all others together {together:.2f}), yet nothing but the outcome ties it to the other fields, as if it were written from it")
        elif common > 4:
            h.defence.append("it goes with the other fields also among records of one outcome, as a cause would")


def _blocks(frame: pd.DataFrame) -> dict[str, list[str]]:
    """For each field those that are blank in the same records, give or take one in fifty (and in 5 % to 99 % of all)."""
    blank = {c: frame[c].isna().to_numpy() for c in frame}
    some = {c: b for c, b in blank.items() if 0.05 < b.mean() < 0.99}
    return {c: [k for k in some if k != c and c in some and (some[c] ^ some[k]).sum() <= 0.02 * (some[c] | some[k]).sum()] for c in frame}


def _changes(lake, entity: str, columns: list[str], ids: pd.DataFrame, as_of) -> pd.DataFrame:
    """One row a field and outcome of the closed records `ids` (id, won): touched = their number whose value changed after creation, late = those of
    them with a change in a version that is closed already, mass = those of the late ones with it at an instant that 20 others share."""
    start = lake.fields().query("entity == @entity and history_from.notna()").groupby("field")["history_from"].max().to_dict()
    rows = lake.sql(f"select * from ({state_sql(entity, as_of, None, ', '.join(columns))}) where origin <> 'import'").to_arrow_table()  # noqa: F841
    local = scratch()
    local.register("ids", ids.reset_index(names="nr"))
    told = local.sql(f"select nr, won, from_at, state <> 'open' as shut, {', '.join(f'hash({c}) as {c}' for c in columns)} from rows join ids using (id) order by nr, from_at").fetchnumpy()
    nr, at, shut, out = told["nr"], told["from_at"], told["shut"], []
    _, instant = np.unique(at, return_inverse=True)
    follows = np.append(False, nr[1:] == nr[:-1])[: len(nr)]
    for c in columns:
        changed = follows & np.append(False, told[c][1:] != told[c][:-1])[: len(nr)]
        if c in start:
            changed[1:] &= at[:-1] >= np.datetime64(start[c])
        late = changed & shut
        many = late & (np.bincount(instant, late, minlength=1)[instant] > 20)
        for won in (True, False):
            out.append((c, won, *(len(np.unique(nr[part & (told["won"] == won)])) for part in (changed, late, many))))
    return pd.DataFrame(out, columns=["field", "won", "touched", "late", "mass"])


def leak_court(lake, spine: Snapshots, *, seed: int = 7) -> pd.DataFrame:
    """One row a candidate field (features, and fields kept out): field, verdict (leak, suspect, fine), why, used, reason (it was kept out for), NUMBERS.

    leak and suspect are to leave the features until somebody lets them in by name. Sorted by verdict, then by AUC.
    """
    entity, rng = spine.entity, np.random.default_rng(seed)
    reasons = spine.excluded.set_index("field")["reason"]
    fields = schema.entity(entity).fields
    stored = [c for c in lake.columns(entity) if c not in ("id", "created_at", "created_order") and not (c in fields and fields[c].outcome)]
    left = [c for c in reasons.index if c in stored and c not in spine.features]
    records = seen_records(lake, entity, spine.as_of, spine.source)
    records = records[records["won"] | records["is_open"] | records["gone_at"].isna()]
    records = records.iloc[np.sort(rng.permutation(len(records))[:MOST_RECORDS])].set_index("id")
    seen = spine.frame.iloc[rng.permutation(len(spine.frame))].drop_duplicates("group").set_index("id")
    closed = records.index[~records["is_open"].astype(bool) & records.index.isin(seen.index)]
    won = records.loc[closed, "won"].to_numpy(bool)
    names = [*spine.features, *left]
    heard = {c: Hearing() for c in names}
    if min(won.sum(), (~won).sum()) >= MIN_OUTCOMES:
        _hear(lake, spine, heard, [c for c in names if c in stored], records, seen, closed, won)
    else:
        for h in heard.values():
            h.defence.append(f"nothing can be said: only {won.sum():,} won and {(~won).sum():,} lost records are known")
    rows = [{"field": c, "verdict": h.verdict, "why": _why(h), "used": c in spine.features, "reason": reasons.get(c, "") if c in left else "", **h.numbers} for c, h in heard.items()]
    table = pd.DataFrame(rows, columns=["field", "verdict", "why", "used", "reason", *NUMBERS])
    return table.sort_values(["verdict", "auc"], key=lambda s: s.map(ORDER) if s.name == "verdict" else -s, ignore_index=True)


def _hear(lake, spine: Snapshots, heard: dict[str, Hearing], stored: list[str], records: pd.DataFrame, seen: pd.DataFrame, closed: pd.Index, won: np.ndarray) -> None:
    at = f"TIMESTAMP '{spine.as_of}'"  # the version that stands, of records deleted since too: a converted lead may vanish
    now = lake.sql(f"select id, {', '.join(stored)} from (select {lake.masked_columns(spine.entity, at, lake.fields())} from {spine.entity}_versions where valid_from <= {at} and (valid_to is null or valid_to > {at}))").df()
    now = now.set_index("id").reindex(records.index)
    ids = pd.DataFrame({"id": closed, "won": won})
    changes = _changes(lake, spine.entity, stored, ids, spine.as_of)
    touched = changes.groupby("field")["touched"].sum()
    ended, then = now.loc[closed], seen.loc[closed, spine.features]
    filled = ended.notna().sum()
    moving = {c for c in stored if touched[c] > 0.1 * filled[c]}
    own = set(schema.entity(spine.entity).fields)
    still = [c for c in heard if (c in stored or spine.score_at == "creation") and c not in moving]
    frame = pd.DataFrame({c: then[c] if c in moving.intersection(then) or c not in stored else ended[c] for c in heard})
    order = records["created_at"].astype("int64").where(records["created_at"].notna()) if records["created_at"].notna().mean() > 0.5 else records["created_order"].astype("float64")
    order, place = order.astype("float64"), records.index.get_indexer(closed)
    closing = records["closed_at"].astype("int64").where(records["closed_at"].notna()).astype("float64").to_numpy()[place]
    is_closed = np.where(order.notna(), np.where(records["is_open"].astype(bool), 0, 1), -1)
    age = _tenths(order.fillna(0).to_numpy(), 20)
    level = {c: levels(frame[c]) for c in frame}
    for c, h in heard.items():
        _alone(h, level[c], frame[c], won, as_of=c not in still)
        if c in moving and c not in own:
            _written(h, changes[changes["field"] == c])
        if c in still:
            if c in stored:
                _open_records(h, now[c], levels(now[c]), is_closed, age)
            _over_time(h, frame[c], level[c], won, order.to_numpy()[place], closing)
            if c.removeprefix("x_").startswith(("last_", "latest_")) and h.numbers["auc_low"] > 0.55:
                h.against.append((1, "by its name it is the latest state, and nothing here tells what it was when the record was scored"))
        elif c not in stored or c in own:
            h.defence.append("it was read as it stood when the record was scored")
    blocks = _blocks(frame)
    _beside_others(heard, frame, level, still, won, blocks)
    for c, mates in blocks.items():
        guilty = [k for k in mates if heard[k].verdict != "fine" and k not in heard[c].numbers]
        if heard[c].verdict == "fine" and guilty and c in still:
            heard[c].against.append((1, f"it is filled together with {guilty[0]}, in the same records, and that is accused"))


def _why(h: Hearing) -> str:
    """The court's sentence: what speaks against the field, what for it."""
    strongest = [clause for _, clause in sorted(h.against, key=lambda a: -a[0])]
    if not h.numbers:
        return "; ".join(h.defence).capitalize() + "."
    for_it = h.defence or [f"alone it reaches an AUC of {h.numbers['auc']:.2f} only"]
    text = "; ".join(strongest) + (f". For it: {'; '.join(for_it)}" if h.defence and strongest else "") if strongest else "; ".join(for_it)
    return text[0].upper() + text[1:] + "."


def field_evidence(values: pd.Series, event: np.ndarray) -> dict:
    """What the values of one field alone tell of the event, in one row a record: n_filled, auc, auc_low, auc_high, pure_share, verdict."""
    h, event = Hearing(), np.asarray(event, dtype=bool)
    if not len(event):
        return {"n_filled": 0, "auc": 0.5, "auc_low": 0.5, "auc_high": 0.5, "pure_share": 0.0, "verdict": "fine"}
    _alone(h, levels(values), values, event, as_of=False)
    return {**h.numbers, "verdict": h.verdict}


def field_verdicts(frame: pd.DataFrame, fields: list[str], event: np.ndarray) -> pd.DataFrame:
    """The values-only part of the court, for a frame at hand: one row a field with `field_evidence`, the strongest first."""
    rows = [{"field": name, **field_evidence(frame[name], event)} for name in fields]
    return pd.DataFrame(rows, columns=["field", "n_filled", "auc", "pure_share", "verdict"]).sort_values("auc", ascending=False, ignore_index=True)
