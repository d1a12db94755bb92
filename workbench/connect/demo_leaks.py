"""Custom fields of the demo's leads: some written after the outcome in one of eight ways, the others clean.

A leak has a history (its versions tell when it was written), or its last value stands in every version and table `field` wrongly calls it fixed or
assumed; what nobody has closed yet then holds nothing, or the field's usual noise.
"""

from __future__ import annotations

from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pyarrow as pa

from workbench.connect.demo_world import DAY, LAST, NAN, NEVER, START

LEAKS = ("outcome_copy", "null_pattern", "late_fill", "mass_edit", "weak_proxy", "time_collapse", "count_after", "overwritten")
CLEAN = ("noise_level", "noise_number", "fit_number", "intent_level", "rare", "rare_fit", "worked", "worked_judged", "counter", "since")
WORDS = pa.array(["blue", "green", "red", "white", "yellow", "none of these"])


def planted(world) -> list[SimpleNamespace]:
    """The fields to plant, the same in every chunk of a world: field, sort (kind of leak, or of CLEAN), leak, history, noise, share, blank, known_at.

    A kind that stands twice in `world.leaks` is planted with and without a history."""
    design = np.random.default_rng([crc32(world.name.encode()), len(world.leaks), world.clean_fields])
    first = dict(zip(LEAKS, design.integers(0, 2, len(LEAKS)), strict=True))
    sorts = [(kind, True, bool((first[kind] + world.leaks[:i].count(kind)) % 2)) for i, kind in enumerate(world.leaks)]
    sorts += [(sort, False, sort in ("worked", "worked_judged", "counter")) for sort in np.resize(design.permutation(CLEAN), world.clean_fields).tolist()]
    return [SimpleNamespace(field=f"x_custom_{number:02d}", sort=sort, leak=leak, history=history, noise=design.uniform(.55, 1.05), share=design.uniform(.6, .95),
                            blank=bool(design.integers(0, 2)), known_at="historized" if history else str(design.choice(["fixed", "assumed"])))
            for number, (sort, leak, history) in zip(design.permutation(len(sorts)) + 1, sorts, strict=True)]


def plant(story, rng: np.random.Generator, leads: SimpleNamespace, world) -> tuple[dict, list[dict]]:
    """Plant the fields of `world`: columns that are constant a record, and rows for table `field`."""
    constants: dict[str, np.ndarray | pa.Array] = {}
    for f in planted(world):
        (_counter if f.sort in ("counter", "count_after") else _leak if f.leak else _clean)(story, rng, leads, f, constants)
    return constants, [{"field": f.field, "kind": "text" if isinstance(constants.get(f.field), pa.Array) else "float", "known_at": f.known_at,
                        "meaning": "a field of the organisation's own", "personal": False} for f in planted(world)]


def _leak(story, rng: np.random.Generator, leads: SimpleNamespace, f: SimpleNamespace, constants: dict) -> None:
    """What stands before (`old`), when it is written (`at`) and what (`new`), for `chosen` records."""
    n, won, closed, some, noise = leads.n, leads.won, leads.close < NEVER, rng.random(leads.n) < f.share, rng.normal(0, f.noise, leads.n)
    told, usual, blank = won + noise, .3 + noise, np.full(n, NAN)  # told has an AUC of .75 (noise 1.05) to .9 (.55); usual = what nobody has touched yet
    at, month, moment = leads.close + rng.exponential(2 * DAY, n), 30.4 * DAY, np.full(n, START + .6 * (LAST - START))
    old, at, new, chosen = {
        "outcome_copy": (blank, leads.close, np.where(won ^ (rng.random(n) < .02), 1., 2.), closed),
        "null_pattern": (blank, at, np.floor(3 * rng.random(n)), closed & (rng.random(n) < np.where(won, f.share, .02))),
        "late_fill": (blank, at, np.round(2 * rng.normal(0, 1, n) + .5 * won), closed & some),
        "mass_edit": (np.floor(4 * rng.random(n)), START + np.ceil((leads.close - START) / month) * month,  # the clean-up at the month's end
                      np.where(rng.random(n) < .15, rng.integers(0, 4, n), np.where(won, 3., 0.)), closed & some),
        "weak_proxy": (blank if f.blank else usual, at, told, closed),
        "time_collapse": (blank, moment, told, closed & (leads.close < moment) & some),
        "overwritten": (np.round(usual, 1), leads.close, np.round(told, 1), closed)}[f.sort]
    if f.history:
        story.add(closed | True, leads.born, final=True, **{f.field: old})
        story.add(chosen, np.maximum(at, leads.close), final=True, **{f.field: new})
    else:
        constants[f.field] = np.where(chosen & (at <= LAST), new, old)


def _counter(story, rng: np.random.Generator, leads: SimpleNamespace, f: SimpleNamespace, constants: dict) -> None:
    """A counter that grows about once a month while the lead is open; a leak's goes on growing when the lead has converted."""
    pace, at, count = rng.gamma(4, 6.5, leads.n) * DAY * np.exp(-.15 * leads.intent), leads.born, np.zeros(leads.n)
    ends = np.minimum(np.where(leads.won & f.leak, NEVER, leads.until), LAST)
    for k in range(13):
        if f.history:
            story.add(at < ends if k else at >= 0, at, final=True, **{f.field: k})
        at = at + rng.exponential(pace)
        count += at < ends
    if not f.history:
        constants[f.field] = count


def _clean(story, rng: np.random.Generator, leads: SimpleNamespace, f: SimpleNamespace, constants: dict) -> None:
    """Fields that know nothing of the outcome but what fit, intent and the seller's judgement tell; some are filled while somebody works on the lead."""
    n, noise, known = leads.n, rng.normal(0, 1, leads.n), rng.random(leads.n) < f.share
    if f.history:
        story.add(known | True, leads.born, final=True, **{f.field: NAN})
        story.add(known, leads.born + rng.exponential(25 * DAY, n), **{f.field: np.round(noise + (.8 * leads.judged if f.sort == "worked_judged" else 0), 1)})
        return
    known = {"rare": rng.random(n) < .06, "rare_fit": rng.random(n) < np.where(leads.fit > .5, .3, .1), "since": leads.born > START + .4 * (LAST - START)}.get(f.sort, known)
    if f.sort in ("noise_number", "fit_number", "since"):
        constants[f.field] = np.where(known, np.round(noise + {"fit_number": .7, "since": .3}.get(f.sort, 0) * leads.fit, 2), NAN)
    else:
        level = np.digitize(leads.intent + 1.2 * noise, [-1.2, 0, 1.2]) if f.sort == "intent_level" else rng.integers(0, 6, n)
        constants[f.field] = WORDS.take(pa.array(level, mask=~known))
