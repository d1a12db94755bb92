"""Worlds of the demo organisation: their parameters, what a day does with a lead's hidden interest, and the true chances that follow.

A lead's chance to convert on a day is ease x (REST + interest)^signal x the day's pace. A touch (the lead reads, asks, answers) adds up to 1 to
interest, which halves in half_life_days; a lead is given up at a rate that falls with interest. All of this is hidden; the records only hint at it.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, fields
from datetime import date
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import rankdata

from workbench.errors import WorkbenchError

DAY, NEVER = 86400.0, 2.0**40
START, LAST = 1656633600.0, 1782863999.0  # 2022-07-01 and 2026-06-30 23:59:59
DAYS = 1461
SEASON = np.array([1.05, 1, 1.1, 1, 1, 1.05, .78, .72, 1.12, 1.1, 1.08, .66])  # January .. December
HORIZONS = (30, 90, 180)
INSTANTS = LAST - 91 * DAY * np.arange(9)  # when truth is told: the end and eight quarters before it, all at a day's last second
FIT, INTENT, CURIOUS, COPY = .65, .6, 1.3, 2.5  # what they do to the log of the chance, in a world of signal 1
REST, TOUCHED, GIVEN_UP, DELETED = .2, .033, .017, .00008  # interest without a touch; touches, give-ups, deletions a day
# [word, weight, what it owes to fit, to intent]
SOURCES, TITLES, INDUSTRIES = tomllib.loads(resources.files("workbench.connect").joinpath("demo.toml").read_text(encoding="utf-8")).values()
SOURCE_NAMES = [row[0] for row in SOURCES]
STYLES = ("keep", "salesforce", "pipedrive")
CAUSES = SimpleNamespace(won=1, lost=2, gone=3)


@dataclass(frozen=True)
class World:
    """What a world is like; a TOML file names those of its parameters that differ, below the heading of their section (SECTIONS).

    [outcome] signal: how strongly fit, intent and interest act on outcomes (0 = nothing predicts, 1 = as usual); overdispersion: sd of a frailty in
    the log of a lead's chance that no record shows; base_rate: share of leads that convert within the history, about; half_life_days: of interest;
    skill: sd of the sellers' skill; reply_hours: median delay in answering a touch, which adds 1/2 + exp(-hours/24)/2 to interest.
    [record] noise: of what is recorded (1 = as usual); missing: share of descriptive values that nobody typed; duplicates: share of leads entered
    twice; leaks: kinds of fields to plant that know the outcome; clean_fields: number of harmless ones.
    [time] season: strength of the year's course; drift: by how much intent outgrows fit, and the mix of sources turns, from the middle of the history
    to its end (and the other way before); breaks: tables of `on` (a date), `rate` (what the chances are multiplied with from then on) and, for one
    source of leads only, `source`; slip: how readily close dates of deals are put off (1 = as usual).
    [history] tracked_from_month: changes are known from this month on only (0 = all); sync_days: only differences between syncs so many days apart
    are known (0 = all changes); conversion: keep, salesforce (activities of a converted lead move to its contact and deal) or pipedrive (they move to
    the deal, and the lead vanishes from the list).
    """

    name: str = "default"
    signal: float = 1
    overdispersion: float = .4
    base_rate: float = .11
    half_life_days: float = 20
    skill: float = .4
    reply_hours: float = 10
    noise: float = 1
    missing: float = .02
    duplicates: float = .03
    leaks: tuple = ()
    clean_fields: int = 0
    season: float = 1
    drift: float = 0
    breaks: tuple = ()
    slip: float = 1
    tracked_from_month: int = 0
    sync_days: int = 0
    conversion: str = "keep"


# Section -> parameter -> its least and largest value, or what it may be
SECTIONS: dict[str, dict] = {
    "outcome": {"signal": (0, 3), "overdispersion": (0, 3), "base_rate": (.002, .6), "half_life_days": (1, 365), "skill": (0, 2), "reply_hours": (.1, 500)},
    "record": {"noise": (.2, 5), "missing": (0, .9), "duplicates": (0, .5), "leaks": list, "clean_fields": (0, 200)},
    "time": {"season": (0, 3), "drift": (0, 2), "breaks": list, "slip": (0, 3)},
    "history": {"tracked_from_month": (0, 45), "sync_days": (0, 90), "conversion": STYLES}}


def read_world(path: str | Path) -> World:
    """The world that a TOML file describes; it is called after the file. Refuses unknown sections and parameters, and impossible values."""
    try:
        told = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkbenchError(f"There is no world at {path}.", fix="Name a TOML file; data/worlds/ has some.") from None
    except ValueError as error:
        raise WorkbenchError(f"{path} is not valid TOML: {error}.", fix="Mend the line that it names.") from None
    known = "; ".join(f"[{s}] {', '.join(names)}" for s, names in SECTIONS.items())
    values: dict = {}
    for section, given in told.items():
        if section not in SECTIONS or not isinstance(given, dict) or set(given) - set(SECTIONS[section]):
            wrong = section if section not in SECTIONS else ", ".join(sorted(set(given) - set(SECTIONS[section]))) if isinstance(given, dict) else f"{section} (it is a section)"
            raise WorkbenchError(f"{path}: a world has no {wrong}.", fix=f"Known are {known}.")
        values |= {name: _checked(path, name, value, SECTIONS[section][name]) for name, value in given.items()}
    return World(name=Path(path).stem, **values)


def _checked(path: str | Path, name: str, value, allowed):
    """`value`, where it may be; lists as tuples."""
    whole = next(f.type for f in fields(World) if f.name == name) == "int"
    if name == "breaks" and isinstance(value, list):
        good = all(isinstance(b, dict) and set(b) <= {"on", "rate", "source"} and type(b.get("on")) is date and isinstance(b.get("rate"), (int, float)) and b["rate"] > 0
                   and b.get("source", SOURCE_NAMES[0]) in SOURCE_NAMES for b in value)
    elif allowed is list:
        good = isinstance(value, list) and all(isinstance(v, str) for v in value)
    elif allowed is STYLES:
        good = value in STYLES
    else:
        good = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool) and allowed[0] <= value <= allowed[1]
    if not good:
        fix = {"breaks": "Write [[time.breaks]] with on = 2025-03-01, rate = 0.6 and perhaps source = one of " + ", ".join(SOURCE_NAMES) + ".", "leaks": "Write a list of kinds.", "conversion": f"One of {', '.join(STYLES)}."}
        raise WorkbenchError(f"{path}: {name} cannot be {value!r}.", fix=fix.get(name) or f"{'A whole number' if whole else 'A number'} from {allowed[0]} to {allowed[1]}.")
    return tuple(value) if isinstance(value, list) else value


def season_of(day: np.ndarray, strength: float) -> np.ndarray:
    """What the season multiplies at `day` (days since START)."""
    return SEASON[(np.datetime64("2022-07-01") + day).astype("datetime64[M]").astype(int) % 12] ** strength


class Life:
    """What a day does with leads: arrays by lead of their ease, rate of touches, answers' speed; `level` is the log of the world's general chance."""

    def __init__(self, world: World, leads: SimpleNamespace, skill: np.ndarray, effort: np.ndarray, level: float):
        day = np.arange(3 * DAYS)
        self.world, s, self.start = world, world.signal, leads.first
        self.pace = season_of(day, world.season) * np.where((day + 4) % 7 >= 5, 0, 1.4)  # 2022-07-01 was a Friday; nothing is decided at weekends
        self.turn = world.drift * np.clip(day / DAYS * 2 - 1, -1, 1)
        self.rate = TOUCHED * np.exp(.3 * leads.intent + .5 * leads.curious)
        self.hours = world.reply_hours / effort
        self.ease = np.exp(level + leads.frailty + s * (FIT * leads.fit + INTENT * leads.intent - CURIOUS * leads.curious - COPY * leads.copy + skill))
        self.tilt, self.gone = s * (INTENT * leads.intent - FIT * leads.fit), DELETED + leads.merging / 30
        self.decay = .5 ** (1 / world.half_life_days)
        self.breaks = [((b["on"] - date(2022, 7, 1)).days, b["rate"], "source" not in b or leads.source == SOURCE_NAMES.index(b["source"])) for b in world.breaks]

    def touched(self, rng: np.random.Generator, row: np.ndarray, interest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Interest after a day more; where a touch came, and the hours until we answered it."""
        came = np.flatnonzero(rng.random(len(row)) < self.rate[row])
        hours = self.hours[row[came]] * np.exp(rng.normal(0, .9, len(came)))
        interest = interest * self.decay
        interest[came] += .5 + .5 * np.exp(-hours / 24)
        return interest, came, hours

    def chances(self, row: np.ndarray, day: np.ndarray, interest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hazards of the day: to convert, and to be given up or deleted."""
        won, pace = self.ease[row] * (REST + interest) ** self.world.signal * self.pace[day], self.pace[day]
        if self.world.drift:
            won = won * np.exp(self.tilt[row] * self.turn[day])
        for on, rate, mine in self.breaks:
            won = np.where((day >= on) & (mine if mine is True else mine[row]), won * rate, won)
        return won, GIVEN_UP * (pace > 0) * 1.4 * (1 + interest) ** -self.world.signal + self.gone[row]

    def lived(self, rng: np.random.Generator, born: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Each lead's last day and what ended it (CAUSES; 0 = nothing yet), its touches (row, day, hours), and states (row, day, interest) at INSTANTS."""
        told, row, interest = np.isin(np.arange(DAYS), (INSTANTS - START) // DAY), np.arange(len(born)), self.start.copy()
        last, cause, day = np.full(len(born), DAYS), np.zeros(len(born), dtype=int), born
        touches, states = [np.empty((3, 0))], [np.stack([row, day, interest])[:, told[day]]]
        while len(row):
            row, interest, day = (v[day < DAYS - 1] for v in (row, interest, day))
            day = day + 1
            interest, came, hours = self.touched(rng, row, interest)
            touches.append(np.stack([row[came], day[came], hours]))
            won, lost = self.chances(row, day, interest)
            ends = rng.standard_exponential(len(row)) < won + lost
            why = rng.random(int(ends.sum())) * (won + lost)[ends]
            cause[row[ends]] = np.where(why < won[ends], CAUSES.won, np.where(why < (won + lost - self.gone[row])[ends], CAUSES.lost, CAUSES.gone))
            last[row[ends]] = day[ends]
            row, interest, day = row[~ends], interest[~ends], day[~ends]
            states.append(np.stack([row, day, interest])[:, told[day]])
        return last, cause, np.concatenate(touches, axis=1), np.concatenate(states, axis=1)

    def foretold(self, rng: np.random.Generator, row: np.ndarray, day: np.ndarray, interest: np.ndarray, draws: int) -> np.ndarray:
        """Chance of each state to convert within 30, 90, 180 days and ever: the mean over `draws` futures of touches, each weighed by its hazards."""
        out, who = np.zeros((len(row), len(HORIZONS) + 1)), np.repeat(np.arange(len(row)), draws)
        row, day, interest, left = np.repeat(row, draws), np.repeat(day, draws), np.repeat(interest, draws), np.full(len(who), 1 / draws)
        sure = np.zeros(len(out))
        for ahead in range(1, DAYS):
            day = np.minimum(day + 1, 3 * DAYS - 1)
            interest, _, _ = self.touched(rng, row, interest)
            won, lost = self.chances(row, day, interest)
            ends = -np.expm1(-(won + lost)) * left
            sure += np.bincount(who, ends * won / np.maximum(won + lost, 1e-12), len(out))
            left = left - ends
            if ahead in HORIZONS:
                out[:, HORIZONS.index(ahead)] = sure
            if ahead % 10 == 0:
                kept = left > .002 / draws
                row, day, interest, left, who = (v[kept] for v in (row, day, interest, left, who))
                if not len(row) and ahead > HORIZONS[-1]:
                    break
        out[:, -1] = sure
        return out

    def level(self, rng: np.random.Generator, born: np.ndarray) -> float:
        """The level at which base_rate of these leads (made at level 0) convert within the history."""
        row, day, interest, left = np.arange(len(born)), born, self.start, np.ones(len(born))
        hazards, stay = [], []
        while len(row):
            row, day, interest = (v[day < DAYS - 1] for v in (row, day, interest))
            day = day + 1
            interest, _, _ = self.touched(rng, row, interest)
            won, lost = self.chances(row, day, interest)
            hazards.append(np.bincount(row, won, len(born)))
            stay.append(left.copy())
            left[row] *= np.exp(-lost)
            kept = left[row] > .003
            row, day, interest = row[kept], day[kept], interest[kept]
        now, there = np.array(hazards), np.array(stay)
        before = np.cumsum(now, axis=0) - now
        share = lambda level: (there * np.exp(-np.exp(level) * before) * -np.expm1(-np.exp(level) * now)).sum() / len(born)  # noqa: E731
        return brentq(lambda level: share(level) - self.world.base_rate, -15, 5, xtol=.002)


def truth_of(life: Life, rng: np.random.Generator, leads: SimpleNamespace, base: int, draws: int) -> pd.DataFrame:
    """One row a lead and instant at which its record stood open: id, as_of, p_30, p_90, p_180, p_ever, and, for the oracle alone, came (in 90 days)."""
    at, n = np.sort(INSTANTS), leads.n
    row, k = np.nonzero((leads.born[:, None] <= at) & (leads.until[:, None] > at))
    p, (who, day, interest) = np.zeros((n, len(at), 4)), leads.states  # a lead that was given up, though its record says so later, has no chance
    who, day = who.astype(int), day.astype(int)
    p[who, np.searchsorted((at - START) // DAY, day)] = life.foretold(rng, who, day, interest, draws)
    names = [f"p_{h}" for h in (*HORIZONS, "ever")]
    return pd.DataFrame({"id": [f"demo:l{base + i + 1}" for i in row], "as_of": pd.to_datetime(at[k], unit="s")} | dict(zip(names, p[row, k].T, strict=True))
                        | {"came": leads.won[row] & (leads.close[row] <= at[k] + 90 * DAY)})


def write_truth(folder: Path, world: World, truth: pd.DataFrame, **more) -> dict:
    """Write lead.parquet and world.json (parameters, `more`, oracle) into `folder`; the oracle's numbers at 90 days: n, n_events, base_rate, log_loss, auc."""
    seen = truth[truth["as_of"] <= pd.Timestamp(LAST - 90 * DAY, unit="s")]
    y, p = seen["came"].to_numpy(), np.clip(seen["p_90"].to_numpy(), 1e-6, 1 - 1e-6)
    auc = (rankdata(p)[y].sum() - y.sum() * (y.sum() + 1) / 2) / max(y.sum() * (~y).sum(), 1)
    oracle = {"horizon_days": 90, "n": len(y), "n_events": int(y.sum()), "base_rate": round(float(y.mean()), 5), "log_loss": round(float(-np.log(np.where(y, p, 1 - p)).mean()), 5), "auc": round(float(auc), 5)}
    folder.mkdir(parents=True, exist_ok=True)
    truth.drop(columns="came").to_parquet(folder / "lead.parquet", index=False)
    (folder / "world.json").write_text(json.dumps(asdict(world) | more | {"oracle": oracle}, indent=1, default=str) + "\n", encoding="utf-8")
    return oracle
