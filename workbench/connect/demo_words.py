"""Words of the demo organisation, all invented (addresses under .test and example.com are reserved), and Arrow columns made of numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

DAY, NEVER = 86400.0, 2.0**40  # seconds; a time beyond every horizon
FIRST = ("Avo Bexi Corvin Dalia Edlin Fenja Goro Hesper Ivo Jalma Kerrin Lusko Mirel Nadu Orla Pavo Quenby Rilla Soren Tamsin Ulva Vesna Wim Xanthe Yorick Zelda "
         "Ansel Brisa Cosmo Dorrit Eskil Fiora Gwill Hanno Ilse Juno").split()
SURNAMES = [a + b for a in "Quibble Snor Tumble Wobber Fizzle Grumble Marzi Nettle Pockle Rumple Sprocket Twiddle Bramble Crumpet Dawdle Gizzle".split()
        for b in "ton by worth feld mann ström vik quist berry wick son stone".split()]
COMPANY = ["Wibble", "Snorvel", "Quibber", "Zorple", "Glimble", "Plonkett", "Frobish", "Dingle", "Mumbly", "Vexel", "Twonk", "Gribble", "Blarney", "Squidge", "Ponderoo",
           "Noodly", "Bumblet", "Crinkum", "Flummox", "Hobnob", "Jabberly", "Kerfuffle", "Lollop"]
THING = ["Kettle", "Lantern", "Anchor", "Pebble", "Teapot", "Ladder", "Compass", "Button", "Bellows", "Acorn", "Trolley", "Sundial", "Marble", "Thimble", "Biscuit", "Walrus", "Umbrella"]
FORM = ["Works", "Labs", "Group", "Supplies", "Partners", "Trading", "Systems"]
PLACES = [("Hamburg", "Germany"), ("Leipzig", "Germany"), ("Köln", "Germany"), ("Lyon", "France"), ("Nantes", "France"), ("Utrecht", "Netherlands"), ("Leeds", "United Kingdom"),
          ("Bristol", "United Kingdom"), ("Zürich", "Switzerland"), ("Graz", "Austria"), ("Gdańsk", "Poland"), ("Aarhus", "Denmark"), ("Ohio City", "United States"), ("Austin", "United States")]
CITIES, COUNTRIES = [p[0] for p in PLACES], [p[1] for p in PLACES]
# word, weight, what it owes to fit, to intent
SOURCES = [("Web form", .26, 0, .4), ("Webinar", .16, 0, -.15), ("Event", .13, .1, 0), ("Referral", .1, .45, .7), ("Outbound list", .17, .2, -.6), ("Partner", .08, .4, .3), ("E-mail campaign", .1, -.2, -.35)]
TITLES = [("Head of Operations", .12, .7, .2), ("Operations Manager", .2, .35, .1), ("Managing Director", .1, .35, 0), ("IT Manager", .14, .1, 0), ("Buyer", .12, 0, .25), ("Consultant", .1, -.6, -.1),
          ("Student", .06, -1.1, -.2), ("Assistant", .08, -.5, .1), ("Engineer", .08, -.1, -.1)]
INDUSTRIES = [("Manufacturing", .22, .5, 0), ("Logistics", .16, .4, 0), ("Health care", .12, .1, 0), ("Retail", .15, -.15, 0), ("Software", .12, .1, 0), ("Education", .08, -.7, 0), ("Public sector", .07, -.4, 0), ("Construction", .08, 0, 0)]
PRODUCTS = [(f"{n} {size}", n, price * k) for n, price in (("Gadgetron", 2400), ("Flowmatic", 5200), ("Docklet", 900), ("Sorterix", 3600)) for size, k in (("Basic", 1), ("Plus", 2), ("Complete", 4))]
COMPETITORS = ["Rivalco Demo", "Otherly Systems", "Cheapware Test"]
LOST = ["Price", "No decision", "Lost to competitor", "Bad timing", "No budget", "Missing feature"]
STEPS = ["Send proposal", "Call back", "Book a demo", "Wait for the budget", "Clarify contract", "Meet the decision maker"]
PLACEHOLDER = ["test", "n/a", "Unknown", "asdf", "TEST 2", "xxx"]
KINDS = ["call", "email", "meeting", "task", "note", "web"]
SUBJECTS = {"call": ["Call about {}", "Short call: {}", "Tried to reach them, {}"], "email": ["Your question on {}", "Re: {}", "{}: next steps", "Fwd: {}"],
            "meeting": ["Demo: {}", "Workshop {}", "Review of {}"], "task": ["Follow up on {}", "Prepare {}", "Send papers for {}"], "note": ["Note on {}"], "web": ["Visited page: {}"]}
TOPICS = ["pricing", "the pilot", "Gadgetron", "Flowmatic", "Docklet", "Sorterix", "the contract", "delivery", "integration", "security", "the renewal", "training"]
GOOD = ["They liked what they saw.", "Wants to bring in the head of department.", "Asked for a proposal by Friday.", "Says the budget is approved.", "Keen to start a pilot.", "Asked good questions on integration."]
FLAT = ["No decision yet.", "Will come back to us.", "Left a message.", "Sent the brochure.", "Talked about the weather, mostly.", "Needs to ask a colleague.", "Mailbox full.", "Moved to next week."]
BAD = ["Budget is on hold this quarter.", "Finds us expensive.", "Also talks to Rivalco Demo.", "Our contact may leave.", "Not a priority now.", "Only wanted to look around."]


def variants(words: list[str]) -> list[str]:
    """The words, then each as a careless hand would type it.

    >>> variants(["Web form", "Event"])
    ['Web form', 'Event', 'web-form', 'EVENT']
    """
    return [*words, *(w.replace(" ", "-").lower() if " " in w else w.upper() for w in words)]


def picked(rng: np.random.Generator, table: list[tuple], fit: np.ndarray, intent: np.ndarray) -> np.ndarray:
    """Row numbers of `table` (word, weight, load on fit, load on intent) drawn by a softmax: a weak sign of both."""
    _, weight, a, b = (np.array(c) for c in zip(*table, strict=True))
    score = np.log(weight.astype(float)) + np.outer(fit, a.astype(float)) + np.outer(intent, b.astype(float))
    return np.argmax(score + rng.gumbel(size=score.shape), axis=1)


def workday(at: np.ndarray) -> np.ndarray:
    """Times moved from a weekend to the Monday after it."""
    weekday = (at // DAY + 3) % 7  # 1970-01-01 was a Thursday
    return at + np.where((weekday >= 5) & (at < NEVER), (7 - weekday) * DAY, 0)


def words(options: list[str], codes: np.ndarray) -> pa.Array:
    """Text by number; null where it is negative or NaN."""
    return pa.array(options, pa.string()).take(_whole(codes))


def _whole(values: np.ndarray) -> pa.Array:
    values = np.nan_to_num(np.asarray(values, dtype=float), nan=-1.0)
    return pa.array(values.astype(np.int64), mask=values < 0)


def keys(prefix: str, numbers: np.ndarray) -> pa.Array:
    """Ids demo:<prefix><number>; null where the number is negative or NaN."""
    return pc.binary_join_element_wise(f"demo:{prefix}", pc.cast(_whole(numbers), pa.string()), "")


def times(seconds: np.ndarray) -> pa.Array:
    """Timestamps of whole seconds since 1970; null where NaN or never."""
    whole = np.nan_to_num(np.asarray(seconds, dtype=float), nan=NEVER)
    return pa.array(np.floor(whole).astype(np.int64) * 1_000_000, mask=whole >= NEVER).view(pa.timestamp("us"))


def days(seconds: np.ndarray) -> pa.Array:
    """Dates; null where NaN or never."""
    whole = np.nan_to_num(np.asarray(seconds, dtype=float), nan=NEVER)
    return pa.array((whole // DAY).astype(np.int64).clip(0, 10**6).astype(np.int32), mask=whole >= NEVER).view(pa.date32())


def numbers(values: np.ndarray, digits: int = 2) -> pa.Array:
    """Rounded numbers; null where NaN."""
    return pa.array(np.round(values, digits), mask=np.isnan(values))


def flags(values: np.ndarray) -> pa.Array:
    """Booleans; null where NaN."""
    values = np.asarray(values, dtype=float)
    return pa.array(values > 0, mask=np.isnan(values))


def either(condition: np.ndarray, a, b) -> pa.Array:
    """`a` where the condition holds, else `b`."""
    return pc.if_else(pa.array(np.asarray(condition)), a, b)


def companies(number: np.ndarray) -> tuple[pa.Array, pa.Array]:
    """Name and mail domain of company `number`, each number its own (a long stride, so that neighbours differ)."""
    code = number * 1013  # 23 x 17 x 7 = 2,737 names share no factor with 1013; beyond them the name gets a number
    name = pc.binary_join_element_wise(*(words(o, code // k % len(o)) for o, k in ((COMPANY, 1), (THING, 23), (FORM, 391))), " ")
    again = number // (23 * 17 * 7)
    tail = either(again > 0, pc.binary_join_element_wise(" ", pc.cast(pa.array(again + 1), pa.string()), ""), "")
    name = pc.binary_join_element_wise(name, tail, "")
    return name, pc.binary_join_element_wise(pc.utf8_lower(pc.replace_substring(name, " ", "-")), ".test", "")


def people(rng: np.random.Generator, number: np.ndarray, company: np.ndarray, private: np.ndarray) -> dict[str, pa.Array]:
    """name, email, phone, company of person `number` (unique): a free address where `private`."""
    first, last = rng.integers(0, len(FIRST), len(number)), rng.integers(0, len(SURNAMES), len(number))
    firm, domain = companies(company)
    count = pc.cast(pa.array(number), pa.string())
    free = words(["example.com", "example.org", "example.net"], number % 3)
    local = pc.binary_join_element_wise(words(FIRST, first), words([x.replace("ö", "o") for x in SURNAMES], last), ".")
    local = either(private, pc.binary_join_element_wise(local, count, ""), local)
    return {"name": pc.binary_join_element_wise(words(FIRST, first), words(SURNAMES, last), " "), "company": firm,
            "email": pc.utf8_lower(pc.binary_join_element_wise(local, either(private, free, domain), "@")),
            "phone": pc.binary_join_element_wise("+99 555 01", count, "")}


def texts(rng: np.random.Generator, kind: np.ndarray, mood: np.ndarray) -> tuple[pa.Array, pa.Array]:
    """Subject and body of activities: the tone leans to `mood`, noisily."""
    options = [s.format(t) for k in KINDS for s in SUBJECTS[k] for t in TOPICS]
    size = np.array([len(SUBJECTS[k]) * len(TOPICS) for k in KINDS])
    subject = words(options, (np.cumsum(size) - size)[kind] + (rng.random(len(kind)) * size[kind]).astype(int))
    tone = mood + rng.normal(0, 1.2, len(kind))
    pool, low, high = GOOD + FLAT + BAD, np.array([len(GOOD) + len(FLAT), len(GOOD), 0]), np.array([len(GOOD) + len(FLAT) + len(BAD), len(GOOD) + len(FLAT), len(GOOD)])
    group = (tone > -1.1).astype(int) + (tone > .9)
    body = pc.binary_join_element_wise(words(pool, rng.integers(low[group], high[group])), words(["", *FLAT], rng.integers(0, len(FLAT) + 1, len(kind)) * (rng.random(len(kind)) < .4)), " ")
    return subject, either(kind == KINDS.index("web"), pa.scalar(None, pa.string()), pc.utf8_trim_whitespace(body))


class Story:
    """Changes of many records, gathered column by column, then told as versions."""

    def __init__(self, until: np.ndarray):
        self.until, self.parts = until, []

    def add(self, chosen: np.ndarray, at: np.ndarray, *, final: bool = False, **values) -> None:
        """Records where `chosen` change at `at` (before their `until`, unless `final`); arrays are as long as the records."""
        row = np.flatnonzero(chosen & (at < NEVER) & (final | (at < self.until)))
        self.parts.append((row, at[row], {c: np.broadcast_to(v, chosen.shape)[row] for c, v in values.items()}))

    def versions(self, last: float) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
        """record, valid_from (seconds, whole) and the state then, up to `last`; changes within one second are one version."""
        names = list(dict.fromkeys(c for part in self.parts for c in part[2]))
        row, at = np.concatenate([p[0] for p in self.parts]), np.floor(np.concatenate([p[1] for p in self.parts]))
        order = np.lexsort((np.arange(len(row)), at, row))
        order = order[at[order] <= last]
        row, at, out = row[order], at[order], {}
        ends = np.append((row[1:] != row[:-1]) | (at[1:] != at[:-1]), True)
        for name in names:
            value = np.concatenate([np.asarray(p[2].get(name, np.zeros(len(p[0]))), dtype=float) for p in self.parts])[order]
            told = np.concatenate([np.full(len(p[0]), name in p[2]) for p in self.parts])[order]
            out[name] = value[np.maximum.accumulate(np.where(told, np.arange(len(row)), 0))][ends]  # the first change of a record tells every column
        return row[ends], at[ends], pd.DataFrame(out)
