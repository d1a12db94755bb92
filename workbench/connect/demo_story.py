"""The demo organisation's histories: when which field of which record changed, as numbers that demo.sql puts into words."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from workbench.connect import demo_world as w
from workbench.connect.demo_leaks import plant
from workbench.connect.demo_world import DAY, LAST, MEETING, MIGRATED, NAN, NEVER, START, TASK, WEB, Company, Diary, workday

WORTH = np.array([1, .92, 1.16, 1.04])  # euros for one EUR, USD, GBP, CHF


class Story:
    """Changes of many records, gathered field by field, then told as versions."""

    def __init__(self, until: np.ndarray):
        self.until, self.parts = until, []  # type: ignore[var-annotated]

    def add(self, chosen: np.ndarray, at: np.ndarray, *, final: bool = False, **values) -> None:
        """Records where `chosen` change at `at` (before their `until`, unless `final`); arrays are as long as the records."""
        row = np.flatnonzero(chosen & (at < NEVER) & (final | (at < self.until)))
        self.parts.append((row, np.floor(at[row]), {c: np.broadcast_to(v, at.shape)[row] for c, v in values.items()}))

    def told(self, base: int, **constants) -> tuple[pa.Table, np.ndarray]:
        """One row a version up to LAST, and its record: n, t, the state then, the record's constants; changes within one second are one version."""
        row, at = np.concatenate([p[0] for p in self.parts]), np.concatenate([p[1] for p in self.parts])
        order = np.lexsort((np.arange(len(row)), at, row))
        order = order[at[order] <= LAST]
        row, at = row[order], at[order]
        ends, out = np.append((row[1:] != row[:-1]) | (at[1:] != at[:-1]), True)[-len(row):], {}
        for name in dict.fromkeys(c for p in self.parts for c in p[2]):  # the first change of a record tells every field
            value = np.concatenate([np.asarray(p[2].get(name, np.zeros(len(p[0]))), dtype=float) for p in self.parts])[order]
            known = np.concatenate([np.full(len(p[0]), name in p[2]) for p in self.parts])[order]
            out[name] = value[np.maximum.accumulate(np.where(known, np.arange(len(row)), 0))][ends]
        row = row[ends]
        return numbers(n=base + row + 1, t=at[ends], **out, **{c: v.take(row) for c, v in constants.items()}), row


def numbers(**columns) -> pa.Table:
    """Columns as an Arrow table; NaN is null."""
    return pa.table({c: pa.array(v, from_pandas=True) if isinstance(v, np.ndarray) else v for c, v in columns.items()})


def _words(table: list[tuple], codes: np.ndarray) -> pa.Array:
    return pa.array([t[0] for t in table]).take(pa.array(codes))


def _ahead(born: np.ndarray) -> np.ndarray:
    """Creation times; two of the latest were written in the wrong time zone and lie in the future."""
    latest = np.argsort(np.where(born > LAST, 0, born), kind="stable")[[-1, -3]]
    return np.where(np.isin(np.arange(len(born)), latest), LAST + 9 * 3600, born)


def lead_story(c: Company, rng: np.random.Generator, leads: SimpleNamespace, work: dict, contact: np.ndarray, deal: np.ndarray) -> pa.Table:
    """Versions of leads; visits are counted as of each version, the grade (current_only) is today's in all of them."""
    n, all_, story = leads.n, np.ones(leads.n, dtype=bool), Story(leads.until)
    some = lambda share: rng.random(n) < share  # noqa: E731
    phone, noise, first = some(.5), c.world.noise, workday(leads.born + rng.exponential(2.5 * DAY, n) / c.effort[leads.owner])
    story.add(all_, leads.born, final=True, status=0, owner=np.where(some(.05), NAN, leads.owner + 1), rating=NAN, phone=phone, size=some(.6), mute=0, outcome=0, closed=NAN, gone=NAN)
    story.add(some(.93), first, status=1, rating=np.digitize(leads.judged + rng.normal(0, .4 * noise, n), [-.4, .7]), phone=phone | some(.6))
    story.add(some(.9), first + DAY, owner=leads.owner + 1)
    story.add(some(.4), leads.born + 25 * DAY + rng.exponential(35 * DAY, n), status=2)
    struck, liked = rng.random(leads.touches.shape[1]) < .12, np.full(n, NEVER)  # a touch that impresses the seller
    np.minimum.at(liked, leads.touches[0, struck].astype(int), START + leads.touches[1, struck] * DAY + DAY)
    story.add(all_, np.where(some(.06), leads.born + rng.exponential(40 * DAY, n), liked) + rng.exponential(4 * DAY, n), status=3, size=1)
    story.add(some(.06), leads.born + rng.exponential(90 * DAY, n), mute=1)
    story.add(all_, leads.handed, owner=leads.heir + 1)
    closed = np.where(some(.004), leads.born - 30 * DAY, np.where(some(.004), NAN, leads.close))  # typed wrong, or not at all
    story.add(all_, leads.close, final=True, status=np.where(leads.won, 4, 5), outcome=np.where(leads.won, 1, 2), closed=closed, gone=np.where(leads.won & (c.world.conversion == "pipedrive"), leads.close, NAN))
    story.add(all_, leads.gone, final=True, gone=leads.gone)
    who, when = (work[k][(work["kind"] == WEB) & (work["lead"] >= 0)].astype(np.int64) for k in ("lead", "at"))
    story.parts.append((who[when < leads.until[who]], when[when < leads.until[who]] * 1.0, {}))  # each visit is a version: the counter moves
    planted, c.planted = plant(story, rng.spawn(1)[0], leads, c.world)
    staff, rank = np.ceil(np.exp(rng.normal(4.2 + .45 * leads.fit, noise))), rng.normal(1.2, .6, n) + 1.5 * leads.won - .8 * (leads.close < NEVER)
    told, row = story.told(
        c.base, **planted, p=c.base + leads.person, f=leads.firm, private=leads.private[leads.person], copied=leads.copy, title=_words(w.TITLES, leads.title), staff=staff[leads.person],
        industry=_words(w.INDUSTRIES, leads.industry), source=_words(w.SOURCES, leads.source), campaign=leads.campaign, created=_ahead(leads.born), contact=contact, deal=deal, merged=leads.merged + c.base + 1,
        dwell=np.exp(rng.normal(4.6 + .15 * leads.intent, .6)), pages=1 + np.exp(rng.normal(.5 + .15 * leads.intent + .2 * leads.curious, .4)),
        band=np.digitize(leads.fit + rng.normal(0, 1.2 * noise, n), [-.7, .5]), grade=np.where(some(np.where(leads.close < NEVER, .8, .1)), np.clip(np.round(rank), 0, 3), NAN))
    seen = np.sort((who << 33) + when)
    visits = np.searchsorted(seen, (row << 33) + told["t"].to_numpy().astype(np.int64), side="right") - np.searchsorted(seen, row << 33)
    return told.append_column("visits", pa.array(visits))


def account_story(c: Company, rng: np.random.Generator, accounts: SimpleNamespace) -> pa.Table:
    """Versions of accounts: growth, hand-overs, a few merges and deletions."""
    n, all_ = accounts.n, np.ones(accounts.n, dtype=bool)
    gone = np.floor(np.where(rng.random(n) < .006, accounts.born + rng.exponential(300 * DAY, n), NEVER))
    story, staff = Story(gone), np.ceil(np.exp(rng.normal(4.2 + .45 * accounts.fit, 1)))
    story.add(all_, accounts.born, final=True, owner=accounts.owner + 1, staff=staff, gone=NAN)
    story.add(rng.random(n) < .2, accounts.born + rng.exponential(500 * DAY, n), staff=np.ceil(staff * np.exp(rng.normal(.1, .2, n))))
    story.add(all_, accounts.handed, owner=accounts.heir + 1)
    story.add(all_, gone, final=True, gone=gone)
    parent = rng.integers(0, n, n)
    return story.told(c.base, f=accounts.firm, industry=_words(w.INDUSTRIES, accounts.industry), parent=np.where((rng.random(n) < .08) & (accounts.born[parent] < accounts.born), c.base + parent + 1, NAN), first_staff=staff, created=_ahead(accounts.born),
                      revenue=np.where(rng.random(n) < .6, staff * np.exp(rng.normal(11.6, .4, n)), NAN))[0]


def contact_story(c: Company, rng: np.random.Generator, leads: SimpleNamespace, accounts: SimpleNamespace, contacts: SimpleNamespace) -> pa.Table:
    """Versions of contacts: some refuse mails or calls later, change their title or leave; a few stand there twice."""
    n, all_ = contacts.n, np.ones(contacts.n, dtype=bool)
    gone = np.floor(np.where(rng.random(n) < .008, contacts.born + rng.exponential(300 * DAY, n), NEVER))
    story, row = Story(gone), np.arange(n)
    story.add(all_, contacts.born, final=True, mute=0, silent=0, phone=rng.random(n) < .7, gone=NAN)
    for share, values in ((.07, {"mute": 1}), (.03, {"silent": 1}), (.15, {"phone": 1})):
        story.add(rng.random(n) < share, contacts.born + rng.exponential(250 * DAY, n), **values)  # type: ignore[arg-type]
    story.add(all_, gone, final=True, gone=gone)
    person, twin = c.base + np.where(contacts.lead >= 0, contacts.lead, 500_000 + row), np.where((rng.random(n) < .012) & (contacts.lead < 0), np.maximum(row - 1, 0), row)
    return story.told(c.base, p=person[twin], f=accounts.firm[contacts.account][twin], private=np.where(contacts.lead >= 0, leads.private[contacts.lead], rng.random(n) < .08)[twin], title=_words(w.TITLES, rng.integers(0, len(w.TITLES), n)), account=c.base + contacts.account + 1,
                      owner=accounts.owner[contacts.account] + 1, created=_ahead(contacts.born))[0]


def deal_story(c: Company, rng: np.random.Generator, deals: SimpleNamespace, leads: SimpleNamespace) -> pa.Table:
    """Versions of deals: stages, amounts, slipped dates, hand-overs, a rival named, the close; the exit score (current_only) is today's in all."""
    n, all_, story = deals.n, np.ones(deals.n, dtype=bool), Story(deals.until)
    some = lambda share: rng.random(n) < share  # noqa: E731
    plan, careful, typo = workday(deals.born + (25 + rng.gamma(2.5, 26, n)) / max(c.world.slip, 1) * DAY), some(.94), np.where(some(.004), 1000, 1)
    story.add(all_, deals.born, final=True, stage=0, owner=np.where(some(.05), NAN, deals.owner + 1), amount=np.where(some(.06), NAN, np.round(deals.amount, -1) * typo), plan=np.where(careful, plan, NAN),
              step=np.where(some(.5), rng.integers(0, 6, n), NAN), rival=NAN, review=0, discount=NAN, outcome=NAN, closed=NAN, gone=NAN, reason=NAN)
    for _ in range(12):  # the date slips while the deal is open and its owner still cares
        careful &= some(.92)
        at = plan + rng.normal(-1, 4, n) * DAY
        moves = careful & some(min(c.world.slip, 1)) & (at < deals.until) & (at > deals.born)
        plan = np.where(moves, workday(plan + rng.choice([14, 30, 30, 61, 91], n) * DAY), plan)
        story.add(moves, at, plan=plan)
    stage, cut = deals.enter, np.round(np.clip(rng.normal(.07, .06, n), 0, .3), 2)
    story.add(all_, stage[:, 1], stage=1, step=rng.integers(0, 6, n))
    story.add(deals.rival >= 0, stage[:, 1] + rng.exponential(20 * DAY, n), rival=deals.rival)
    story.add(some(.2 + .25 * deals.champion[:, 1]), stage[:, 1] + rng.exponential(25 * DAY, n), review=1)
    story.add(all_, stage[:, 2], stage=2, amount=np.where(some(.02), NAN, deals.offer * typo))
    story.add(all_, stage[:, 3], stage=3, amount=np.round(deals.offer * (1 - cut), -1) * typo, discount=cut, step=rng.integers(0, 6, n))
    story.add(all_, deals.handed, owner=deals.heir + 1)
    closed = np.where(some(.003), deals.born - 20 * DAY, np.where(some(.003), NAN, deals.close))
    story.add(all_, deals.close, final=True, outcome=deals.won, closed=closed, plan=deals.close, reason=np.where(deals.won, NAN, np.where(deals.frozen.any(axis=1) & some(.6), 4, rng.integers(0, 6, n))))
    story.add(some(.994), deals.close, final=True, stage=np.where(some(.004), 6, np.where(deals.won, 4, 5)))
    story.add(deals.won, deals.close, final=True, amount=np.where(some(.008), NAN, np.round(deals.offer * (1 - cut), -1)))  # the invoice puts a slipped comma right
    story.add(all_, deals.gone, final=True, gone=deals.gone)
    score = np.clip(np.round(rng.normal(4, 1.3, n) + 3.5 * deals.won - 1.5 * (deals.close < NEVER)), 1, 10)
    from_lead = deals.lead >= 0
    return story.told(
        c.base, account=c.base + deals.account + 1, f=deals.firm, contact=c.base + deals.account + 1, campaign=np.where(from_lead, leads.campaign[deals.lead], NAN), lead=np.where(from_lead, c.base + deals.lead + 1, NAN),
        product=deals.product + 1, kind=np.where(deals.repeat, 1 + some(.4), 0), source=_words(w.SOURCES, np.where(from_lead, leads.source[deals.lead], np.where(some(.6), 4, 3))), money=deals.money, worth=WORTH[deals.money],
        created=_ahead(deals.born), score=np.where(some(np.where(deals.close < NEVER, .7, .05)), score, NAN))[0]


def activity_story(c: Company, rng: np.random.Generator, work: dict) -> pa.Table:
    """Versions of activities: noted when they happened, some later; tasks, meetings and some calls planned, then done, forgotten or called off."""
    n, kind, at = len(work["at"]), work["kind"], np.floor(work["at"])
    planned = (kind == TASK) | (rng.random(n) < np.where(kind == MEETING, .6, np.where(kind == 0, .1, 0)))
    due = np.where(planned, workday(at + .5 * DAY + rng.exponential(6 * DAY, n)), at)
    entered = np.floor(np.where(planned, at, at + np.where(rng.random(n) < .07, rng.exponential(2 * DAY, n), rng.exponential(1800, n))))
    old = (work["born"] == MIGRATED) & ~planned & (at < MIGRATED + 60 * DAY) & (rng.random(n) < .5)  # the older system's notes, which came over in one night
    due, entered = np.where(old, 2 * MIGRATED - at, due), np.where(old, MIGRATED, entered)
    due = np.where(~planned & (at > LAST - 200 * DAY) & (rng.random(n) < .004), due + 366 * DAY, due)  # the wrong year
    held, story = planned & (due < work["until"]), Story(np.full(n, NEVER))
    story.add(entered > 0, entered, done=~planned, gone=NAN)
    story.add(held & (rng.random(n) < .95), np.maximum(due + rng.exponential(7200, n), entered + 1), done=1)
    off = np.floor(np.maximum(work["until"], entered + 1))
    story.add(planned & ~held & (rng.random(n) < .6), off, gone=off)
    return story.told(c.base, **{e: c.base + work[e] + 1 for e in ("lead", "contact", "deal", "account")}, kind=kind, way=work["way"], mood=work["mood"], owner=work["user"] + 1, created=_ahead(entered), due=np.floor(due))[0]


def _moved(style: str, work: dict, won: np.ndarray, contact: np.ndarray, deal: np.ndarray) -> dict:
    """Activities as they hang today: those of a converted lead stay, or hang on its contact and deal (salesforce) or its deal alone, as if from the start."""
    lead = np.where(np.isnan(work["lead"]), -1, work["lead"]).astype(int)
    moves = (lead >= 0) & won[lead] & (style != "keep")
    person = moves & ((style == "salesforce") | np.isnan(deal[lead]))
    return work | {"lead": np.where(moves, NAN, work["lead"]), "deal": np.where(moves, deal[lead], work["deal"]), "contact": np.where(person, contact[lead], work["contact"])}


def chunk_stories(c: Company, rng: np.random.Generator, leads: SimpleNamespace, accounts: SimpleNamespace, contacts: SimpleNamespace, deals: SimpleNamespace) -> dict[str, pa.Table]:
    """Entity -> its versions, for one chunk of the world."""
    diary = Diary(c, rng)
    w.lead_work(diary, leads)
    w.deal_work(diary, deals)
    work = diary.gathered()
    contact, deal, linked = np.full(leads.n, NAN), np.full(leads.n, NAN), deals.lead >= 0
    contact[accounts.lead[accounts.lead >= 0]] = np.flatnonzero(accounts.lead >= 0)
    deal[deals.lead[linked]] = np.flatnonzero(linked)
    moved = _moved(c.world.conversion, work, leads.won, contact, deal)
    if c.world.conversion == "pipedrive":  # only the deal tells of the lead that it came from; a lead without one became a contact
        contact, deal = np.where(np.isnan(deal), contact, NAN), np.full(leads.n, NAN)
    contact, deal = c.base + contact + 1, c.base + deal + 1
    follower = np.full(accounts.n, NAN)
    follower[contacts.account] = np.arange(contacts.n)  # the latest contact of each account; contact i is the first of account i
    other = np.where((follower[deals.account] != deals.account) & (contacts.born[follower[deals.account].astype(int)] < deals.born), c.base + follower[deals.account] + 1, NAN)
    number, proposed = c.base + np.arange(deals.n) + 1, np.where((deals.enter[:, 2] < deals.until) & (deals.enter[:, 2] <= LAST), deals.enter[:, 2], NAN)
    items = numbers(n=number, proposed=proposed, product=deals.product + 1, offer=deals.offer, money=deals.money, worth=WORTH[deals.money])
    parts = numbers(n=number, t=deals.born, contact=c.base + deals.account + 1, other=other, champion=deals.champion[:, 0])
    members = numbers(n=c.base + np.arange(leads.n) + 1, born=leads.born, until=leads.until, campaign=leads.campaign, intent=leads.intent, begins=np.full(leads.n, START), ends=np.full(leads.n, LAST))
    return {"account": account_story(c, rng, accounts), "contact": contact_story(c, rng, leads, accounts, contacts), "lead": lead_story(c, rng, leads, work, contact, deal), "deal": deal_story(c, rng, deals, leads),
            "deal_product": items, "deal_contact": parts, "membership": members, "activity": activity_story(c, rng, moved)}
