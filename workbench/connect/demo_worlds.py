"""Worlds of the demo organisation: their parameters, what a day does with a lead's hidden interest, and the true chances that follow.

A lead's chance to convert on a day is ease x (REST + interest)^signal x the day's pace. A touch (the lead reads, asks, answers) adds up to 1 to
interest, which halves in half_life_days; a lead is given up at a rate that falls with interest. All of this is hidden; the records only hint at it.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from workbench.errors import WorkbenchError

DAY, NEVER = 86400.0, 2.0**40
START, LAST = 1656633600.0, 1782863999.0  # 2022-07-01 and 2026-06-30 23:59:59
DAYS = 1461
SEASON = np.array([1.05, 1, 1.1, 1, 1, 1.05, .78, .72, 1.12, 1.1, 1.08, .66])  # January .. December
HORIZONS = (30, 90, 180)
INSTANTS = LAST - 91 * DAY * np.arange(9)  # when truth is told: the end and eight quarters before it, all at a day's last second
FIT, INTENT, CURIOUS, COPY = .8, .7, 1.3, 2.5  # what they do to the log of the chance, in a world of signal 1
REST, TOUCHED, GIVEN_UP, DELETED = .12, .033, .017, .00008  # interest without a touch; touches, give-ups, deletions a day
# words: [word, weight, what it owes to fit, to intent]; sections of a world: parameter -> [least, largest] or what it may be
SOURCES, TITLES, INDUSTRIES, SECTIONS = tomllib.loads(resources.files("workbench.connect").joinpath("demo.toml").read_text(encoding="utf-8")).values()


@dataclass(frozen=True)
class World:
    """What a world is like: demo.toml explains each parameter, and a TOML file names those that differ, below the heading of their section."""

    name: str = "default"
    signal: float = 1.0
    overdispersion: float = .4
    base_rate: float = .12
    half_life_days: float = 20.0
    skill: float = .4
    reply_hours: float = 10.0
    noise: float = 1.0
    missing: float = .02
    duplicates: float = .03
    leaks: tuple = ()
    clean_fields: int = 0
    season: float = 1.0
    drift: float = 0.0
    breaks: tuple = ()
    slip: float = 1.0
    tracked_from_month: int = 0
    sync_days: int = 0
    conversion: str = "keep"


def read_world(path: str | Path) -> World:
    """The world that a TOML file describes; it is called after the file. Refuses unknown sections and parameters, and impossible values."""
    try:
        told = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkbenchError(f"There is no world at {path}.", fix="Name a TOML file; data/worlds/ has some.") from None
    except ValueError as error:
        raise WorkbenchError(f"{path} is not valid TOML: {error}.", fix="Mend the line that it names.") from None
    values: dict = {}
    for section, given in told.items():
        known = SECTIONS.get(section, {})
        if unknown := sorted(set(given) - set(known)) if known and isinstance(given, dict) else [section]:
            raise WorkbenchError(f"{path}: a world has no {', '.join(unknown)}.", fix="Known are " + "; ".join(f"[{s}] {', '.join(names)}" for s, names in SECTIONS.items()) + ".")
        if wrong := [name for name, value in given.items() if not _fits(name, value, known[name])]:
            allowed = known[wrong[0]]  # numbers: the least and the largest
            raise WorkbenchError(f"{path}: {wrong[0]} cannot be {given[wrong[0]]!r}.", fix=f"{allowed[0]} to {allowed[1]}." if isinstance(allowed[0], (int, float)) else f"Known are {', '.join(allowed)}.")
        values |= {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return World(name=Path(path).stem, **values)


def _fits(name: str, value, allowed: list) -> bool:
    usual = getattr(World, name)
    if name == "breaks":
        return isinstance(value, list) and all(isinstance(b, dict) and {*allowed[:2]} <= {*b} <= {*allowed[:3]} and type(b["on"]) is date and type(b["rate"]) in (int, float)
                                               and 0 < b["rate"] < 100 and b.get("source", SOURCES[0][0]) in [row[0] for row in SOURCES] for b in value)
    if isinstance(usual, (str, tuple)):
        return value in allowed if isinstance(usual, str) else isinstance(value, list) and all(v in allowed for v in value)
    return type(value) in (int, type(usual)) and allowed[0] <= value <= allowed[1]


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
        self.rate, self.hours, self.decay = TOUCHED * np.exp(.3 * leads.intent + .5 * leads.curious), world.reply_hours / effort, .5 ** (1 / world.half_life_days)
        self.ease = np.exp(level + leads.frailty + s * (FIT * leads.fit + INTENT * leads.intent - CURIOUS * leads.curious - COPY * leads.copy + skill))
        self.tilt, self.gone = s * (INTENT * leads.intent - FIT * leads.fit), DELETED + leads.merging / 30
        self.breaks = [((b["on"] - date(2022, 7, 1)).days, b["rate"], "source" not in b or leads.source == [row[0] for row in SOURCES].index(b["source"])) for b in world.breaks]

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
        """Each lead's last day and what ended it (1 won, 2 given up, 3 gone, 0 nothing yet), its touches (row, day, hours), and states (row, day, interest) at INSTANTS."""
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
            cause[row[ends]] = np.where(why < won[ends], 1, np.where(why < (won + lost - self.gone[row])[ends], 2, 3))
            last[row[ends]] = day[ends]
            row, interest, day = row[~ends], interest[~ends], day[~ends]
            states.append(np.stack([row, day, interest])[:, told[day]])
        return last, cause, np.concatenate(touches, axis=1), np.concatenate(states, axis=1)

    def foretold(self, rng: np.random.Generator, row: np.ndarray, day: np.ndarray, interest: np.ndarray, draws: int, ease: float = 1) -> np.ndarray:
        """Chance of each state to convert within 30, 90, 180 days and ever: mean over `draws` futures of touches, weighed by their hazards; every ease x `ease`."""
        out, who = np.zeros((len(row), len(HORIZONS) + 1)), np.repeat(np.arange(len(row)), draws)
        row, day, interest, left, sure, ahead = np.repeat(row, draws), np.repeat(day, draws), np.repeat(interest, draws), np.full(len(who), 1 / draws), np.zeros(len(out)), 0
        while ahead < HORIZONS[-1] or len(row) and ahead < DAYS:
            day, ahead = day + 1, ahead + 1
            interest, _, _ = self.touched(rng, row, interest)
            won, lost = self.chances(row, day, interest)
            won = won * ease
            ends = -np.expm1(-won - lost) * left
            sure += np.bincount(who, ends * won / (won + lost), len(out))
            left = left - ends
            if ahead in HORIZONS:
                out[:, HORIZONS.index(ahead)] = sure
            if ahead % 10 == 0:
                kept = left > .002 / draws
                row, day, interest, left, who = (v[kept] for v in (row, day, interest, left, who))
        out[:, -1] = sure
        return out


def truth_of(life: Life, rng: np.random.Generator, leads: SimpleNamespace, base: int, draws: int) -> pd.DataFrame:
    """One row a lead and instant at which its record stood open: id, as_of, p_30, p_90, p_180, p_ever, and, for the oracle alone, came (in 90 days)."""
    at, n = np.sort(INSTANTS), leads.n
    row, k = np.nonzero((leads.born[:, None] <= at) & (leads.until[:, None] > at))
    p, (who, day, interest) = np.zeros((n, len(at), 4)), leads.states  # a lead that was given up, though its record says so later, has no chance
    who, day = who.astype(int), day.astype(int)
    blocks = [life.foretold(rng, who[i:i + 1000], day[i:i + 1000], interest[i:i + 1000], draws) for i in range(0, len(who), 1000)]  # small enough for a processor's cache
    p[who, np.searchsorted((at - START) // DAY, day)] = np.concatenate([np.empty((0, 4)), *blocks])
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
