"""The demo organisation's world: hidden causes (fit, intent, curiosity, a champion, a frozen budget, skill) and what they lead to.

Arrays hold one entry a record; times are seconds since 1970, NEVER = not within this world. Outcomes are drawn from the
causes, records of work from the same causes with noise of their own: nothing that is recorded before a close knows of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from workbench.connect.demo_worlds import DAY, DAYS, INDUSTRIES, LAST, NEVER, SOURCES, START, TITLES, Life, World, season_of

NAN = np.nan
MIGRATED = START + 94 * DAY + 3 * 3600  # the night in which an older system's records came over
PASS = np.array([1.55, 1.0, 1.0, 1.2])  # log-odds of passing Discovery, Qualification, Proposal, Negotiation
PRICES = np.outer([2400, 5200, 900, 3600], [1, 2, 4]).ravel().astype(float)
CALL, EMAIL, MEETING, TASK, NOTE, WEB = range(6)
OUTBOUND, INBOUND, MEET, LOOK, TOUCH = ([CALL, EMAIL, TASK, NOTE], [.33, .5, .12, .05]), ([CALL, EMAIL], [.3, .7]), ([MEETING], [1]), ([WEB], [1]), ([WEB, EMAIL, CALL, MEETING], [.45, .32, .14, .09])


@dataclass
class Company:
    """Who sells, in which world: hired, left, skill and effort of each user; `busy` scales the activities of deals; `base` numbers a chunk's records."""

    world: World
    hired: np.ndarray
    left: np.ndarray
    skill: np.ndarray
    effort: np.ndarray
    busy: float
    level: float = 0  # log of a lead's general chance (see Life)
    base: int = 0
    planted: list | tuple = ()  # rows of table `field` for the custom fields of this world
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
        swap = np.where(rng.random(n) < .1, born + rng.exponential(90 * DAY, n), NEVER)
        at = np.where((gone < until) & (rng.random(n) > .2), gone + rng.random(n) * 12 * DAY, np.where(swap < until, swap, NEVER))
        return at, self.owners(rng, np.minimum(at, LAST))


def make_company(rng: np.random.Generator, users: int, busy: float, world: World) -> Company:
    """Users come and go over the 48 months; the first one stays, the second has just left. The level is found by trying it on 4,000 leads."""
    hired = np.where(rng.random(users) < .6, START, np.floor(START + rng.random(users) * 1200 * DAY))
    left = np.where(rng.random(users) < .25, hired + (200 + rng.exponential(600, users)) * DAY, NEVER)
    hired[:3], left[0], left[1] = START, NEVER, LAST - 25 * DAY
    c = Company(world, hired, np.where(left < LAST, np.floor(left), NEVER), rng.normal(0, 1, users) * world.skill, np.exp(rng.normal(0, .3, users)), busy)
    trial, row = _people(c, rng, 4_000), np.arange(4_000)
    ever = lambda level: trial.life.foretold(np.random.default_rng(users), row, trial.day, trial.first, 1, np.exp(level))[:, -1]  # noqa: E731
    c.level = brentq(lambda level: ever(level).mean() - world.base_rate, -12, 4, xtol=.02)
    return c


def workday(at: np.ndarray) -> np.ndarray:
    """Times moved out of the night, and from a weekend to the Monday after it."""
    at = at + np.where(at % DAY < 7 * 3600, 7 * 3600, np.where(at % DAY > 20 * 3600, 12 * 3600, 0)) * (at < NEVER)
    weekday = (at // DAY + 3) % 7  # 1970-01-01 was a Thursday
    return at + np.where((weekday >= 5) & (at < NEVER), (7 - weekday) * DAY, 0)


def moments(rng: np.random.Generator, n: int, season: float, migrated: int = 0) -> np.ndarray:
    """`n` instants of office hours: growth over the 48 months, dips in summer and December; `migrated` of the early ones came over in one night."""
    day = np.arange(DAYS)
    weight = np.exp(.018 * day / 30.4) * season_of(day, season) * np.where((day + 4) % 7 >= 5, .12, 1)  # 2022-07-01 was a Friday
    chosen = np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random(n))
    born = np.sort(np.floor(START + chosen * DAY + np.clip(rng.normal(11.5, 2.8, n), 6, 20) * 3600))
    born[: 2 * migrated: 2] = MIGRATED
    return born


def _picked(rng: np.random.Generator, table: list[tuple], fit: np.ndarray, intent: np.ndarray, turn: np.ndarray | float = 0) -> np.ndarray:
    """Row numbers of `table`, drawn by a softmax: a weak sign of fit and intent; `turn` moves the mix towards the last rows."""
    weight, a, b = np.array([row[1:] for row in table]).T
    score = np.log(weight) + np.outer(fit, a) + np.outer(intent, b) + np.multiply.outer(turn, np.linspace(-1, 1, len(weight)))
    return np.argmax(score + rng.gumbel(size=(len(fit), len(weight))), axis=1)


def _people(c: Company, rng: np.random.Generator, n: int) -> SimpleNamespace:
    """Leads as they enter: some of them twice, a quarter curious (looks around, hardly buys); what shows of fit and intent is blurred by noise."""
    born, row, noise = moments(rng, n, c.world.season, max(60, n // 40)), np.arange(n), c.world.noise
    twin = np.where((rng.random(n) < c.world.duplicates) & (born > MIGRATED), (rng.random(n) * row).astype(int), row)
    again = born[twin] + rng.exponential(25 * DAY, n)
    twin = np.where(again < LAST, twin, row)
    copy, person = twin != row, twin[twin]
    born = np.floor(np.where(copy, again, born))
    day, owner = ((born - START) // DAY).astype(int), c.owners(rng, born)
    fit, intent, curious = rng.normal(size=n)[person], rng.normal(size=n)[person], (rng.random(n) < .25)[person]
    leads = SimpleNamespace(n=n, born=born, day=day, twin=twin, copy=copy, person=person, owner=owner, fit=fit, intent=intent, curious=curious, frailty=rng.normal(0, 1, n) * c.world.overdispersion,
                            merging=copy & (rng.random(n) < .45), first=rng.exponential(.7, n) * np.exp(.2 * intent),
                            source=_picked(rng, SOURCES, fit / noise, intent / noise, c.world.drift * (day / DAYS * 2 - 1)))
    leads.life = Life(c.world, leads, c.skill[owner], c.effort[owner], c.level)
    return leads


def make_leads(c: Company, rng: np.random.Generator, n: int) -> SimpleNamespace:
    """Leads and their ends: close (won or given up), gone (deleted or merged), worked = until when somebody cared; touches and states as Life tells."""
    leads, noise = _people(c, rng, n), c.world.noise
    born, fit, intent = leads.born, leads.fit, leads.intent
    last, cause, touches, states = leads.life.lived(rng, leads.day)
    ended, won, left = np.where(cause > 0, np.floor(START + last * DAY + np.clip(rng.normal(13, 2.8, n), 7, 20) * 3600), NEVER), cause == 1, cause == 3
    forgotten = (rng.random(n) < .05 * min(c.world.signal, 1)) & (cause == 2)  # given up, but nobody says so for long
    close = np.floor(np.where(forgotten, np.where(rng.random(n) < .3, NEVER, workday(ended + rng.gamma(2, 90, n) * DAY)), np.where(left, NEVER, ended)))
    close = np.where(close > LAST, NEVER, close)
    gone = np.floor(np.where(left, ended, np.where((close < NEVER) & (rng.random(n) < .004), close + rng.exponential(90 * DAY, n), NEVER)))
    until = np.minimum(close, gone)
    handed, heir = c.handover(rng, leads.owner, born, until)
    kind, latest = np.array([3, 0, 1, 3, 3, 3, 2])[leads.source], np.maximum(np.searchsorted(c.campaigns, born, side="right"), 1)
    leads.__dict__.update(
        close=close, gone=gone, until=until, worked=np.minimum(ended, until), won=won, touches=touches, states=states, merged=np.where(leads.merging & left, leads.twin, NAN), handed=handed, heir=heir,
        title=_picked(rng, TITLES, fit / noise, intent / noise)[leads.person], industry=_picked(rng, INDUSTRIES, fit / noise, intent / noise)[leads.person],
        judged=.5 * fit + .4 * intent + rng.normal(0, .8 * noise, n), deal=won & (rng.random(n) < .75), firm=c.base // 20 + 2 * leads.person, private=fit + rng.normal(0, 1, n) < -.6,  # judged = what the seller makes of it
        campaign=np.where(kind < 3, np.maximum(latest - (latest - kind) % 3, kind + 3 * (kind == 0)), NAN))
    return leads


def make_accounts(c: Company, rng: np.random.Generator, leads: SimpleNamespace, n: int) -> tuple[SimpleNamespace, SimpleNamespace]:
    """`n` accounts won by other ways than leads, then one for each converted lead; contacts, of which number i is the first of account i."""
    bought, born = np.flatnonzero(leads.won), moments(rng, n, c.world.season)
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
    born = moments(rng, n - len(lead), c.world.season, max(60, n // 25))
    known = np.maximum(np.searchsorted(accounts.born[: accounts.n_other], born), 1)
    account = np.append(np.searchsorted(accounts.lead[accounts.n_other:], lead) + accounts.n_other, (rng.random(len(born)) * known).astype(int))
    lead, born = np.append(lead, np.full(len(born), -1)), np.append(leads.close[lead], born)
    order = np.argsort(born, kind="stable")
    lead, born, account = lead[order], born[order], account[order]
    fit, stage = accounts.fit[account], np.arange(4)
    owner = np.where((lead >= 0) & (c.left[leads.owner[lead]] > born), leads.owner[lead], c.owners(rng, born))
    quits = np.where(rng.random(n) < .22, rng.integers(1, 4, n), 9)  # the stage from which on the champion is gone
    champion = (rng.random(n) < expit(.1 + .5 * fit))[:, None] & (stage < quits[:, None])
    frozen = stage >= np.where(rng.random(n) < .2, rng.integers(0, 4, n), 9)[:, None]
    rival = np.where(rng.random(n) < .3, rng.integers(0, 3, n), -1)
    ease = .4 * fit + .6 * c.skill[owner] - .45 * (rival >= 0)
    passed = rng.random((n, 4)) < expit(PASS + c.world.signal * (ease[:, None] + (champion - .5) - 1.2 * frozen))
    slow = np.exp(.5 * frozen - .15 * champion) * np.exp(rng.normal(0, .5, n))[:, None]
    spent = DAY * np.where(passed, rng.gamma(1.8, np.array([12, 15, 19, 15]) * slow / 1.8), 4 + rng.gamma(1.4, np.array([28, 34, 38, 34]) * slow / 1.4))
    enter, won = np.floor(born[:, None] + np.cumsum(spent, axis=1) - spent), passed.all(axis=1)
    last = np.where(won, 3, np.argmin(passed, axis=1))
    worked = workday((enter + spent)[np.arange(n), last])
    month = worked.clip(0, 2 * LAST).astype("datetime64[s]").astype("datetime64[M]")
    end = (month + 3 - month.astype(int) % 3).astype("datetime64[s]").astype(float) - rng.random(n) * 6 * DAY  # the last days of the quarter, when everybody hurries
    worked = np.where((end > worked) & (end - worked < 40 * DAY) & (rng.random(n) < np.where(won, .4, .12) * min(c.world.season, 2)), end, worked)
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


class Diary:
    """Activities on their way: spread over stretches of time at a rate that knows the causes, not the outcome."""

    def __init__(self, c: Company, rng: np.random.Generator):
        self.c, self.rng, self.parts = c, rng, []  # type: ignore[var-annotated]

    def spread(self, who: dict[str, np.ndarray], start: np.ndarray, stop: np.ndarray, rate: np.ndarray, kinds: tuple[list, list], *, out: bool = False, reply=None) -> None:
        """Poisson in [start, stop) at `rate` a day and record; `who` holds arrays by record; reply = chance of an answer."""
        width = np.maximum(np.minimum(stop, np.minimum(who["until"], LAST)) - start, 0)
        row = np.repeat(np.arange(len(width)), self.rng.poisson(width / DAY * rate))
        self.note(who, row, start[row] + self.rng.random(len(row)) * width[row], kinds, out=out, reply=reply, hours=self.rng.exponential(36, len(row)))

    def note(self, who: dict[str, np.ndarray], row: np.ndarray, at: np.ndarray, kinds: tuple[list, list], *, hours: np.ndarray, out: bool = False, reply=None) -> None:
        """An activity each at `at` for record `row`; where it is answered (chance `reply`, calls and mails only), the answer comes `hours` later."""
        kind = self.rng.choice(kinds[0], len(row), p=kinds[1])
        user = np.where(at >= who["handed"][row], who["heir"][row], who["owner"][row])
        told = {k: who[k][row] for k in ("lead", "deal", "contact", "account", "mood", "until", "born")} | {
            "at": at, "kind": kind, "way": np.where((kind > EMAIL) & (kind < WEB), NAN, 0 if out else 1), "user": user}
        self.parts.append(told)
        if reply is not None:
            answered = np.flatnonzero((kind <= EMAIL) & (self.rng.random(len(row)) < reply[row]))
            self.parts.append({k: v[answered] for k, v in told.items()} | {
                "at": at[answered] + hours[answered] * 3600, "kind": self.rng.choice([CALL, EMAIL], len(answered), p=[.25, .75]), "way": np.full(len(answered), 1. if out else 0.)})

    def gathered(self) -> dict[str, np.ndarray]:
        """All of them in order of time, moved to working days; what would come after its record's close did not happen."""
        out = {k: np.concatenate([p[k] for p in self.parts]) for k in self.parts[0]}
        out["at"] = np.where(out["kind"] == WEB, out["at"], workday(out["at"]))
        order = np.argsort(out["at"], kind="stable")
        return {k: v[order[(out["at"] < np.minimum(out["until"], LAST + 1))[order]]] for k, v in out.items()}


def lead_work(diary: Diary, leads: SimpleNamespace) -> None:
    """Work on leads: most touches are noted, and our answers to them; so is much that is no touch. Sellers follow a cadence; the curious read a lot."""
    n, none, rng, noise = leads.n, np.full(leads.n, NAN), diary.rng, diary.c.world.noise
    push, look = np.exp(rng.normal(0, .45, (2, n)))
    who = {"lead": np.arange(n) * 1.0, "deal": none, "contact": none, "account": none, "mood": .5 * leads.intent + .3 * leads.fit - .6 * leads.curious, "until": leads.worked, "born": leads.born,
           "owner": leads.owner, "heir": leads.heir, "handed": leads.handed}
    row, day, hours = leads.touches[:, rng.random(leads.touches.shape[1]) < .75 ** noise]
    diary.note(who, row.astype(int), START + day * DAY + np.clip(rng.normal(13, 3.5, len(row)), 6, 23) * 3600, TOUCH, hours=hours, reply=np.full(n, .85))
    push, ever = push * diary.c.effort[leads.owner] * np.exp(.2 * leads.judged), np.full(n, NEVER)
    for start, stop, rate in ((leads.born, leads.born + 12 * DAY, .11), (leads.born + 12 * DAY, ever, .022)):
        diary.spread(who, start, stop, rate * push, OUTBOUND, out=True, reply=expit(-2.2 + .3 * leads.intent))
    diary.spread(who, leads.born, ever, .005 * noise * look, LOOK)
    diary.spread(who, leads.born, ever, .003 * noise * np.exp(rng.normal(0, .45, n)), INBOUND, reply=np.full(n, .6))
    late = who | {"until": np.where(leads.close < NEVER, leads.close + 60 * DAY, 0)}  # a closed lead still looks in at times
    diary.spread(late, leads.close, leads.close + 60 * DAY, .004 * look, LOOK)


def deal_work(diary: Diary, deals: SimpleNamespace) -> None:
    """Work on deals, stage by stage: a champion answers and meets, a frozen budget makes silent."""
    n, busy, noise = deals.n, diary.c.busy, diary.rng.normal(0, .4 * diary.c.world.noise, (2, deals.n))
    who = {"lead": np.full(n, NAN), "deal": np.arange(n) * 1.0, "contact": deals.account * 1.0, "account": deals.account * 1.0, "until": deals.worked, "born": deals.born,
           "owner": deals.owner, "heir": deals.heir, "handed": deals.handed}
    for s in range(4):
        champion, frozen = deals.champion[:, s], deals.frozen[:, s]
        who["mood"] = .6 * champion - .9 * frozen + .3 * deals.fit
        start, stop = deals.enter[:, s], deals.enter[:, s + 1] if s < 3 else np.full(n, NEVER)
        warm = np.exp(.5 * champion - .7 * frozen + .2 * deals.fit + noise[0])
        diary.spread(who, start, stop, busy * .15 * diary.c.effort[deals.owner] * np.exp(noise[1] - .2 * frozen), OUTBOUND, out=True, reply=expit(-1.3 + .7 * champion - .9 * frozen + noise[0]))
        diary.spread(who, start, stop, busy * .05 * warm, INBOUND)
        diary.spread(who, start, stop, busy * .028 * warm, MEET)
        diary.spread(who, start, stop, busy * .02 * warm, LOOK)
