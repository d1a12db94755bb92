"""What a column of an export seems to hold, by its content and by the words of names.toml; and what it tells of an outcome."""

import re
import tomllib
import unicodedata
from collections.abc import Iterable
from importlib import resources

from workbench.connect.mapping import NO, YES, Target, mapped
from workbench.connect.tables import TextTable, raw_sql
from workbench.rows import quoted

SAMPLE = 100_000
SURE = 0.99  # share of values that must parse; the rest would be rejected, and a file may lose 5 %
_HOME = resources.files("workbench.connect")
NAMES, EVIDENCE = tomllib.loads((_HOME / "names.toml").read_text(encoding="utf-8")), (_HOME / "evidence.sql").read_text(encoding="utf-8")
WORD = {name: re.compile(pattern) for name, pattern in NAMES["words"].items()}
FIELDS = [line.split(" | ", 2) for line in NAMES["fields"]["text"].strip().splitlines()]
ANSWERS = dict.fromkeys([*YES, *NAMES["answers"]["yes"]], True) | dict.fromkeys([*NO, *NAMES["answers"]["no"]], False)


def plain(name: str, entity: str = "") -> str:
    """A name in small words, without the entity that it belongs to.

    >>> plain("Deal - Won time", "deal"), plain("CreatedDate"), plain("Lead_Source", "lead"), plain("Währung")
    ('won time', 'created date', 'source', 'wahrung')
    """
    text = unicodedata.normalize("NFKD", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).replace("ß", "ss"))
    words = re.sub(r"[^a-z0-9]+", " ", "".join(ch for ch in text.lower() if not unicodedata.combining(ch))).strip()
    for own in NAMES["entities"].get(entity, ()) if entity != "user" else ():
        words = words.removeprefix(own + " ")
    return words


def canonical_field(name: str, entity: str) -> str:
    """The field of `entity` that a column of this name usually is; "" where no name is known.

    >>> canonical_field("Deal - Organization", "deal"), canonical_field("Lead Source", "lead"), canonical_field("Shoe size", "lead")
    ('account_id', 'source', '')
    """
    found = (known for text in (plain(name, entity), plain(name)) for entities, known, pattern in FIELDS
             if entity in entities.split() and re.fullmatch(pattern, text))
    return next(found, "")


def entity_of(file: str, columns: Iterable[str], outcome: bool = False) -> tuple[str, bool]:
    """(entity, sure) of a file, by its name and those of its columns; "" where nothing tells. People with an `outcome` are leads.

    >>> entity_of("sales_pipeline.csv", ["opportunity_id", "account", "deal_stage"]), entity_of("x.csv", ["a", "b"])
    (('deal', True), ('', False))
    """
    names, stem, scores = [plain(c) for c in columns], plain(re.sub(r"\..*", "", file)), {}
    for entity, words in NAMES["entities"].items():
        named = any(re.search(rf"\b({w}(s|es|n|en)?|{w[:-1]}ies)\b", stem) for w in words)
        telling = sum(bool(re.search(NAMES["telling"][entity], n)) for n in names)
        scores[entity] = 5 * named + 3 * min(telling, 3) + sum(canonical_field(n, entity) != "" for n in names) / 10
    best = max(scores, key=lambda e: scores[e])
    people = best == "contact" and any(re.search(NAMES["telling"]["lead"], n) for n in names)
    if people or outcome and best not in ("lead", "deal") and (scores[best] < 5 or best == "contact"):
        return "lead", people or best == "contact"
    return (best, scores[best] >= 5) if scores[best] >= 3 else ("", False)


class Column:
    """One column of a table of text (or several `parts` joined to one), by its content.

    n rows, of which filled (placeholders aside) with distinct values; values = the most frequent of them with their counts. kind; of
    dates the formats, and the other ones that fit where day and month cannot be told apart; of numbers the decimal sign, where only
    "." or only "," fits; personal = what kind of personal data it holds.
    """

    def __init__(self, table: TextTable, name: str, parts: Iterable[str] = ()):
        self.table, self.name, self.raw = table, name, raw_sql(*(parts or [name]))
        self.kind, self.decimal, self.personal = "text", "", ""
        self.formats: tuple[str, ...] = ()
        self.other: tuple[str, ...] = ()
        table.connection.execute(f"create or replace temp table v as select {self.raw} as v, count(*) as n from {table.name} group by 1")
        self.n = self._one("select coalesce(sum(n), 0)::bigint from v")
        top = table.rows("select v, n from v where v is not null order by n desc, v limit 300")
        codes = sum(n for v, n in top if re.fullmatch("[A-Z]{2,3}", v)) > 0.5 * sum(n for _, n in top)  # NA among country codes is Namibia
        self.placeholders = [v for v, _ in top if WORD["placeholder"].fullmatch(v) and not (codes and v.isalpha())]
        self.values = [(v, n) for v, n in top if v not in self.placeholders]
        table.connection.execute(f"delete from v where v is null or v in ({', '.join(map(quoted, ['', *self.placeholders]))})")
        self.filled, self.distinct = self._one("select coalesce(sum(n), 0)::bigint from v"), self._one("select count(*) from v")
        self.unique = self.distinct == self.filled == self.n > 0
        # Kind and persons are told by a sample of at most some 100,000 different values.
        table.connection.execute(f"create or replace temp view s as select * from v where hash(v) % {max(1, self.distinct // SAMPLE)} = 0")
        if self.filled:
            self._find_kind()
            self._find_person()

    def _one(self, query: str):
        return self.table.rows(query)[0][0]

    def _share(self, condition: str) -> float:
        return self._one(f"select coalesce(sum(n) filter (where {condition}), 0) / sum(n) from s")

    def _fit(self, kind: str, formats: Iterable[str] = (), decimal: str = ".") -> float:
        return self._share(f"({Target(type=kind, format=list(formats), decimal=decimal).typed('v')}) is not null")

    def _find_kind(self) -> None:
        texts = [v for v, _ in self.values]
        if self.distinct <= 2 and all(v.lower() in ANSWERS for v in texts):
            self.kind = "bool"
        elif any(re.search(r"\d", v) for v in texts[:50]):
            found = [()] if self._fit("time") >= SURE else self._date_formats()
            fits = {d: self._fit("float", decimal=d) for d in ".,"}
            if found:
                self.kind, self.formats, self.other = "time" if any(":" in v for v in texts) else "date", found[0], [*found, ()][1]
            elif max(fits.values()) >= SURE and not any(re.match(r"[+-]?0\d|\+\d", v) for v in texts):  # 00123 and +49 are codes
                self.decimal = "" if min(fits.values()) >= SURE else max(fits, key=lambda d: fits[d])
                self.kind = "int" if self._fit("int", decimal=self.decimal or ".") >= max(fits.values()) else "float"

    def _date_formats(self) -> list[tuple[str, ...]]:
        """The formats that fit; a second entry where the order of day and month cannot be told."""
        if not re.search(r"\d\D+\d|\d{8}", self.values[0][0]):
            return []
        days = [(order, [day + time for time in NAMES["times"]]) for order, some in NAMES["formats"].items() for day in some]
        every = [f for _, some in days for f in some]
        counts = [f"count(*) filter (where year(try_strptime(v, {quoted(f)})) between 1900 and 2200)" for f in every]
        found = self.table.rows(f"select {', '.join(counts)} from (select v from s order by hash(v) limit 300)")[0]
        hits = dict(zip(every, found, strict=True))
        fitting: dict[str, tuple[str, ...]] = {}
        for order, some in days:
            used = sorted((f for f in some if hits[f]), key=lambda f: -hits[f])
            if used and order not in fitting and self._fit("time", used) >= SURE:
                fitting[order] = tuple(used)
        if {"dmy", "mdy"} <= set(fitting):
            return [fitting[order] for order in (("dmy", "mdy") if "." in fitting["dmy"][0] else ("mdy", "dmy"))]
        return list(fitting.values())[:1]

    def _find_person(self) -> None:
        name, numbers = self.name.lower(), self.kind in ("text", "int") and self.distinct > 0.5 * self.filled
        kinds = (("e-mail addresses", True, r"[^@\s]+@[^@\s]+\.[^@\s.]+", 0.5),
                 ("phone numbers", numbers and (WORD["phone"].search(name) or self._share("regexp_full_match(v, '[0-9]+')") <= 0.5),
                  r"(\+|00|\()?[0-9][0-9 ()./-]{6,}[0-9](\s*(x|ext\.?)\s*[0-9]+)?", 0.8),
                 ("person names", self.kind == "text" and self.distinct > 20 and WORD["person"].search(name),
                  r"\p{Lu}[\p{L}'.-]+( \p{L}\.)?( \p{Lu}[\p{L}'.-]+){1,2}", 0.7))
        found = (what for what, may, pattern, share in kinds if may and self._share(f"regexp_full_match(v, {quoted(pattern)})") > share)
        self.personal = next(found, "")

    def evidence(self, won: str) -> tuple[float, str, str]:
        """(share of the open rows that are filled, known_at, why) by what the column tells of `won` (SQL; null = open): see evidence.sql."""
        many = self.kind in ("int", "float") and self.distinct > 20
        number = Target(type="float", decimal=self.decimal or ".").typed("t") if many else "null::double"
        value = mapped(self.raw, dict.fromkeys(self.placeholders, ""))
        return self.table.rows(EVIDENCE.format(value=value, number=number, won=won, table=self.table.name, every=max(1, self.n // SAMPLE)))[0]
