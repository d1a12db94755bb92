"""The demo organisation's records: every version of every record, and the dirt of daily use, as Arrow columns."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow.compute as pc

from workbench.connect import demo_words as w
from workbench.connect.demo_words import DAY, NEVER, Story, days, either, flags, keys, numbers, times, words
from workbench.connect.demo_world import LAST, MEETING, MIGRATED, TASK, WEB, Company, Diary, deal_work, lead_work

LEAD_STATUS = ["New", "Working", "Nurturing", "Qualified", "Converted", "Dead"]
STAGES = ["Discovery", "Qualification", "Proposal", "Negotiation", "Won", "Lost", "Closed (old)"]
CURRENCIES, WORTH = ["EUR", "USD", "GBP", "CHF"], np.array([1, .92, 1.16, 1.04])
NAN = np.nan


def _some(rng, n: int, share: float) -> np.ndarray:
    return rng.random(n) < share


def _stamps(base: int, prefix: str, row: np.ndarray, at: np.ndarray) -> dict:
    return {"id": keys(prefix, base + row + 1), "valid_from": times(at)}


def _mails(rng, email, missing: float):
    chance = rng.random(len(email))
    email = either(chance < .007, pc.replace_substring(email, "@", " at "), email)
    email = either(chance > 1 - .006, pc.replace_substring_regex(email, r"\.[a-z]+$", ""), email)
    return either((chance > .5) & (chance < .5 + missing), None, email)


def _future(born: np.ndarray) -> np.ndarray:
    """Creation times; two of the latest were written in the wrong time zone and lie ahead."""
    return np.where(np.isin(np.arange(len(born)), np.argsort(np.where(born > LAST, 0, born), kind="stable")[[-1, -3]]), LAST + 9 * 3600, born)


def _references(rng, prefix: str, number: np.ndarray, share: float = .002):
    """Keys, a few of which point to a record that never came over."""
    return either(_some(rng, len(number), share) & (number >= 0), pc.binary_join_element_wise(keys(prefix, number), "old", "-"), keys(prefix, number))


def lead_records(c: Company, rng, leads: SimpleNamespace, work: dict, contact_of: np.ndarray, deal_of: np.ndarray) -> dict:
    """Versions of leads; `work` = the diary, for the count of web visits as of each version."""
    n, all_ = leads.n, np.ones(leads.n, dtype=bool)
    story = Story(leads.until)
    phone, size = _some(rng, n, .5), _some(rng, n, .6)
    story.add(all_, leads.born, final=True, status=0, owner=np.where(_some(rng, n, .05), NAN, leads.owner), rating=NAN, phone=phone, size=size, mute=0, outcome=0, closed=NAN, gone=NAN)
    first = w.workday(leads.born + rng.exponential(2.5 * DAY, n) / c.effort[leads.owner])
    story.add(_some(rng, n, .93), first, status=1, rating=np.digitize(leads.judged + rng.normal(0, .4, n), [-.4, .7]), phone=phone | _some(rng, n, .6))
    story.add(_some(rng, n, .9), first + DAY, owner=leads.owner)
    good = rng.random(n) < np.where(leads.wake < NEVER, .5, .1)
    quiet = _some(rng, n, .45) & ~good
    story.add(quiet, leads.born + 25 * DAY + rng.exponential(25 * DAY, n), status=2)
    story.add(good, np.where(leads.wake < NEVER, leads.wake, leads.born) + rng.exponential(14 * DAY, n), status=3, size=1)
    story.add(_some(rng, n, .06), leads.born + rng.exponential(90 * DAY, n), mute=1)
    story.add(leads.handed < NEVER, leads.handed, owner=leads.heir)
    closed = np.where(_some(rng, n, .004), leads.born - 30 * DAY, np.where(_some(rng, n, .004), NAN, leads.close))  # typed wrong, or not at all
    story.add(all_, leads.close, final=True, status=np.where(leads.won, 4, 5), outcome=np.where(leads.won, 1, 2), closed=closed)
    story.add(all_, leads.gone, final=True, gone=leads.gone)
    row, at, v = story.versions(LAST)
    person = leads.person[row]
    who = w.people(rng, c.base + np.arange(n), c.base // 20 + 20_000 + np.arange(n), leads.fit + rng.normal(0, 1, n) < -.6)
    loud = leads.copy & _some(rng, n, .5)
    email = _mails(rng, who["email"].take(leads.person), .04)
    email, name = either(loud, pc.utf8_upper(email), email), either(_some(rng, n, .005), words(w.PLACEHOLDER, rng.integers(0, 6, n)), who["name"].take(leads.person))
    visits = np.sort(((work["lead"].astype(np.int64) << 33) + work["at"].astype(np.int64))[(work["kind"] == WEB) & (work["lead"] >= 0)])
    n_visits = np.searchsorted(visits, (row << 33) + at.astype(np.int64), side="right") - np.searchsorted(visits, row << 33)
    dwell, pages = np.exp(rng.normal(4.6 + .15 * leads.intent, .6))[row], 1 + np.exp(rng.normal(.5 + .15 * leads.intent + .2 * leads.curious, .4))[row]
    employees = np.ceil(np.exp(rng.normal(4.2 + .45 * leads.fit, 1)))
    place, band = rng.integers(0, len(w.PLACES), n), np.digitize(leads.fit + rng.normal(0, 1.2, n), [-.7, .5])
    of_campaign = np.array([3, 0, 1, 3, 3, 3, 2])[leads.source]  # Webinar, Event, E-mail campaign; the others have none
    latest = np.clip(np.searchsorted(c.campaigns, leads.born, side="right") - 1, 0, None)
    campaign = np.where(of_campaign < 3, np.maximum(latest - (latest - of_campaign) % 3, of_campaign), -1)
    leads.campaign = campaign
    grade = np.clip(np.round(2.2 - 1.5 * leads.won + .9 * (leads.close < NEVER) * ~leads.won + rng.normal(0, .5, n)), 0, 3)
    graded = np.where(rng.random(n) < np.where(leads.close < NEVER, .8, .1), grade, -1)  # today's value only: written again after the outcome
    slip, won, lost = _some(rng, n, .02), v["outcome"].to_numpy() == 1, v["outcome"].to_numpy() == 2
    return _stamps(c.base, "l", row, at) | {
        "name": name.take(row), "email": email.take(row), "phone": either(v["phone"] > 0, who["phone"].take(person), None), "company": who["company"].take(person),
        "title": words([t[0] for t in w.TITLES], leads.title[person]), "industry": words(w.variants([i[0] for i in w.INDUSTRIES]), (leads.industry + len(w.INDUSTRIES) * slip)[row]),
        "employees": numbers(np.where(v["size"] > 0, employees[person], NAN), 0), "country": words(w.COUNTRIES, place[person]),
        "city": words(w.variants(w.CITIES), (place + len(w.PLACES) * _some(rng, n, .01))[person]), "source": words(w.variants([s[0] for s in w.SOURCES]), (leads.source + len(w.SOURCES) * _some(rng, n, .015))[row]),
        "campaign_id": _references(rng, "k", np.where(campaign >= 0, campaign + 1, -1)).take(row), "owner_id": keys("u", v["owner"].to_numpy() + 1), "status": words(LEAD_STATUS, v["status"].to_numpy()),
        "rating": words(["cold", "warm", "hot"], v["rating"].to_numpy()), "do_not_email": flags(v["mute"]), "n_visits": numbers(n_visits.astype(float), 0),
        "web_seconds": numbers(np.where(n_visits > 0, np.round(n_visits * dwell), NAN)), "pages_per_visit": numbers(np.where(n_visits > 0, pages, NAN), 1), "created_at": times(_future(leads.born)[row]),
        "is_converted": flags(won), "is_lost": flags(lost), "converted_at": times(np.where(won, v["closed"], NAN)), "closed_at": times(v["closed"]),
        "converted_contact_id": keys("c", np.where(won, contact_of[row], NAN)), "converted_deal_id": keys("d", np.where(won & (deal_of[row] > 0), deal_of[row], NAN)),
        "deleted_at": times(v["gone"]), "merged_into": keys("l", np.where(v["gone"].notna() & (leads.merged[row] >= 0), c.base + leads.merged[row] + 1, NAN)),
        "x_budget_band": words(["below 5k", "5k to 20k", "above 20k"], np.where(_some(rng, n, .7), band, -1)[row]), "x_newsletter": flags(_some(rng, n, .4)[row]),
        "x_messenger": either(_some(rng, n, .3), pc.binary_join_element_wise("@", pc.replace_substring(pc.utf8_lower(who["name"]), " ", "_"), ""), None).take(row),
        "x_call_grade": words(["A", "B", "C", "D"], graded[row])}


def account_records(c: Company, rng, accounts: SimpleNamespace) -> dict:
    """Versions of accounts: growth, hand-overs, a few merges and deletions."""
    n, row = accounts.n, np.arange(accounts.n)
    gone = np.floor(np.where(_some(rng, n, .006), accounts.born + rng.exponential(300 * DAY, n), NEVER))
    story = Story(gone)
    staff = np.ceil(np.exp(rng.normal(4.2 + .45 * accounts.fit, 1)))
    story.add(row >= 0, accounts.born, final=True, owner=accounts.owner, staff=staff, gone=NAN)
    story.add(_some(rng, n, .2), accounts.born + rng.exponential(500 * DAY, n), staff=np.ceil(staff * np.exp(rng.normal(.1, .2, n))))
    story.add(accounts.handed < NEVER, accounts.handed, owner=accounts.heir)
    story.add(row >= 0, gone, final=True, gone=gone)
    row, at, v = story.versions(LAST)
    accounts.firm = np.where(accounts.lead < 0, c.base // 20 + np.arange(n), c.base // 20 + 20_000 + accounts.lead)
    name, slip, place = w.companies(accounts.firm)[0], _some(rng, n, .02), rng.integers(0, len(w.PLACES), n)
    parent = np.where(_some(rng, n, .05), rng.integers(0, n, n), -1)
    parent = np.where(accounts.born[parent] < accounts.born, parent, -1)
    return _stamps(c.base, "a", row, at) | {
        "name": either(_some(rng, n, .006), words(w.PLACEHOLDER, rng.integers(0, 6, n)), name).take(row), "industry": words(w.variants([i[0] for i in w.INDUSTRIES]), (accounts.industry + len(w.INDUSTRIES) * slip)[row]),
        "employees": numbers(v["staff"].to_numpy(), 0), "annual_revenue": numbers(np.where(_some(rng, n, .6), np.round(staff * np.exp(rng.normal(11.6, .4, n)), -3), NAN)[row]), "currency": words(CURRENCIES, np.zeros(len(row))),
        "country": words(w.variants(w.COUNTRIES), (place + len(w.PLACES) * _some(rng, n, .015))[row]), "city": words(w.CITIES, place[row]), "parent_id": _references(rng, "a", np.where(parent >= 0, c.base + parent + 1, -1), .1).take(row),
        "owner_id": keys("u", v["owner"].to_numpy() + 1), "founded_year": numbers(np.floor(2024 - rng.gamma(2, 14, n)), 0)[:].take(row), "created_at": times(_future(accounts.born)[row]), "deleted_at": times(v["gone"]),
        "merged_into": keys("a", np.where(v["gone"].notna() & (row % 2 == 1), c.base + row, NAN)), "x_segment": words(["Small", "Middle", "Large"], np.digitize(staff, [40, 250])[row])}


def contact_records(c: Company, rng, leads: SimpleNamespace, accounts: SimpleNamespace, contacts: SimpleNamespace) -> dict:
    """Versions of contacts: those of converted leads keep name and address; some refuse mails later, change their title or leave."""
    n, all_ = contacts.n, np.ones(contacts.n, dtype=bool)
    gone = np.floor(np.where(_some(rng, n, .008), contacts.born + rng.exponential(300 * DAY, n), NEVER))
    story = Story(gone)
    title, phone = rng.integers(0, len(w.TITLES), n), _some(rng, n, .7)
    story.add(all_, contacts.born, final=True, title=title, mute=0, silent=0, phone=phone, gone=NAN)
    for share, values in ((.06, {"title": rng.integers(0, len(w.TITLES), n)}), (.07, {"mute": 1}), (.03, {"silent": 1}), (.15, {"phone": True})):
        story.add(_some(rng, n, share), contacts.born + rng.exponential(250 * DAY, n), **values)
    story.add(all_, gone, final=True, gone=gone)
    row, at, v = story.versions(LAST)
    twin = np.where(_some(rng, n, .012) & (contacts.lead < 0), np.maximum(np.arange(n) - 1, 0), np.arange(n))
    number = np.where(contacts.lead >= 0, c.base + contacts.lead, c.base + 500_000 + np.arange(n))
    who = w.people(rng, number, accounts.firm[contacts.account], _some(rng, n, .08))
    place = (contacts.account * 7) % len(w.PLACES)
    return _stamps(c.base, "c", row, at) | {
        "name": either(_some(rng, n, .005), words(w.PLACEHOLDER, rng.integers(0, 6, n)), who["name"].take(twin)).take(row), "email": _mails(rng, who["email"].take(twin), .08).take(row),
        "phone": either(v["phone"] > 0, who["phone"].take(row), None), "title": words(w.variants([t[0] for t in w.TITLES]), v["title"].to_numpy() + len(w.TITLES) * _some(rng, n, .01)[row]),
        "account_id": _references(rng, "a", c.base + contacts.account + 1).take(row), "owner_id": keys("u", accounts.owner[contacts.account] + 1).take(row), "country": words(w.COUNTRIES, place[row]), "city": words(w.CITIES, place[row]),
        "do_not_email": flags(v["mute"]), "do_not_call": flags(v["silent"]), "created_at": times(_future(contacts.born)[row]), "deleted_at": times(v["gone"]),
        "merged_into": keys("c", np.where(v["gone"].notna() & (row % 2 == 1), c.base + row, NAN))}


def _close_dates(rng, deals: SimpleNamespace, story: Story) -> np.ndarray:
    """Plan the close, and move it while the deal is open and its owner still cares; the last plan of each deal."""
    n = deals.n
    plan = w.workday(deals.born + (25 + rng.gamma(2.5, 26, n)) * DAY)
    careful = rng.random(n) > .06
    first = np.where(careful, plan, NAN)
    for _ in range(12):
        careful &= rng.random(n) > .08
        at = plan + rng.normal(-1, 4, n) * DAY
        moves = careful & (at < deals.until) & (at > deals.born)
        plan = np.where(moves, w.workday(plan + rng.choice([14, 30, 30, 61, 91], n) * DAY), plan)
        story.add(moves, at, plan=plan)
    return first


def deal_records(c: Company, rng, deals: SimpleNamespace, leads: SimpleNamespace, accounts: SimpleNamespace, primary: np.ndarray) -> dict:
    """Versions of deals: stages, amounts, slipped dates, hand-overs, a rival named, the close."""
    n, all_ = deals.n, np.ones(deals.n, dtype=bool)
    story, later = Story(deals.until), Story(deals.until)
    first = _close_dates(rng, deals, later)
    typo = np.where(_some(rng, n, .0015), 1000, 1)
    amount = np.where(_some(rng, n, .06), NAN, np.round(deals.amount, -1))
    story.add(all_, deals.born, final=True, stage=0, owner=np.where(_some(rng, n, .02), NAN, deals.owner), amount=amount * typo, plan=first,
              step=np.where(_some(rng, n, .5), rng.integers(0, 6, n), NAN), rival=NAN, review=0, discount=NAN, outcome=NAN, closed=NAN, gone=NAN, reason=NAN)
    story.parts += later.parts
    stuck, cut = _some(rng, n, .006), np.round(np.clip(rng.normal(.07, .06, n), 0, .3), 2)
    offer = np.round(deals.amount * np.exp(rng.normal(0, .15, n)), -1)
    story.add(all_, deals.enter[:, 1], stage=1, step=rng.integers(0, 6, n))
    story.add(deals.rival >= 0, np.where(deals.enter[:, 1] < NEVER, deals.enter[:, 1] + rng.exponential(20 * DAY, n), NEVER), rival=deals.rival)
    story.add(rng.random(n) < .2 + .25 * deals.champion[:, 1], np.where(deals.enter[:, 1] < NEVER, deals.enter[:, 1] + rng.exponential(25 * DAY, n), NEVER), review=1)
    story.add(all_, deals.enter[:, 2], stage=2, amount=np.where(_some(rng, n, .02), NAN, offer * typo))
    story.add(all_, deals.enter[:, 3], stage=3, amount=np.round(offer * (1 - cut), -1) * typo, discount=cut, step=rng.integers(0, 6, n))
    story.add(deals.handed < NEVER, deals.handed, owner=deals.heir)
    closed = np.where(_some(rng, n, .003), deals.born - 20 * DAY, np.where(_some(rng, n, .003), NAN, deals.close))
    story.add(all_, deals.close, final=True, outcome=deals.won, closed=closed, plan=deals.close, reason=np.where(deals.won, NAN, np.where(deals.frozen.any(axis=1) & _some(rng, n, .6), 4, rng.integers(0, 6, n))))
    story.add(~stuck, deals.close, final=True, stage=np.where(_some(rng, n, .004), 6, np.where(deals.won, 4, 5)))
    story.add(deals.won, deals.close, final=True, amount=np.where(_some(rng, n, .008), NAN, np.round(offer * (1 - cut), -1)))  # the invoice puts a slipped comma right
    story.add(all_, deals.gone, final=True, gone=deals.gone)
    row, at, v = story.versions(LAST)
    money = np.where(accounts.lead[deals.account] % 5 > 1, 0, rng.integers(0, 4, n))
    deals.money, deals.offer = money, offer
    campaign = np.where(deals.lead >= 0, leads.campaign[deals.lead], -1)
    old = np.searchsorted(np.sort(deals.account * 2.0**33 + np.where(deals.won, deals.close, 2.0**32)), deals.account * 2.0**33 + deals.born) > np.searchsorted(np.sort(deals.account), deals.account)
    source = np.where(deals.lead >= 0, leads.source[deals.lead], np.where(_some(rng, n, .6), 4, 3))
    score = np.where(rng.random(n) < np.where(deals.close < NEVER, .7, .05), np.clip(np.round(4 + 3.5 * deals.won - 1.5 * (deals.close < NEVER) + rng.normal(0, 1.3, n)), 1, 10), NAN)
    title = pc.binary_join_element_wise(w.companies(accounts.firm[deals.account])[0], words([p[1] for p in w.PRODUCTS], deals.product), " – ")
    return _stamps(c.base, "d", row, at) | {
        "name": either(_some(rng, n, .004), words(w.PLACEHOLDER, rng.integers(0, 6, n)), title).take(row), "account_id": either(_some(rng, n, .015), None, _references(rng, "a", c.base + deals.account + 1)).take(row),
        "contact_id": keys("c", np.where(_some(rng, n, .9), c.base + primary[deals.account] + 1, -1)[row]), "owner_id": keys("u", v["owner"].to_numpy() + 1), "campaign_id": keys("k", np.where(campaign >= 0, campaign + 1, -1)[row]),
        "source_lead_id": keys("l", np.where(deals.lead >= 0, c.base + deals.lead + 1, -1)[row]), "product_id": keys("p", deals.product[row] + 1), "pipeline": words(["Sales"], np.zeros(len(row))), "stage": words(STAGES, v["stage"].to_numpy()),
        "kind": words(["new business", "renewal", "expansion"], np.where(old, 1 + _some(rng, n, .4), 0)[row]), "source": words([s[0] for s in w.SOURCES], source[row]), "amount": numbers(v["amount"].to_numpy() / WORTH[money[row]]),
        "currency": words(CURRENCIES, np.where(_some(rng, n, .008), -1, money)[row]), "close_on": days(v["plan"]), "next_step": words(w.STEPS, v["step"].to_numpy()), "competitor": words(w.COMPETITORS, v["rival"].to_numpy()),
        "created_at": times(_future(deals.born)[row]), "is_won": flags(v["outcome"]), "closed_at": times(v["closed"]), "lost_reason": words(w.LOST, v["reason"].to_numpy()), "deleted_at": times(v["gone"]),
        "x_security_review": flags(v["review"]), "x_discount_share": numbers(v["discount"].to_numpy()), "x_exit_score": numbers(score[row], 0)}


def deal_parts(c: Company, rng, deals: SimpleNamespace, contacts: SimpleNamespace, primary: np.ndarray) -> tuple[dict, dict]:
    """Line items from the proposal on, and the people of each deal with their parts in it."""
    count = np.where((deals.enter[:, 2] < deals.until) & (deals.enter[:, 2] <= LAST), 1 + rng.poisson(.7, deals.n), 0)
    row = np.repeat(np.arange(deals.n), count)
    main = np.append(True, row[1:] != row[:-1])[: len(row)]
    product = np.where(main, deals.product[row], rng.integers(0, len(w.PRODUCTS), len(row)))
    price = np.array([p[2] for p in w.PRODUCTS])[product]
    quantity = np.where(main, np.maximum(np.round(deals.offer[row] / price * .8), 1), rng.integers(1, 4, len(row)))
    items = _stamps(c.base, "i", np.arange(len(row)), deals.enter[row, 2]) | {
        "deal_id": keys("d", c.base + row + 1), "product_id": _references(rng, "p", product + 1, .004), "quantity": numbers(quantity, 0), "amount": numbers(price * quantity / WORTH[deals.money[row]]), "currency": words(CURRENCIES, deals.money[row])}
    second = np.append(contacts.account[1:] == contacts.account[:-1], False)  # contacts beyond the first follow in blocks by account
    follower = np.full(deals.account.max() + 1, -1)
    others = np.flatnonzero(second & (contacts.account <= deals.account.max()))
    follower[contacts.account[others]] = others
    extra = np.flatnonzero((follower[deals.account] >= 0) & (contacts.born[follower[deals.account]] < deals.born))
    deal = np.concatenate([np.arange(deals.n), extra])
    person = np.concatenate([primary[deals.account], follower[deals.account[extra]]])
    backed = deals.champion[deal, 0] & (rng.random(len(deal)) < .55) | (rng.random(len(deal)) < .12)
    role = np.where(backed, 1, rng.choice([0, 2, 3], len(deal)))
    return items, _stamps(c.base, "r", np.arange(len(deal)), deals.born[deal]) | {
        "deal_id": keys("d", c.base + deal + 1), "contact_id": keys("c", c.base + person + 1), "role": words(["Decision maker", "Champion", "User", "Purchasing"], role)}


def memberships(c: Company, rng, leads: SimpleNamespace) -> dict:
    """Members of campaigns: the leads that came through one, and others that were written to later."""
    row = np.concatenate([np.flatnonzero(leads.campaign >= 0), np.flatnonzero(_some(rng, leads.n, .3))])
    came = np.arange(len(row)) < (leads.campaign >= 0).sum()
    later = leads.born[row] + rng.exponential(60 * DAY, len(row))
    sent = np.floor(np.where(came, leads.born[row], later))
    campaign = np.where(came, leads.campaign[row], np.clip(np.searchsorted(c.campaigns, sent, side="right") - 1, 0, None))
    kept = (sent < leads.until[row]) & (sent <= LAST)
    row, sent, campaign, came = row[kept], sent[kept], campaign[kept], came[kept]
    story = Story(np.full(len(row), NEVER))
    story.add(sent > 0, sent, status=np.where(came, 2, 0))
    story.add(~came & (rng.random(len(row)) < .35), sent + rng.exponential(DAY, len(row)), status=1)
    story.add(~came & (rng.random(len(row)) < .08 * np.exp(.5 * leads.intent[row])), sent + 3 * DAY + rng.exponential(2 * DAY, len(row)), status=2)
    member, at, v = story.versions(LAST)
    return _stamps(c.base, "m", member, at) | {"campaign_id": _references(rng, "k", campaign + 1, .003).take(member), "lead_id": keys("l", c.base + row[member] + 1),
                                               "status": words(["sent", "opened", "responded"], v["status"].to_numpy()), "created_at": times(sent[member])}


def activities(c: Company, rng, work: dict, written: bool) -> dict:
    """Versions of activities: most are noted when they happened, some later; tasks, meetings and some calls are planned, then done, forgotten or called off."""
    n, kind, at = len(work["at"]), work["kind"], np.floor(work["at"])
    planned = (kind == TASK) | (rng.random(n) < np.where(kind == MEETING, .6, np.where(kind == 0, .1, 0)))
    due = np.where(planned, at + .5 * DAY + rng.exponential(6 * DAY, n), at)
    entered = np.where(planned, at, at + np.where(_some(rng, n, .07), rng.exponential(2 * DAY, n), rng.exponential(1800, n)))
    due = np.where(~planned & (at > LAST - 200 * DAY) & _some(rng, n, .004), due + 366 * DAY, due)  # the wrong year
    old = (work["born"] == MIGRATED) & _some(rng, n, .5) & ~planned & (at < MIGRATED + 60 * DAY)  # the old system's notes, which came over in one night
    due, entered = np.where(old, MIGRATED - (at - MIGRATED), due), np.where(old, MIGRATED, np.floor(entered))
    story = Story(np.full(n, NEVER))
    story.add(np.ones(n, dtype=bool), entered, done=~planned, gone=NAN)
    held = planned & (due < work["until"])
    story.add(held & _some(rng, n, .95), np.maximum(due + rng.exponential(7200, n), entered + 1), done=1)
    off = planned & ~held & _some(rng, n, .6)
    story.add(off, np.maximum(work["until"], entered + 1), gone=np.maximum(work["until"], entered + 1))
    row, seen, v = story.versions(LAST)
    loose = _some(rng, n, .012)
    links = {f"{e}_id": (_references(rng, e[0], np.where((work[e] >= 0) & ~loose, c.base + work[e] + 1, -1), .0008)).take(row) for e in ("lead", "contact", "deal", "account")}
    text = dict(zip(("subject", "body"), w.texts(rng, kind, work["mood"]), strict=True)) if written else {}
    minutes = np.where(kind == MEETING, rng.choice([30, 45, 60, 90], n), np.where(kind == 0, np.ceil(rng.gamma(2, 4, n)), NAN))
    return _stamps(c.base, "t", row, seen) | links | {k: t.take(row) for k, t in text.items()} | {
        "kind": words(w.KINDS, kind[row]), "direction": words(["out", "in"], work["way"][row]), "user_id": keys("u", np.where(kind == WEB, -1, work["user"] + 1)[row]), "created_at": times(_future(entered)[row]),
        "happened_at": times(due[row]), "is_done": flags(v["done"]), "duration_minutes": numbers(np.where(v["done"] > 0, minutes[row], NAN), 0), "deleted_at": times(v["gone"])}


def chunk_records(c: Company, rng, leads, accounts, contacts, deals, written: bool) -> dict[str, dict]:
    """Entity -> columns of its versions, for one chunk of the world."""
    primary = np.arange(accounts.n)  # the first contact of account i is contact i
    diary = Diary(c, rng)
    lead_work(diary, leads)
    deal_work(diary, deals, primary)
    work = diary.gathered()
    contact_of, deal_of = np.full(leads.n, -1), np.full(leads.n, -1)
    contact_of[accounts.lead[accounts.n_other:]] = c.base + np.arange(accounts.n_other, accounts.n) + 1
    deal_of[deals.lead[deals.lead >= 0]] = c.base + np.flatnonzero(deals.lead >= 0) + 1
    out = {"lead": lead_records(c, rng, leads, work, contact_of, deal_of), "account": account_records(c, rng, accounts)}
    out["contact"] = contact_records(c, rng, leads, accounts, contacts)
    out["deal"] = deal_records(c, rng, deals, leads, accounts, primary)
    out["deal_product"], out["deal_contact"] = deal_parts(c, rng, deals, contacts, primary)
    out["membership"] = memberships(c, rng, leads)
    out["activity"] = activities(c, rng, work, written)
    return out
