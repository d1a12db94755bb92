"""The demo organisation's world: hidden causes (fit, intent, curiosity, a champion, a frozen budget, skill) and what they lead to.

Arrays hold one entry a record; times are seconds since 1970, NEVER = not within this world. Outcomes are drawn from the
causes, records of work from the same causes with noise of their own: nothing that is recorded before a close knows of it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from types import SimpleNamespace

import numpy as np
from scipy.special import expit

DAY, NEVER, NAN = 86400.0, 2.0**40, np.nan
START, LAST = 1656633600.0, 1782863999.0  # 2022-07-01 and 2026-06-30 23:59:59
MIGRATED = START + 94 * DAY + 3 * 3600  # the night in which an older system's records came over
SEASON = np.array([1.05, 1, 1.1, 1, 1, 1.05, .78, .72, 1.12, 1.1, 1.08, .66])  # January .. December
PASS = np.array([1.55, 1.0, 1.0, 1.2])  # log-odds of passing Discovery, Qualification, Proposal, Negotiation
PRICES = np.outer([2400, 5200, 900, 3600], [1, 2, 4]).ravel().astype(float)
CALL, EMAIL, MEETING, TASK, NOTE, WEB = range(6)
OUTBOUND, INBOUND, MEET, LOOK = ([CALL, EMAIL, TASK, NOTE], [.33, .5, .12, .05]), ([CALL, EMAIL], [.3, .7]), ([MEETING], [1]), ([WEB], [1])
# [word, weight, what it owes to fit, to intent]
SOURCES, TITLES, INDUSTRIES = tomllib.loads(resources.files("workbench.connect").joinpath("demo.toml").read_text(encoding="utf-8")).values()


@dataclass
class Company:
    """Who sells: hired, left, skill and effort of each user; `busy` scales the number of activities; `base` numbers a chunk's records."""

    hired: np.ndarray
    left: np.ndarray
    skill: np.ndarray
    effort: np.ndarray
    busy: float
    base: int = 0
    campaigns = START + np.arange(48) * 30.4 * DAY  # the start of each; number k is of kind k % 3: webinar, event, e-mail

    def owners(self, rng: np.random.Generator, at: np.ndarray) -> np.ndarray:
        """A user each, employed at `at`."""
        who = rng.integers(0, len(self.left), len(at))
        for _ in range(8):
            wrong = (self.hired[who] > at) | (self.left[who] <= at)
            who[wrong] = rng.integers(0, len(self.left), int(wrong.sum()))
        return np.where((self.hired[who] > at) | (self.left[who] <= at), 0, who)

    def handover(self, rng: np.random.Generator, owner: np.ndarray, born: np.ndarray, until: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """When a record changes hands (its owner leaves; some are forgotten then; a few swap for no reason), and to whom."""
        n, gone = len(owner), self.left[owner]
        swap = np.where(rng.random(n) < .06, until - rng.exponential(60 * DAY, n), NEVER)
        at = np.where((gone < until) & (rng.random(n) > .2), gone + rng.random(n) * 12 * DAY, np.where(swap > born, swap, NEVER))
        return at, self.owners(rng, np.minimum(at, LAST))

    def running(self, at: np.ndarray) -> np.ndarray:
        """The number of the latest campaign at `at`, from 1."""
        return np.clip(np.searchsorted(self.campaigns, at, side="right"), 1, None)


def make_company(rng: np.random.Generator, users: int, busy: float) -> Company:
    """Users come and go over the 48 months; the first one stays, the second has just left."""
    hired = np.where(rng.random(users) < .6, START, np.floor(START + rng.random(users) * 1200 * DAY))
    left = np.where(rng.random(users) < .25, hired + (200 + rng.exponential(600, users)) * DAY, NEVER)
    hired[:3], left[0], left[1] = START, NEVER, LAST - 25 * DAY
    return Company(hired, np.where(left < LAST, np.floor(left), NEVER), rng.normal(0, .4, users), np.exp(rng.normal(0, .3, users)), busy)


def workday(at: np.ndarray) -> np.ndarray:
    """Times moved out of the night, and from a weekend to the Monday after it."""
    at = at + np.where(at % DAY < 7 * 3600, 7 * 3600, np.where(at % DAY > 20 * 3600, 12 * 3600, 0)) * (at < NEVER)
    weekday = (at // DAY + 3) % 7  # 1970-01-01 was a Thursday
    return at + np.where((weekday >= 5) & (at < NEVER), (7 - weekday) * DAY, 0)


def moments(rng: np.random.Generator, n: int, migrated: int = 0) -> np.ndarray:
    """`n` instants of office hours: growth over the 48 months, dips in summer and December; `migrated` of the early ones came over in one night."""
    day = np.arange(1461)
    month = (np.datetime64("2022-07-01") + day).astype("datetime64[M]").astype(int) % 12
    weight = np.exp(.018 * day / 30.4) * SEASON[month] * np.where((day + 4) % 7 >= 5, .12, 1)  # 2022-07-01 was a Friday
    chosen = np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random(n))
    born = np.sort(np.floor(START + chosen * DAY + np.clip(rng.normal(11.5, 2.8, n), 6, 20) * 3600))
    born[: 2 * migrated: 2] = MIGRATED
    return born


def _gamma(rng: np.random.Generator, shape: float, mean_days, n) -> np.ndarray:
    return rng.gamma(shape, 1, n) * mean_days / shape * DAY


def _picked(rng: np.random.Generator, table: list[tuple], fit: np.ndarray, intent: np.ndarray) -> np.ndarray:
    """Row numbers of `table`, drawn by a softmax: a weak sign of fit and intent."""
    weight, a, b = np.array([row[1:] for row in table]).T
    score = np.log(weight) + np.outer(fit, a) + np.outer(intent, b)
    return np.argmax(score + rng.gumbel(size=score.shape), axis=1)


def make_leads(c: Company, rng: np.random.Generator, n: int) -> SimpleNamespace:
    """Leads: a project awakes in some (wake), of which some buy; others only look around (curious); a few are entered twice."""
    born, row = moments(rng, n, max(60, n // 40)), np.arange(n)
    twin = np.where((rng.random(n) < .03) & (born > MIGRATED), (rng.random(n) * row).astype(int), row)
    again = born[twin] + rng.exponential(25 * DAY, n)
    twin = np.where(again < LAST, twin, row)
    copy, person = twin != row, twin[twin]
    born = np.floor(np.where(copy, again, born))
    fit, intent, curious = rng.normal(size=n)[person], rng.normal(size=n)[person], (rng.random(n) < .25)[person]
    owner = c.owners(rng, born)
    buys = rng.random(n) < expit(-1.7 + .7 * fit + .75 * intent - 1.3 * curious + c.skill[owner] - 3 * copy)
    project = buys | (rng.random(n) < .25)
    wake = np.where(project, born + rng.exponential(30 * DAY, n) * np.exp(-.3 * intent), NEVER)
    worked = np.where(buys, wake + _gamma(rng, 2, 30, n), np.where(project, wake + _gamma(rng, 2.2, 65, n), born + 8 * DAY + _gamma(rng, 1.2, 70, n)))
    forgotten = (rng.random(n) < .04) & ~buys  # given up, but nobody says so for long
    close = workday(np.where(forgotten, np.where(rng.random(n) < .3, NEVER, worked + rng.gamma(2, 90, n) * DAY), worked))
    merged = copy & (rng.random(n) < .45)
    gone = np.floor(np.where(merged, born + DAY + rng.exponential(30 * DAY, n), np.where(rng.random(n) < .007, born + rng.exponential(60 * DAY, n), NEVER)))
    close = np.floor(np.where((gone < close) | (close > LAST), NEVER, close))
    until, won = np.minimum(close, gone), buys & (close < NEVER)
    handed, heir = c.handover(rng, owner, born, until)
    source = _picked(rng, SOURCES, fit, intent)
    kind, latest = np.array([3, 0, 1, 3, 3, 3, 2])[source], c.running(born)
    return SimpleNamespace(
        n=n, born=born, person=person, copy=copy, fit=fit, intent=intent, curious=curious, owner=owner, wake=wake, close=close, gone=gone, until=until, worked=np.minimum(worked, until), won=won,
        merged=np.where(merged, twin, NAN), handed=handed, heir=heir, source=source, title=_picked(rng, TITLES, fit, intent)[person], industry=_picked(rng, INDUSTRIES, fit, intent)[person],
        judged=.5 * fit + .4 * intent + rng.normal(0, .8, n), deal=won & (rng.random(n) < .75), firm=c.base // 20 + 2 * person, private=fit + rng.normal(0, 1, n) < -.6,  # judged = what the seller makes of it
        campaign=np.where(kind < 3, np.maximum(latest - (latest - kind) % 3, kind + 3 * (kind == 0)), NAN))


def make_accounts(c: Company, rng: np.random.Generator, leads: SimpleNamespace, n: int) -> tuple[SimpleNamespace, SimpleNamespace]:
    """`n` accounts won by other ways than leads, then one for each converted lead; contacts, of which number i is the first of account i."""
    bought = np.flatnonzero(leads.won)
    born = moments(rng, n)
    born[: max(1, n // 3)] = np.floor(START + rng.random(max(1, n // 3)) * 5 * 3600)
    born = np.concatenate([np.sort(born), leads.close[bought]])
    fit, lead = np.concatenate([rng.normal(.1, 1, n), leads.fit[bought]]), np.concatenate([np.full(n, -1), bought])
    industry = np.where(lead < 0, _picked(rng, INDUSTRIES, fit, fit * 0), leads.industry[lead])
    account = np.append(np.arange(len(born)), np.repeat(np.arange(len(born)), rng.poisson(np.where(rng.random(len(born)) < .15, 2.5, .8))))
    first = np.arange(len(account)) < len(born)
    met = born[account] + np.where(first, 0, np.floor(rng.exponential(90 * DAY, len(account))))
    kept = met <= LAST
    owner = np.where(lead < 0, c.owners(rng, born), leads.owner[lead])
    handed, heir = c.handover(rng, owner, born, np.full(len(born), LAST))
    return (SimpleNamespace(n=len(born), n_other=n, born=born, fit=fit, lead=lead, industry=industry, owner=owner, handed=handed, heir=heir, firm=np.where(lead < 0, c.base // 20 + 2 * np.arange(len(born)) + 1, leads.firm[lead])),
            SimpleNamespace(n=int(kept.sum()), account=account[kept], born=met[kept], lead=np.where(first, lead[account], -1)[kept]))


def make_deals(c: Company, rng: np.random.Generator, leads: SimpleNamespace, accounts: SimpleNamespace, n: int) -> SimpleNamespace:
    """Deals of converted leads and of known accounts: four stages to pass, each the harder without a champion or with a frozen budget."""
    lead = np.flatnonzero(leads.deal)[: int(.6 * n)]
    born = moments(rng, n - len(lead), max(60, n // 25))
    known = np.maximum(np.searchsorted(accounts.born[: accounts.n_other], born), 1)
    account = np.append(np.searchsorted(accounts.lead[accounts.n_other:], lead) + accounts.n_other, (rng.random(len(born)) * known).astype(int))
    lead, born = np.append(lead, np.full(len(born), -1)), np.append(leads.close[lead], born)
    order = np.argsort(born, kind="stable")
    lead, born, account = lead[order], born[order], account[order]
    fit, stage = accounts.fit[account], np.arange(4)
    owner = np.where(lead >= 0, leads.owner[lead], c.owners(rng, born))
    owner = np.where(c.left[owner] <= born, c.owners(rng, born), owner)
    quits = np.where(rng.random(n) < .22, rng.integers(1, 4, n), 9)  # the stage from which on the champion is gone
    champion = (rng.random(n) < expit(.1 + .5 * fit))[:, None] & (stage < quits[:, None])
    frozen = stage >= np.where(rng.random(n) < .2, rng.integers(0, 4, n), 9)[:, None]
    rival = np.where(rng.random(n) < .3, rng.integers(0, 3, n), -1)
    ease = .4 * fit + .6 * c.skill[owner] - .45 * (rival >= 0)
    passed = rng.random((n, 4)) < expit(PASS + ease[:, None] + (champion - .5) - 1.2 * frozen)
    slow = np.exp(.5 * frozen - .15 * champion) * np.exp(rng.normal(0, .5, n))[:, None]
    spent = np.where(passed, _gamma(rng, 1.8, np.array([12, 15, 19, 15]) * slow, (n, 4)), 4 * DAY + _gamma(rng, 1.4, np.array([28, 34, 38, 34]) * slow, (n, 4)))
    enter, won = np.floor(born[:, None] + np.cumsum(spent, axis=1) - spent), passed.all(axis=1)
    last = np.where(won, 3, np.argmin(passed, axis=1))
    worked = _quarter_end(rng, workday((enter + spent)[np.arange(n), last]), np.where(won, .4, .12))
    forgotten = (rng.random(n) < .06) & ~won  # lost, but nobody says so until somebody cleans up
    close = np.where(forgotten, np.where(rng.random(n) < .25, NEVER, workday(worked + rng.gamma(2, 70, n) * DAY)), worked)
    gone = np.floor(np.where(rng.random(n) < .006, born + rng.exponential(60 * DAY, n), NEVER))
    close = np.floor(np.where((gone < close) | (close > LAST), NEVER, close))
    until, won = np.minimum(close, gone), won & (close < NEVER)
    handed, heir = c.handover(rng, owner, born, until)
    product = rng.integers(0, len(PRICES), n)
    amount = PRICES[product] * np.ceil(np.exp(rng.normal(1.3 + .15 * fit, .6, n)))
    before = np.sort(account * 2.0**33 + np.where(won, close, 2.0**32))
    return SimpleNamespace(
        n=n, lead=lead, born=born, account=account, fit=fit, owner=owner, champion=champion, frozen=frozen, rival=rival, enter=np.where(stage <= last[:, None], enter, NEVER), close=close, gone=gone,
        until=until, worked=np.minimum(worked, until), won=won, handed=handed, heir=heir, product=product, amount=amount, offer=np.round(amount * np.exp(rng.normal(0, .15, n)), -1), firm=accounts.firm[account],
        money=np.where(account % 5 > 1, 0, account % 4), repeat=np.searchsorted(before, account * 2.0**33 + born) > np.searchsorted(before, account * 2.0**33))  # repeat = won something here before


def _quarter_end(rng: np.random.Generator, at: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Some closes wait for the last days of the quarter, when everybody hurries."""
    month = at.clip(0, 2 * LAST).astype("datetime64[s]").astype("datetime64[M]")
    end = ((month + 3 - month.astype(int) % 3).astype("datetime64[s]").astype(float)) - rng.random(len(at)) * 6 * DAY
    return np.where((end > at) & (end - at < 40 * DAY) & (rng.random(len(at)) < share), end, at)


class Diary:
    """Activities on their way: spread over stretches of time at a rate that knows the causes, not the outcome."""

    def __init__(self, c: Company, rng: np.random.Generator):
        self.c, self.rng, self.parts = c, rng, []  # type: ignore[var-annotated]

    def spread(self, who: dict[str, np.ndarray], start: np.ndarray, stop: np.ndarray, rate: np.ndarray, kinds: tuple[list, list], *, out: bool = False, reply=None) -> None:
        """Poisson in [start, stop) at `rate` a day and record; `who` holds arrays by record; reply = chance of an answer."""
        width = np.maximum(np.minimum(stop, np.minimum(who["until"], LAST)) - start, 0)
        row = np.repeat(np.arange(len(width)), self.rng.poisson(width / DAY * rate * self.c.busy))
        kind, at = self.rng.choice(kinds[0], len(row), p=kinds[1]), start[row] + self.rng.random(len(row)) * width[row]
        user = np.where(at >= who["handed"][row], who["heir"][row], who["owner"][row])
        told = {k: who[k][row] for k in ("lead", "deal", "contact", "account", "mood", "until", "born")} | {
            "at": at, "kind": kind, "way": np.where((kind > EMAIL) & (kind < WEB), NAN, 0 if out else 1), "user": user}
        self.parts.append(told)
        if reply is not None:
            answered = np.flatnonzero((kind <= EMAIL) & (self.rng.random(len(row)) < reply[row]))
            self.parts.append({k: v[answered] for k, v in told.items()} | {
                "at": at[answered] + self.rng.exponential(1.5 * DAY, len(answered)), "kind": self.rng.choice([CALL, EMAIL], len(answered), p=[.25, .75]), "way": np.ones(len(answered))})

    def gathered(self) -> dict[str, np.ndarray]:
        """All of them in order of time, moved to working days; what would come after its record's close did not happen."""
        out = {k: np.concatenate([p[k] for p in self.parts]) for k in self.parts[0]}
        out["at"] = np.where(out["kind"] == WEB, out["at"], workday(out["at"]))
        kept = np.flatnonzero((out["at"] < out["until"]) & (out["at"] <= LAST))
        kept = kept[np.argsort(out["at"][kept], kind="stable")]
        return {k: v[kept] for k, v in out.items()}


def lead_work(diary: Diary, leads: SimpleNamespace) -> None:
    """Work on leads: a cadence of calls and mails at first, little then, more once a project awakes; the curious read a lot."""
    n, none = leads.n, np.full(leads.n, NAN)
    push, keen, look = np.exp(diary.rng.normal(0, .45, (3, n)))
    who = {"lead": np.arange(n) * 1.0, "deal": none, "contact": none, "account": none, "mood": .5 * leads.intent + .3 * leads.fit - .6 * leads.curious, "until": leads.worked, "born": leads.born,
           "owner": leads.owner, "heir": leads.heir, "handed": leads.handed}
    reply = expit(-1.5 + .5 * leads.intent + .3 * leads.fit + np.log(keen))
    push, keen, look = push * diary.c.effort[leads.owner] * np.exp(.25 * leads.judged), keen * np.exp(.45 * leads.intent - .3 * leads.curious), look * np.exp(.35 * leads.intent + .6 * leads.curious)
    wake = np.maximum(leads.wake, leads.born)
    for start, stop, out, come, meet, web in ((leads.born, np.minimum(leads.born + 12 * DAY, wake), .22, .03, .003, .05), (leads.born + 12 * DAY, wake, .04, .006, .002, .012),
                                              (wake, wake + 45 * DAY, .11, .05, .03, .07), (wake + 45 * DAY, np.full(n, NEVER), .035, .008, .004, .012)):
        diary.spread(who, start, stop, out * push, OUTBOUND, out=True, reply=reply)
        diary.spread(who, start, stop, come * keen, INBOUND)
        diary.spread(who, start, stop, meet * keen * np.exp(.3 * leads.judged), MEET)
        diary.spread(who, start, stop, web * look, LOOK)
    late = who | {"until": np.where(leads.close < NEVER, leads.close + 60 * DAY, 0)}  # a closed lead still looks in at times
    diary.spread(late, leads.close, leads.close + 60 * DAY, .006 * look, LOOK)


def deal_work(diary: Diary, deals: SimpleNamespace) -> None:
    """Work on deals, stage by stage: a champion answers and meets, a frozen budget makes silent."""
    n = deals.n
    noise = diary.rng.normal(0, .4, (2, n))
    who = {"lead": np.full(n, NAN), "deal": np.arange(n) * 1.0, "contact": deals.account * 1.0, "account": deals.account * 1.0, "until": deals.worked, "born": deals.born,
           "owner": deals.owner, "heir": deals.heir, "handed": deals.handed}
    for s in range(4):
        champion, frozen = deals.champion[:, s], deals.frozen[:, s]
        who["mood"] = .6 * champion - .9 * frozen + .3 * deals.fit
        start, stop = deals.enter[:, s], deals.enter[:, s + 1] if s < 3 else np.full(n, NEVER)
        warm = np.exp(.5 * champion - .7 * frozen + .2 * deals.fit + noise[0])
        diary.spread(who, start, stop, .15 * diary.c.effort[deals.owner] * np.exp(noise[1] - .2 * frozen), OUTBOUND, out=True, reply=expit(-1.3 + .7 * champion - .9 * frozen + noise[0]))
        diary.spread(who, start, stop, .05 * warm, INBOUND)
        diary.spread(who, start, stop, .028 * warm, MEET)
        diary.spread(who, start, stop, .02 * warm, LOOK)
