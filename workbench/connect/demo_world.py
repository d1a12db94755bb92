"""The demo organisation's world: hidden causes (fit, intent, curiosity, a champion, a frozen budget, skill) and what they lead to.

Arrays hold one entry a record; times are seconds since 1970, NEVER = not within this world. Outcomes are drawn from the
causes, records of work from the same causes with noise of their own: nothing that is recorded before a close knows of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from scipy.special import expit

from workbench.connect.demo_words import DAY, INDUSTRIES, KINDS, NEVER, PRODUCTS, SOURCES, TITLES, picked, workday

START, LAST = 1656633600.0, 1782863999.0  # 2022-07-01 and 2026-06-30 23:59:59
MIGRATED = START + 94 * DAY + 3 * 3600  # the night in which an older system's records came over
SEASON = np.array([1.05, 1, 1.1, 1, 1, 1.05, .78, .72, 1.12, 1.1, 1.08, .66])  # January .. December
PASS = np.array([1.55, 1.0, 1.0, 1.2])  # log-odds of passing Discovery, Qualification, Proposal, Negotiation
CALL, EMAIL, MEETING, TASK, NOTE, WEB = range(len(KINDS))
OUTBOUND = ([CALL, EMAIL, TASK, NOTE], [.33, .5, .12, .05])
CAMPAIGNS = ("Webinar", "Event", "E-mail campaign")


@dataclass
class Company:
    """Who sells: hired, left, skill and effort of each user; campaigns; `busy` scales the number of activities; `base` numbers records."""

    hired: np.ndarray
    left: np.ndarray
    skill: np.ndarray
    effort: np.ndarray
    campaigns: np.ndarray  # start of each; kinds take turns
    busy: float
    base: int = 0

    def owners(self, rng: np.random.Generator, at: np.ndarray) -> np.ndarray:
        """A user each, employed at `at`."""
        who = rng.integers(0, len(self.left), len(at))
        for _ in range(8):
            wrong = (self.hired[who] > at) | (self.left[who] <= at)
            who[wrong] = rng.integers(0, len(self.left), int(wrong.sum()))
        return np.where((self.hired[who] > at) | (self.left[who] <= at), 0, who)

    def handover(self, rng: np.random.Generator, owner: np.ndarray, until: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """When a record changes hands (its owner leaves; some are forgotten then; a few swap for no reason), and to whom."""
        n, gone = len(owner), self.left[owner]
        swap = np.where(rng.random(n) < .06, until - rng.exponential(60 * DAY, n), NEVER)
        at = np.where((gone < until) & (rng.random(n) > .2), gone + rng.random(n) * 12 * DAY, np.where(swap > START, swap, NEVER))
        return at, self.owners(rng, np.minimum(at, LAST))


def make_company(rng: np.random.Generator, users: int, busy: float) -> Company:
    """Users come and go over the 48 months; the first one stays, the second has just left."""
    hired = np.where(rng.random(users) < .6, START, START + rng.random(users) * 1200 * DAY)
    left = np.where(rng.random(users) < .25, hired + (200 + rng.exponential(600, users)) * DAY, NEVER)
    hired[:3], left[0], left[1] = START, NEVER, LAST - 25 * DAY
    return Company(hired, np.where(left < LAST, np.floor(left), NEVER), rng.normal(0, .4, users), np.exp(rng.normal(0, .3, users)), START + np.arange(48) * 30.4 * DAY, busy)


def moments(rng: np.random.Generator, n: int) -> np.ndarray:
    """`n` instants of office hours in order: growth over the 48 months, dips in summer and December."""
    day = np.arange(1461)
    month = (np.datetime64("2022-07-01") + day).astype("datetime64[M]").astype(int) % 12
    weight = np.exp(.018 * day / 30.4) * SEASON[month] * np.where((day + 4) % 7 >= 5, .12, 1)  # 2022-07-01 was a Friday
    chosen = np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random(n))
    return np.sort(np.floor(START + chosen * DAY + np.clip(rng.normal(11.5, 2.8, n), 6, 20) * 3600))


def _gamma(rng: np.random.Generator, shape: float, mean_days, n) -> np.ndarray:
    return rng.gamma(shape, 1, n) * mean_days / shape * DAY


def make_leads(c: Company, rng: np.random.Generator, n: int) -> SimpleNamespace:
    """Leads: a project awakes in some (wake), of which some buy; others only look around (curious); a few are entered twice."""
    born, row = moments(rng, n), np.arange(n)
    born[: 2 * max(60, n // 40): 2] = MIGRATED
    twin = np.where((rng.random(n) < .03) & (born > MIGRATED), (rng.random(n) * row).astype(int), row)
    again = born[twin] + rng.exponential(25 * DAY, n)
    twin = np.where(again < LAST, twin, row)
    copy = twin != row
    born, person = np.where(copy, again, born), twin[twin]
    fit, intent, curious = rng.normal(size=n)[person], rng.normal(size=n)[person], (rng.random(n) < .25)[person]
    owner = c.owners(rng, born)
    buys = rng.random(n) < expit(-1.75 + .8 * fit + .8 * intent - 1.3 * curious + c.skill[owner] - 3 * copy)
    project = buys | (rng.random(n) < .25)
    wake = np.where(project, born + rng.exponential(30 * DAY, n) * np.exp(-.3 * intent), NEVER)
    close = np.where(buys, wake + _gamma(rng, 2, 30, n), np.where(project, wake + _gamma(rng, 2.2, 65, n), born + 8 * DAY + _gamma(rng, 1.2, 70, n)))
    worked = close
    close = np.where((rng.random(n) < .04) & ~buys, np.where(rng.random(n) < .3, NEVER, close + rng.gamma(2, 90, n) * DAY), close)  # forgotten for long
    close = workday(close)
    gone = np.where(rng.random(n) < .007, born + rng.exponential(60 * DAY, n), NEVER)
    merged = copy & (rng.random(n) < .45)
    gone = np.floor(np.where(merged, born + DAY + rng.exponential(30 * DAY, n), gone))
    close = np.floor(np.where((gone < close) | (close > LAST), NEVER, close))
    until = np.minimum(close, gone)
    handed, heir = c.handover(rng, owner, until)
    source = picked(rng, SOURCES, fit, intent)
    judged = .5 * fit + .4 * intent + rng.normal(0, .8, n)  # what the rep makes of it
    won = buys & (close < NEVER)
    return SimpleNamespace(n=n, born=born, person=person, copy=copy, fit=fit, intent=intent, curious=curious, owner=owner, wake=wake, close=close, gone=gone, until=until, worked=np.minimum(worked, until),
                           won=won, merged=np.where(merged, twin, -1), handed=handed, heir=heir, source=source, title=picked(rng, TITLES, fit[person], intent[person]),
                           industry=picked(rng, INDUSTRIES, fit, intent), judged=judged, deal=won & (rng.random(n) < .75))


def make_accounts(c: Company, rng: np.random.Generator, leads: SimpleNamespace, n: int) -> tuple[SimpleNamespace, SimpleNamespace]:
    """`n` accounts won by other ways than leads, then one for each converted lead; contacts, of which `primary` is the account's first."""
    bought = np.flatnonzero(leads.won)
    born = moments(rng, n)
    born[: max(1, n // 3)] = np.floor(START + rng.random(max(1, n // 3)) * 5 * 3600)
    born = np.concatenate([np.sort(born), leads.close[bought]])
    fit = np.concatenate([rng.normal(.1, 1, n), leads.fit[bought]])
    lead = np.concatenate([np.full(n, -1), bought])
    industry = np.where(lead < 0, picked(rng, INDUSTRIES, fit, np.zeros(len(fit))), leads.industry[lead])
    more = rng.poisson(np.where(rng.random(len(born)) < .15, 2.5, .8))
    owner_account = np.concatenate([np.arange(len(born)), np.repeat(np.arange(len(born)), more)])
    first = np.arange(len(owner_account)) < len(born)
    met = born[owner_account] + np.where(first, 0, np.floor(rng.exponential(90 * DAY, len(owner_account))))
    kept = met <= LAST
    contacts = SimpleNamespace(account=owner_account[kept], born=met[kept], lead=np.where(first, lead[owner_account], -1)[kept], n=int(kept.sum()))
    owner = np.where(lead < 0, c.owners(rng, born), leads.owner[lead])
    handed, heir = c.handover(rng, owner, np.full(len(born), LAST))
    return SimpleNamespace(n=len(born), n_other=n, born=born, fit=fit, lead=lead, industry=industry, owner=owner, handed=handed, heir=heir), contacts


def make_deals(c: Company, rng: np.random.Generator, leads: SimpleNamespace, accounts: SimpleNamespace, n: int) -> SimpleNamespace:
    """Deals of converted leads and of known accounts: four stages to pass, each the harder without a champion or with a frozen budget."""
    lead = np.flatnonzero(leads.deal)[: int(.6 * n)]
    born = moments(rng, n - len(lead))
    born[: 2 * max(60, n // 25): 2] = MIGRATED
    known = np.searchsorted(accounts.born[: accounts.n_other], born)
    account = np.concatenate([np.searchsorted(accounts.lead[accounts.n_other:], lead) + accounts.n_other, (rng.random(len(born)) * np.maximum(known, 1)).astype(int)])
    lead, born = np.concatenate([lead, np.full(len(born), -1)]), np.concatenate([leads.close[lead], born])
    order = np.argsort(born, kind="stable")
    lead, born, account = lead[order], born[order], account[order]
    fit, stage = accounts.fit[account], np.arange(4)
    owner = np.where(lead >= 0, leads.owner[lead], c.owners(rng, born))
    owner = np.where(c.left[owner] <= born, c.owners(rng, born), owner)
    quits = np.where(rng.random(n) < .22, rng.integers(1, 4, n), 9)  # the stage from which on the champion is gone
    champion = (rng.random(n) < expit(.1 + .5 * fit))[:, None] & (stage < quits[:, None])
    frozen = stage >= np.where(rng.random(n) < .2, rng.integers(0, 4, n), 9)[:, None]
    rival = np.where(rng.random(n) < .3, rng.integers(0, 3, n), -1)
    ease = .45 * fit + .8 * c.skill[owner] - .45 * (rival >= 0)
    passed = rng.random((n, 4)) < expit(PASS + ease[:, None] + 1.1 * (champion - .5) - 1.5 * frozen)
    slow = np.exp(.5 * frozen - .15 * champion) * np.exp(rng.normal(0, .5, n))[:, None]
    spent = np.where(passed, _gamma(rng, 1.8, np.array([12, 15, 19, 15]) * slow, (n, 4)), 4 * DAY + _gamma(rng, 1.4, np.array([28, 34, 38, 34]) * slow, (n, 4)))
    enter = np.floor(born[:, None] + np.cumsum(spent, axis=1) - spent)
    lost_at = np.where(passed.all(axis=1), 3, np.argmin(passed, axis=1))
    won, close = passed.all(axis=1), workday((enter + spent)[np.arange(n), lost_at])
    close = _quarter_end(rng, close, np.where(won, .4, .12))
    worked, forgotten = close, (rng.random(n) < .06) & ~won  # lost, but nobody says so until somebody cleans up
    close = np.where(forgotten, np.where(rng.random(n) < .25, NEVER, workday(close + rng.gamma(2, 70, n) * DAY)), close)
    gone = np.floor(np.where(rng.random(n) < .006, born + rng.exponential(60 * DAY, n), NEVER))
    close = np.floor(np.where((gone < close) | (close > LAST), NEVER, close))
    until = np.minimum(close, gone)
    enter = np.where(stage <= lost_at[:, None], enter, NEVER)
    handed, heir = c.handover(rng, owner, until)
    product = rng.integers(0, len(PRODUCTS), n)
    amount = np.array([p[2] for p in PRODUCTS])[product] * np.ceil(np.exp(rng.normal(1.3 + .15 * fit, .6, n)))
    return SimpleNamespace(n=n, lead=lead, born=born, account=account, fit=fit, owner=owner, champion=champion, frozen=frozen, rival=rival, enter=enter, close=close, gone=gone,
                           until=until, won=won & (close < NEVER), handed=handed, heir=heir, product=product, amount=amount, worked=np.minimum(worked, until))


def _quarter_end(rng: np.random.Generator, at: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Some closes wait for the last days of the quarter, when everybody hurries."""
    month = at.clip(0, 2 * LAST).astype("datetime64[s]").astype("datetime64[M]")
    end = ((month + 3 - month.astype(int) % 3).astype("datetime64[s]").astype(float)) - rng.random(len(at)) * 6 * DAY
    return np.where((end > at) & (end - at < 40 * DAY) & (rng.random(len(at)) < share), end, at)


class Diary:
    """Activities on their way: spread over stretches of time at a rate that knows the causes, not the outcome."""

    def __init__(self, c: Company, rng: np.random.Generator):
        self.c, self.rng, self.parts = c, rng, []

    def spread(self, who: dict[str, np.ndarray], start: np.ndarray, stop: np.ndarray, rate: np.ndarray, kinds: tuple[list, list], direction: int, reply=None) -> None:
        """Poisson in [start, stop) at `rate` a day and record; `who` holds arrays by record; direction 0 out, 1 in, -1 none; reply = chance of an answer."""
        rng, stop = self.rng, np.minimum(stop, np.minimum(who["until"], LAST))
        width = np.maximum(stop - start, 0)
        row = np.repeat(np.arange(len(width)), rng.poisson(width / DAY * rate * self.c.busy))
        self._note(who, row, start[row] + rng.random(len(row)) * width[row], rng.choice(kinds[0], len(row), p=kinds[1]), direction)
        if reply is not None:
            kind, at = self.parts[-1]["kind"], self.parts[-1]["at"]
            answered = (kind <= EMAIL) & (rng.random(len(row)) < reply[row])
            self._note(who, row[answered], at[answered] + rng.exponential(1.5 * DAY, int(answered.sum())), np.where(rng.random(int(answered.sum())) < .75, EMAIL, CALL), 1)

    def _note(self, who: dict, row: np.ndarray, at: np.ndarray, kind: np.ndarray, direction: int) -> None:
        way = np.where(kind == WEB, 1, np.where(kind >= MEETING, -1, direction))
        user = np.where(at >= who["handed"][row], who["heir"][row], who["owner"][row])
        self.parts.append({k: who[k][row] for k in ("lead", "deal", "contact", "account", "mood", "until", "born")} | {"at": at, "kind": kind, "way": way, "user": user})

    def gathered(self) -> dict[str, np.ndarray]:
        """All of them in order of time, moved to working days; what would come after its record's close did not happen."""
        out = {k: np.concatenate([p[k] for p in self.parts]) for k in self.parts[0]}
        out["at"] = np.where(out["kind"] == WEB, out["at"], workday(out["at"]))
        kept = np.flatnonzero((out["at"] < out["until"]) & (out["at"] <= LAST))
        kept = kept[np.argsort(out["at"][kept], kind="stable")]
        return {k: v[kept] for k, v in out.items()}


def lead_work(diary: Diary, leads: SimpleNamespace) -> None:
    """Work on leads: a cadence of calls and mails at first, little then, more once a project awakes; the curious read a lot."""
    rng, n, none = diary.rng, leads.n, np.full(leads.n, -1)
    noise = rng.normal(0, .45, (3, n))
    who = {"lead": np.arange(n), "deal": none, "contact": none, "account": none, "mood": .5 * leads.intent + .3 * leads.fit - .6 * leads.curious, "until": leads.worked, "born": leads.born,
           "owner": leads.owner, "heir": leads.heir, "handed": leads.handed}
    push = diary.c.effort[leads.owner] * np.exp(.25 * leads.judged + noise[0])
    keen, look = np.exp(.45 * leads.intent - .3 * leads.curious + noise[1]), np.exp(.35 * leads.intent + .6 * leads.curious + noise[2])
    reply = expit(-1.5 + .5 * leads.intent + .3 * leads.fit + noise[1])
    wake = np.maximum(leads.wake, leads.born)
    for start, stop, out, come, meet, web in ((leads.born, np.minimum(leads.born + 12 * DAY, wake), .22, .03, .003, .05), (leads.born + 12 * DAY, wake, .04, .006, .002, .012),
                                              (wake, wake + 45 * DAY, .11, .05, .03, .07), (wake + 45 * DAY, np.full(n, NEVER), .035, .008, .004, .012)):
        diary.spread(who, start, stop, out * push, OUTBOUND, 0, reply)
        diary.spread(who, start, stop, come * keen, ([CALL, EMAIL], [.3, .7]), 1)
        diary.spread(who, start, stop, meet * keen * np.exp(.3 * leads.judged), ([MEETING], [1]), -1)
        diary.spread(who, start, stop, web * look, ([WEB], [1]), 1)
    late = who | {"until": np.where(leads.close < NEVER, leads.close + 60 * DAY, 0)}  # a closed lead still looks in at times
    diary.spread(late, leads.close, leads.close + 60 * DAY, .006 * look, ([WEB], [1]), 1)


def deal_work(diary: Diary, deals: SimpleNamespace, primary: np.ndarray) -> None:
    """Work on deals, stage by stage: a champion answers and meets, a frozen budget makes silent."""
    rng, n = diary.rng, deals.n
    noise = rng.normal(0, .4, (2, n))
    for s in range(4):
        champion, frozen = deals.champion[:, s], deals.frozen[:, s]
        who = {"lead": np.full(n, -1), "deal": np.arange(n), "contact": primary[deals.account], "account": deals.account, "mood": .6 * champion - .9 * frozen + .3 * deals.fit, "until": deals.worked, "born": deals.born,
               "owner": deals.owner, "heir": deals.heir, "handed": deals.handed}
        start, stop = deals.enter[:, s], deals.enter[:, s + 1] if s < 3 else np.full(n, NEVER)
        warm = np.exp(.5 * champion - .7 * frozen + .2 * deals.fit + noise[0])
        diary.spread(who, start, stop, .15 * diary.c.effort[deals.owner] * np.exp(noise[1] - .2 * frozen), OUTBOUND, 0, expit(-1.3 + .7 * champion - .9 * frozen + noise[0]))
        diary.spread(who, start, stop, .05 * warm, ([CALL, EMAIL], [.3, .7]), 1)
        diary.spread(who, start, stop, .028 * warm, ([MEETING], [1]), -1)
        diary.spread(who, start, stop, .02 * warm, ([WEB], [1]), 1)
