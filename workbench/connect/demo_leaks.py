"""Custom fields of the demo's leads: some written after the outcome in one of eight ways, the others clean.

Every leak comes in two variants: with history (its versions tell when it was written) and without (its last value stands in every
version, and table `field` wrongly calls it fixed or assumed). Open records of the second variant hold nothing, or the field's usual noise.
"""

from __future__ import annotations

from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pyarrow as pa

from workbench.connect.demo_world import DAY, LAST, NAN, NEVER, START

LEAKS = ("outcome_copy", "null_pattern", "late_fill", "mass_edit", "weak_proxy", "time_collapse", "count_after", "overwritten")
CLEAN = ("noise_level", "noise_number", "fit_number", "intent_level", "rare", "rare_fit", "worked", "worked_judged", "counter", "since")


def planted(world) -> list[SimpleNamespace]:
    """The fields to plant, the same in every part of a world: name, sort (a leak's kind or a clean sort), leak, history, noise, share, known_at.

    A kind that stands twice in `world.leaks` gets both variants."""
    design = np.random.default_rng([crc32(world.name.encode()), len(world.leaks), world.clean_fields])
    first = dict(zip(LEAKS, design.integers(0, 2, len(LEAKS)), strict=True))
    sorts = [(kind, True, (first[kind] + world.leaks[:i].count(kind)) % 2 == 0) for i, kind in enumerate(world.leaks)]
    sorts += [(sort, False, sort in ("worked", "worked_judged", "counter")) for sort in np.resize(design.permutation(CLEAN), world.clean_fields).tolist()]
    numbers = design.permutation(len(sorts)) + 1
    return [SimpleNamespace(field=f"x_custom_{number:02d}", sort=sort, leak=leak, history=history, noise=design.uniform(.55, 1.05), share=design.uniform(.6, .95),
                            blank=bool(design.integers(0, 2)), known_at="historized" if history else str(design.choice(["fixed", "assumed"])))
            for number, (sort, leak, history) in zip(numbers, sorts, strict=True)]


def plant(story, rng: np.random.Generator, leads: SimpleNamespace, world) -> tuple[dict, list[dict]]:
    """Plant the fields of `world.leaks` and `world.clean_fields`: what is constant a record, and rows for table `field`."""
    constants: dict[str, np.ndarray | pa.Array] = {}
    rows = []
    for f in planted(world):
        if f.leak:
            _leak(story, rng, leads, f, constants)
        else:
            _clean(story, rng, leads, f, constants)
        kind = "text" if isinstance(constants.get(f.field), pa.Array) else "float"
        rows.append({"field": f.field, "kind": kind, "known_at": f.known_at, "meaning": "a field of the organisation's own", "personal": False, "leak": f.sort if f.leak else ""})
    return constants, rows


def _leak(story, rng: np.random.Generator, leads: SimpleNamespace, f: SimpleNamespace, constants: dict) -> None:
    """What stands before (`old`), when it is written (`at`) and what (`new`); `chosen` records only. Without history the last value stands always."""
    n, won, closed = leads.n, leads.won, leads.close < NEVER
    some, noise = rng.random(n) < f.share, rng.normal(0, 1, n)
    told = np.where(won, 1., 0.) + f.noise * noise  # tells the outcome with an AUC of about .75 (noise 1.05) to .9 (.55)
    usual = .3 + f.noise * noise  # what nobody has touched yet looks like
    blank = np.full(n, NAN)
    month = 30.4 * DAY
    old, at, new, chosen = blank, leads.close + rng.exponential(2 * DAY, n), told, closed & some
    if f.sort == "outcome_copy":
        at, new, chosen = leads.close, np.where(won ^ (rng.random(n) < .02), 1., 2.), closed
    elif f.sort == "null_pattern":
        new, chosen = np.floor(3 * rng.random(n)), closed & (rng.random(n) < np.where(won, f.share, .02))
    elif f.sort == "late_fill":
        new = np.round(2 * rng.normal(0, 1, n) + .5 * won)
    elif f.sort == "mass_edit":
        at, new = START + np.ceil((leads.close - START) / month) * month, np.where(rng.random(n) < .15, rng.integers(0, 4, n), np.where(won, 3., 0.))
        old = np.floor(4 * rng.random(n))
    elif f.sort == "weak_proxy":
        old, chosen = blank if f.blank else usual, closed
    elif f.sort == "time_collapse":
        moment = START + .6 * (LAST - START)
        at, chosen = np.full(n, moment), closed & (leads.close < moment) & some
    elif f.sort == "overwritten":
        at, new, old, chosen = leads.close, np.round(told, 1), np.round(usual, 1), closed
    if f.sort == "count_after":
        _counter(story, rng, leads, f, constants)
    elif f.history:
        story.add(np.ones(n, dtype=bool), leads.born, final=True, **{f.field: old})
        story.add(chosen, np.maximum(at, leads.close), final=True, **{f.field: new})
    else:
        constants[f.field] = np.where(chosen & (at <= LAST), new, old)


def _counter(story, rng: np.random.Generator, leads: SimpleNamespace, f: SimpleNamespace, constants: dict) -> None:
    """A counter that grows every 15 to 40 days while the lead is open; a leak's goes on growing when the lead has converted."""
    n, pace = leads.n, rng.gamma(4, 6.5, leads.n) * DAY * np.exp(-.15 * leads.intent)
    ends = np.where(leads.won & f.leak, LAST + 1, leads.until)
    at, count = leads.born, np.zeros(n)
    if f.history:
        story.add(np.ones(n, dtype=bool), leads.born, final=True, **{f.field: 0})
    for k in range(12):
        at = at + rng.exponential(pace)
        count += at < np.minimum(ends, LAST)
        if f.history:
            story.add(at < ends, at, final=True, **{f.field: k + 1})
    if not f.history:
        constants[f.field] = count


def _clean(story, rng: np.random.Generator, leads: SimpleNamespace, f: SimpleNamespace, constants: dict) -> None:
    """Fields that know nothing of the outcome but what fit, intent and the seller's judgement tell."""
    n, noise, words = leads.n, rng.normal(0, 1, leads.n), pa.array(["blue", "green", "red", "white", "yellow", "none of these"])
    level = rng.integers(0, 6, n)
    if f.sort == "counter":
        return _counter(story, rng, leads, f, constants)
    if f.history:  # filled while somebody works on the lead, whatever comes of it
        story.add(np.ones(n, dtype=bool), leads.born, final=True, **{f.field: NAN})
        filled = rng.random(n) < f.share
        return story.add(filled, leads.born + rng.exponential(25 * DAY, n), **{f.field: np.round(noise + (.8 * leads.judged if f.sort == "worked_judged" else 0), 1)})
    known = {"rare": rng.random(n) < .06, "rare_fit": rng.random(n) < np.where(leads.fit > .5, .3, .1), "since": leads.born > START + .4 * (LAST - START)}.get(f.sort, rng.random(n) < f.share)
    if f.sort in ("noise_number", "fit_number", "since"):
        constants[f.field] = np.where(known, np.round(noise + {"fit_number": .7, "since": .3}.get(f.sort, 0) * leads.fit, 2), NAN)
    else:
        level = np.digitize(leads.intent + 1.2 * noise, [-1.2, 0, 1.2]) if f.sort == "intent_level" else level
        constants[f.field] = words.take(pa.array(level, mask=~known))
