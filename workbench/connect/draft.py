"""Draft a mapping from the files themselves: each line says why it stands, and each open question is marked."""

from __future__ import annotations

import difflib
import re
import unicodedata
from pathlib import Path

from workbench import schema
from workbench.connect.drafted import Draft, mapping_text, toml
from workbench.connect.guess import NAMES, WORD, canonical_field, entity_of, plain
from workbench.connect.outcome import find_outcome, foreign_words
from workbench.connect.profile import Column, outcome_evidence, profiled
from workbench.connect.tables import read_text_table
from workbench.connect.typed import raw_sql
from workbench.errors import WorkbenchError

_REFERENCES = {"user": "owner_id", "account": "account_id", "product": "product_id", "contact": "contact_id", "campaign": "campaign_id", "lead": "source_lead_id"}
_FITS = {"text": ("text", "int", "float", "bool", "date", "time"), "int": ("int",), "float": ("int", "float"), "money": ("int", "float"), "bool": ("bool",),
         "date": ("date", "time"), "time": ("date", "time")}


def draft_mapping(paths: list[Path] | list[str]) -> str:
    """A mapping (TOML text that `read_mapping` takes) for plain exports, drafted from names and content.

    Every line says why; what the files cannot tell is marked `# QUESTION:`. Files of which no entity can be told are left out, with a note.
    """
    if not paths:
        raise WorkbenchError("No file is named.", fix="Run `workbench mapping FILE...`.")
    files = []
    for path in map(Path, paths):
        if not path.is_file():
            raise WorkbenchError(f"There is no file {path}.", fix="Name the files of the export.")
        table = read_text_table(path)
        columns = profiled(table)
        entity, sure = entity_of(path.name, columns, any(c.kind == "bool" and WORD["lead_outcome"].search(plain(c.name)) for c in columns.values()))
        f = Draft(path, table, columns, entity or "lead" * (len(paths) == 1))
        files.append(f)
        if f.entity and not sure:
            f.head.append(f"# QUESTION: is a row a {f.entity}? Little in the names of the file and its columns tells.")
    known = [f for f in files if f.entity]
    for f in known:
        f.key = _key(f)
    for f in known:
        _draft_file(f, known)
    return mapping_text(files)


def _key(f: Draft) -> str:
    """The column that identifies a row: unique and called so, or unique text; "" where there is none."""
    unique = [c.name for c in f.columns.values() if c.unique and c.kind in ("text", "int")]
    others = "|".join(w for e, words in NAMES["entities"].items() if e != f.entity for w in words if w not in NAMES["entities"][f.entity])
    named = [c for c in unique if re.search(r"\b(id|uuid|guid|key|record)\b", plain(c)) and not re.search(rf"\b({others})\b", plain(c))]
    named += [c for c in unique if plain(c) in NAMES["entities"][f.entity] or canonical_field(c, f.entity) == "name" and f.entity in ("user", "product", "account", "campaign")]
    named += [c for c in unique if re.search(r"\b(number|no|nr|code)\b", plain(c))]
    nearly = [c.name for c in f.columns.values() if re.fullmatch(r"(\w+ )?id", plain(c.name)) and c.distinct > 0.9 * c.n]
    return next(iter(named + nearly + [c for c in unique if f.columns[c].kind == "text"]), "")


def _draft_file(f: Draft, files: list[Draft]) -> None:
    if f.key:
        c = f.columns[f.key]
        f.put(f.key, "id", "unique and never empty" if c.unique else f"QUESTION: the key? {c.n - c.distinct:,} rows repeat another's or have none, and will be rejected")
    else:
        f.head.append("# QUESTION: which column identifies a row? None is unique; the line number stands in, so another export cannot update this one.")
    if f.entity in ("deal", "lead"):
        find_outcome(f)
        for column in [c for c in f.lines if c != f.key and c in f.columns and f.columns[c].kind == "text"][-1:]:
            f.put(column, {"deal": "stage", "lead": "status"}[f.entity], "as a step: today's value", known_at="current_only")
    _find_references(f, files)
    _find_dates(f)
    _join_names(f)
    for c in f.columns.values():
        if c.name not in f.lines or c.name == f.key and f.entity in ("user", "product", "account", "campaign") and not f.has("name"):
            _draft_column(f, c)
    if f.entity in ("deal", "lead") and not f.has("created_at"):
        runs = [c.name for c in f.columns.values() if c.unique and c.kind == "int" and c.name != f.key and re.search(r"\b(number|no|nr|id|index|seq|row|record)\b", plain(c.name))][:1]
        f.head += [f"order_by = {toml(r)}  # QUESTION: a running number; is larger later?" for r in runs] or [
            "# QUESTION: no column tells when a record was created, so it is scored without time; is there one to export?"]
        f.lines = {c: told for c, told in f.lines.items() if c not in runs}
    money = [c for c in f.columns.values() if any(e.get("field") == "amount" for e in f.lines.get(c.name, []))]
    if money and not f.has("currency"):
        text = " ".join([money[0].name, *(v for v, _ in money[0].values[:5])])
        found = re.search(r"\b(EUR|USD|GBP|AUD|CHF|CAD|INR|JPY|NZD|SEK|NOK|DKK|PLN|BRL|ZAR|SGD)\b|[€£$]", text)
        f.head.append(f'constants = {{ currency = "{ {"€": "EUR", "$": "USD", "£": "GBP"}.get(found[0], found[0]) }" }}  # as the amounts say' if found else
                      '# QUESTION: in which currency are the amounts?  constants = { currency = "USD" }')


def _find_references(f: Draft, files: list[Draft]) -> None:
    """Columns whose values are keys of another file (or of this one), with near spellings repaired."""
    for c in f.columns.values():
        if c.name == f.key or c.name in f.lines or c.kind in ("float", "bool", "date", "time") or c.filled == 0:
            continue
        for other in files:
            target = "parent_id" if other is f and f.entity == "account" else "" if other is f else _REFERENCES.get(other.entity, "")
            known = schema.entity(f.entity).fields.get(f"{other.entity}_id" if f.entity == "activity" else target)
            if not other.key or known is None or f.has(known.name) or other.columns[other.key].distinct < 3:
                continue
            if c.kind == "int" and not re.search(r"\bid\b|key", plain(c.name)):
                continue  # a count is within any range of running numbers
            connection = f.table.connection.cursor()
            connection.register("keys", other.table.connection.cursor().sql(f"select distinct {raw_sql(other.key)} as k from raw").to_arrow_table())
            keys = {k for (k,) in connection.sql("select k from keys where k is not null").fetchall()}
            broken = connection.sql(f"select {raw_sql(c.name)} as v, count(*) from raw where v is not null and v not in (select k from keys where k is not null) group by 1 order by 2 desc, 1").fetchall()
            near = {v: k for v, _ in broken[:200] if (k := _nearest(v, keys))}
            left = sum(n for v, n in broken if v not in near and v not in c.placeholders)
            if left > 0.4 * c.filled:
                continue
            why = f"{1 - left / c.filled:.1%} of its values are keys of {other.path.name}"
            why += f"; QUESTION: {', '.join(f'{a!r} meant as {b!r}' for a, b in list(near.items())[:3])}?" if near else ""
            late = _late(f, c)
            f.put(c.name, known.name, "; ".join(filter(None, [why, late[1]])), **({"values": near} if near else {}), **_known_at(late[0], known.known_at))
            break


def _nearest(value: str, keys: set[str]) -> str:
    bare = {re.sub(r"\W|_", "", k).lower(): k for k in keys}
    exact = bare.get(re.sub(r"\W|_", "", value).lower(), "")
    return exact or next(iter(difflib.get_close_matches(value, keys, 1, 0.88)), "") if len(keys) < 5000 else exact


def _find_dates(f: Draft) -> None:
    dates = [c for c in f.columns.values() if c.kind in ("date", "time") and (c.name not in f.lines or f.lines[c.name][0].get("field") == "is_won")]
    fields = schema.entity(f.entity).fields

    def first(which: str, name: str, among: list[Column]) -> Column | None:
        return next((c for p in NAMES["dates"][which] for c in among if name in fields and re.fullmatch(p, plain(c.name, f.entity))), None)

    planned = first("planned", "close_on", dates)
    rest = [c for c in dates if c is not planned]
    ends = [c for c in (first("won", "closed_at", rest), first("lost", "closed_at", rest)) if c]
    closed, converted = first("closed", "closed_at", rest), first("converted", "converted_at", rest)
    created = first("created", "created_at", [c for c in rest if c not in (closed, converted, *ends)])
    left = [c for c in rest if c not in (closed, converted, *ends)]
    if created is None and "created_at" in fields and len(left) == 1 and not re.search(f"{WORD['late'].pattern}|{WORD['personal'].pattern}", plain(left[0].name)):
        _put_date(f, left[0], "created_at", "QUESTION: the creation? It is the only date left")
    elif created:
        _put_date(f, created, "created_at", "creation, by its name")
    if closed:
        if f.won and f.entity == "deal" and not planned:
            opened = outcome_evidence(f.table.connection.cursor(), closed, f.won)["filled_open"]
            if opened > 0.2:
                _put_date(f, closed, "close_on", f"filled in {opened:.0%} of the open ones: a plan until they close", known_at="current_only")
        _put_date(f, closed, "closed_at", "when it was won or lost")
    elif ends:
        c = ends[0]
        if len(ends) == 2:
            f.join("Won or lost time", [e.name for e in ends])
            c = Column("Won or lost time", c.n, kind=c.kind, formats=tuple(dict.fromkeys(ends[0].formats + ends[1].formats)))
        _put_date(f, c, "closed_at", "when it was won or lost: each record has one of the two" if len(ends) == 2 else "when it ended")
    if converted:
        _put_date(f, converted, "converted_at", "when it converted")
    if planned:
        _put_date(f, planned, "close_on", "the planned close, which moves", known_at="current_only")


def _put_date(f: Draft, c: Column, name: str, why: str, **options: object) -> None:
    formats = c.formats
    if c.other:
        sure = {o for d in f.columns.values() if d.formats and not d.other for o in ("dmy", "mdy") if d.formats[0].startswith("%d" if o == "dmy" else "%m")}
        if len(sure) == 1:
            formats = next(x for x in (c.formats, c.other) if x[0].startswith("%d" if sure == {"dmy"} else "%m"))
            why += "; day and month as in the file's other dates"
        else:
            why += f"; QUESTION: is the day or the month first? Each date fits {c.formats[0]} and {c.other[0]}"
    elif formats:
        why += f"; only {formats[0]} fits" if formats[0][1] in "dm" else ""
    f.put(c.name, name, why, **({"format": formats[0] if len(formats) == 1 else list(formats)} if formats else {}), **options)


def _join_names(f: Draft) -> None:
    if "name" not in schema.entity(f.entity).fields or f.entity not in ("lead", "contact", "user"):
        return
    full = next((c.name for c in f.columns.values() if canonical_field(c.name, f.entity) == "name"), None)
    parts = [next((c.name for c in f.columns.values() if re.fullmatch(p, plain(c.name, f.entity))), None) for p in (r"(first|given|fore) ?name|vorname|prénom", r"(last|sur|family) ?name|nachname|nom")]
    found = [p for p in parts if p]
    if full and full not in f.lines and found:
        for p in found:
            f.ignore(p, f"a part of {full!r}")
    elif len(found) == 2:
        f.join("Full name", found)
        f.put("Full name", "name", "first and last name; personal")


def _late(f: Draft, c: Column) -> tuple[str, str]:
    """(known_at, why) where a column seems to be written after creation: by its name, or by what it tells of the outcome."""
    if f.won and f.entity in ("deal", "lead"):
        e = outcome_evidence(f.table.connection.cursor(), c, f.won)
        if e["n"] >= 60:
            if e["auc"] > 0.95 or e["pure"] >= 0.2:
                return "outcome", f"LEAK: alone it tells the outcome (AUC {e['auc']:.2f}, {e['pure']:.0%} of the rows in values of one outcome)"
            if e["filled_decided"] - e["filled_open"] > 0.5:
                return "outcome", f"LEAK: filled in {e['filled_decided']:.0%} of the decided, in {e['filled_open']:.0%} of the open"
            if e["auc"] > 0.85 or e["pure"] >= 0.05:
                return "current_only", f"suspect: AUC {e['auc']:.2f} alone, {e['pure']:.0%} of the rows in values of one outcome"
            low, high = sorted([e["filled_rate"], e["empty_rate"]])
            if min(e["n_empty"], e["n"] - e["n_empty"]) >= 0.05 * e["n"] and high > 2.5 * max(low, 0.001):
                return "current_only", f"suspect: {e['filled_rate']:.0%} won where filled, {e['empty_rate']:.0%} where empty, so it seems to be filled in along the way"
    if plain(c.name) == "age" and all(re.fullmatch(r"1[4-9]|[2-9]\d|10\d", v) for v, _ in c.values):
        return "", "a person's age, by its values"
    if WORD["late"].search(plain(c.name)) or c.kind in ("date", "time"):
        return "current_only", "by its name today's value, or somebody's judgement of unknown date" if WORD["late"].search(plain(c.name)) else "a date that may be written later"
    return "", ""


def _known_at(late: str, default: str) -> dict:
    return {"known_at": late} if late else {} if default in ("fixed", "outcome") else {"known_at": "assumed"}


def _draft_column(f: Draft, c: Column) -> None:
    fields, name = schema.entity(f.entity).fields, canonical_field(c.name, f.entity)
    if c.filled == 0 or c.distinct == 1 and c.filled == c.n and c.n > 1:
        return f.ignore(c.name, f"always {c.values[0][0]!r}: tells nothing" if c.filled else "always empty")
    known = fields.get(name)
    if known and (f.has(name) or c.kind not in _FITS[known.kind] or known.outcome and f.entity in ("lead", "deal") and name != "lost_reason"):
        known = None
    if known and known.references and (known.references not in ("user", "account", "product", "campaign") or c.kind not in ("text", "int") or c.kind == "int" and "id" not in plain(c.name)):
        known = None
    late, why = ("", "") if c.name == f.key else _late(f, c)
    notes = [f"by its name; {c.distinct:,} values" if known else f"{c.distinct:,} values"] + ([why] if why else [])
    options: dict = {}
    if known and known.references:
        f.derived.append((known.references, c.name))
        notes[0] = f"its {c.distinct:,} values become records of their own below"
    person = c.personal or ("personal by its name" if WORD["personal"].search(plain(c.name)) and not known else "")
    if known and known.personal or person:
        notes.append(f"personal: {c.personal}" if c.personal else "personal")
    if not known:
        name = _own_name(f, c.name)
        options = {"type": c.kind} if c.kind != "text" else {}
        options |= {"personal": True} if person else {}
    kind = known.kind if known else c.kind
    if kind in ("int", "float", "money") and "," in f"{c.decimal}{f.decimal()}":
        options["decimal"] = c.decimal or f.decimal()
        notes.append("decimal comma")
    if kind == "bool":
        options |= foreign_words(c)
    options |= _known_at(late, known.known_at if known else "historized")
    if kind == "text" and c.distinct <= 300 and not person and (same := _spellings(c)):
        options["values"] = same
        notes.append(f"QUESTION: one thing in several spellings, e.g. {next(iter(same))!r}?")
    if kind in ("date", "time"):
        _put_date(f, c, name, "; ".join(notes), **options)
    else:
        f.put(c.name, name, "; ".join(notes), **options)


def _spellings(c: Column) -> dict[str, str]:
    """Rarer spellings -> the most frequent one, where case, blanks and signs are all that differs."""
    usual: dict[str, str] = {}
    for v, _ in c.values:
        usual.setdefault(re.sub(r"[\W_]", "", v).lower() or v, v)
    return {v: w for v, _ in c.values if (w := usual[re.sub(r"[\W_]", "", v).lower() or v]) != v}


def _own_name(f: Draft, column: str) -> str:
    text = unicodedata.normalize("NFKD", column).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "_", text).strip("_")[:48] or f"column_{list(f.columns).index(column) + 1}"
    while f.has(f"x_{slug}"):
        slug += "_2"
    return f"x_{slug}"
