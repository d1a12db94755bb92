"""Draft a mapping from the files themselves: each line says why it stands, and each open question is marked."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from workbench import schema
from workbench.connect.guess import NAMES, WORD, canonical_field, entity_of, plain
from workbench.connect.profile import PLAIN, WORDS, Column, outcome_evidence, profiled
from workbench.connect.tables import TextTable, read_text_table
from workbench.connect.typed import raw_sql
from workbench.errors import WorkbenchError
from workbench.rows import quoted

_REFERENCES = {"user": "owner_id", "account": "account_id", "product": "product_id", "contact": "contact_id", "campaign": "campaign_id", "lead": "source_lead_id"}
_FITS = {"text": ("text", "int", "float", "bool", "date", "time"), "int": ("int",), "float": ("int", "float"), "money": ("int", "float"), "bool": ("bool",),
         "date": ("date", "time"), "time": ("date", "time")}


@dataclass
class _File:
    """One file and what was decided of it: lines = column -> entries (field and options), notes = column -> why."""

    path: Path
    table: TextTable
    columns: dict[str, Column]
    entity: str = ""
    key: str = ""
    lines: dict[str, list[dict]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    head: list[str] = field(default_factory=list)
    joins: dict[str, list[str]] = field(default_factory=dict)
    derived: list[tuple[str, str]] = field(default_factory=list)  # (entity, column) whose values are records of their own
    won: str = ""  # SQL: true, false, or null while open

    def put(self, column: str, name: str, why: str, **options: object) -> None:
        self.lines.setdefault(column, []).append({"field": name} | options)
        self.notes.setdefault(column, []).append(why)

    def has(self, name: str) -> bool:
        return any(e.get("field") == name for entries in self.lines.values() for e in entries)


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
        f = _File(path, table, columns, entity or "lead" * (len(paths) == 1))
        files.append(f)
        if f.entity and not sure:
            f.head.append(f"# QUESTION: is a row a {f.entity}? Little in the names of the file and its columns tells.")
    known = [f for f in files if f.entity]
    for f in known:
        f.key = _key(f)
    for f in known:
        _draft_file(f, known)
    return _written(files)


def _key(f: _File) -> str:
    """The column that identifies a row: unique and called so, or unique text; "" where there is none."""
    unique = [c.name for c in f.columns.values() if c.unique and c.kind in ("text", "int")]
    others = "|".join(w for e, words in NAMES["entities"].items() if e != f.entity for w in words if w not in NAMES["entities"][f.entity])
    named = [c for c in unique if re.search(r"\b(id|uuid|guid|key|record)\b", plain(c)) and not re.search(rf"\b({others})\b", plain(c))]
    named += [c for c in unique if plain(c) in NAMES["entities"][f.entity] or canonical_field(c, f.entity) == "name" and f.entity in ("user", "product", "account", "campaign")]
    named += [c for c in unique if re.search(r"\b(number|no|nr|code)\b", plain(c))]
    nearly = [c.name for c in f.columns.values() if re.fullmatch(r"(\w+ )?id", plain(c.name)) and c.distinct > 0.9 * c.n]
    return next(iter(named + nearly + [c for c in unique if f.columns[c].kind == "text"]), "")


def _draft_file(f: _File, files: list[_File]) -> None:
    if f.key:
        c = f.columns[f.key]
        f.put(f.key, "id", "unique and never empty" if c.unique else f"QUESTION: the key? {c.n - c.distinct:,} rows repeat another's or have none, and will be rejected")
    else:
        f.head.append("# QUESTION: which column identifies a row? None is unique; the line number stands in, so another export cannot update this one.")
    if f.entity in ("deal", "lead"):
        _find_outcome(f)
        for column in [c for c in f.lines if c != f.key and c in f.columns and f.columns[c].kind == "text"][-1:]:
            f.put(column, {"deal": "stage", "lead": "status"}[f.entity], "as a step: today's value", known_at="current_only")
    _find_references(f, files)
    _find_dates(f)
    _join_names(f)
    for c in f.columns.values():
        if c.name not in f.lines or c.name == f.key and f.entity in ("user", "product", "account", "campaign") and not f.has("name"):
            _draft_column(f, c)
    if f.entity in ("deal", "lead"):
        if not f.has("created_at"):
            runs = [c.name for c in f.columns.values() if c.unique and c.kind == "int" and c.name != f.key and re.search(r"\b(number|no|nr|id|index|seq|sequence|row|record)\b", plain(c.name))]
            f.head.append(f"order_by = {_toml(runs[0])}  # QUESTION: a running number; is larger later?" if runs else
                          "# QUESTION: no column tells when a record was created, so it is scored without time; is there one to export?")
        else:
            runs = []
        for name in runs[:1]:
            f.lines.pop(name, None)
    if f.has("amount") and not f.has("currency"):
        signs = {"€": "EUR", "$": "USD", "£": "GBP"}
        text = " ".join(c.name + " " + " ".join(v for v, _ in c.values[:5]) for c in f.columns.values() if any(e.get("field") == "amount" for e in f.lines.get(c.name, [])))
        found = re.search(r"\b(EUR|USD|GBP|AUD|CHF|CAD|INR|JPY|NZD|SEK|NOK|DKK|PLN|BRL|ZAR|SGD)\b", text)
        code = found[1] if found else next((v for k, v in signs.items() if k in text), "")
        f.head.append(f'constants = {{ currency = "{code}" }}  # as the amounts say' if code else '# QUESTION: in which currency are the amounts?  constants = { currency = "USD" }')


def _map_values(c: Column) -> dict[str, object]:
    """value -> won, lost or "" (open), by words."""
    return {v: False if WORD["lost"].search(plain(v)) else True if WORD["won"].search(plain(v)) else "" for v, _ in c.values}


def _find_outcome(f: _File) -> None:
    texts = [c for c in f.columns.values() if c.kind == "text" and 1 < c.distinct <= 60 and re.search(r"stage|status|state|phase|outcome|result|won|lost|disposition|stufe|etape", plain(c.name))]
    both = [c for c in texts if {True, False} <= set(_map_values(c).values())]
    flags = {plain(c.name): c for c in f.columns.values() if c.kind == "bool"}
    if f.entity == "deal":
        closed, won = (next((c for n, c in flags.items() if re.search(p, n)), None) for p in (r"\bclosed$|is closed", r"\bwon\b"))
        if both:
            c = min(both, key=lambda c: sum(v == "" for v in _map_values(c).values()))
            told = _map_values(c)
            f.won = _case(c.name, told)
            f.put(c.name, "is_won", "which values mean won and lost, by their words; the others are open", values={v: w for v, w in told.items() if w != ""} | {"*": ""})
        elif closed and won:
            yes = {k: [v for v, _ in c.values if WORDS[v.lower()]][0] for k, c in (("closed", closed), ("won", won)) if any(WORDS[v.lower()] for v, _ in c.values)}
            no = next((v for v, _ in won.values if not WORDS[v.lower()]), "0")
            f.joins["Closed and won"] = [closed.name, won.name]
            f.lines[closed.name] = f.lines[won.name] = []
            f.put("Closed and won", "is_won", "won and lost count only where the deal is closed",
                  values={f"{yes.get('closed', '1')} {yes.get('won', '1')}": True, f"{yes.get('closed', '1')} {no}": False, "*": ""})
            f.won = f"case when {_case(closed.name, _yes_no(closed))} then {_case(won.name, _yes_no(won))} end"
        elif won:
            _put_flag(f, won, "is_won", "QUESTION: does a no mean lost, or may it still be open? Map open ones to missing")
        elif ended := next((c for c in f.columns.values() if c.kind in ("date", "time") and re.fullmatch(NAMES["dates"]["won"][0], plain(c.name, "deal"))), None):
            f.put(ended.name, "is_won", "QUESTION: a deal with this date is won; which are lost", values={"*": True})
            f.won = f"case when {raw_sql(ended.name)} is not null then true end"
        else:
            f.head.append("# QUESTION: which column tells whether a deal was won or lost? Map it to is_won; without it nothing can be learned.")
        return
    named = next((c for n, c in flags.items() if WORD["lead_outcome"].search(n)), None)
    if named:
        _put_flag(f, named, "is_converted", "the outcome, by its name and its two values")
    for c in sorted(texts, key=lambda c: sum(v == "" for v in _map_values(c).values())):
        if f.won == "" and True in (told := _map_values(c)).values():
            f.won = _case(c.name, {v: w if w != "" else None for v, w in told.items()})
            f.put(c.name, "is_converted", "QUESTION: which values mean converted? Read by their words", values={v: True for v, w in told.items() if w is True} | {"*": False})
    steps = [c for c in texts if re.search(r"status|stage|phase|disposition|stufe", plain(c.name))]
    if f.has("is_converted") and steps:
        c = max(steps, key=lambda c: sum(w is False for w in _map_values(c).values()))
        lost = {v: True for v, w in _map_values(c).items() if w is False}
        f.put(c.name, "is_lost", "these values mean given up, by their words; the others may still convert" if lost else "QUESTION: does one of its values mean given up?", values=lost | {"*": False} | ({"": False} if c.filled < c.n else {}))
    if not f.has("is_converted"):
        f.head.append("# QUESTION: which column tells whether a lead became a customer? Map it to is_converted; without it nothing can be learned.")
    elif not f.has("is_lost"):
        f.head.append("# QUESTION: may a lead that has not converted still do so? As it stands, \"no\" counts as decided.")


def _yes_no(c: Column) -> dict:
    return {v: WORDS[v.lower()] for v, _ in c.values}


def _foreign(c: Column) -> dict:
    """What yes and no mean where the import does not know the words."""
    told = {v: b for v, b in _yes_no(c).items() if v.lower() not in PLAIN}
    return {"values": told} if told else {}


def _put_flag(f: _File, c: Column, name: str, why: str) -> None:
    f.put(c.name, name, why, **_foreign(c))
    f.won = _case(c.name, _yes_no(c))


def _case(column: str, told: dict) -> str:
    cases = " ".join(f"when {quoted(v)} then {str(w).lower() if isinstance(w, bool) else 'null'}" for v, w in told.items())
    return f"(case {raw_sql(column)} {cases} end)::boolean" if cases else "null::boolean"


def _find_references(f: _File, files: list[_File]) -> None:
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
            late = _late(f, c, "")
            f.put(c.name, known.name, "; ".join(filter(None, [why, late[1]])), **({"values": near} if near else {}), **_known_at(late[0], known.known_at))
            break


def _nearest(value: str, keys: set[str]) -> str:
    bare = {re.sub(r"\W|_", "", k).lower(): k for k in keys}
    exact = bare.get(re.sub(r"\W|_", "", value).lower(), "")
    return exact or next(iter(difflib.get_close_matches(value, keys, 1, 0.88)), "") if len(keys) < 5000 else exact


def _find_dates(f: _File) -> None:
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
            f.joins["Won or lost time"] = [e.name for e in ends]
            f.lines |= {e.name: [] for e in ends}
            c = Column("Won or lost time", c.n, kind=c.kind, formats=tuple(dict.fromkeys(ends[0].formats + ends[1].formats)))
        _put_date(f, c, "closed_at", "when it was won or lost: each record has one of the two" if len(ends) == 2 else "when it ended")
    if converted:
        _put_date(f, converted, "converted_at", "when it converted")
    if planned:
        _put_date(f, planned, "close_on", "the planned close, which moves", known_at="current_only")


def _put_date(f: _File, c: Column, name: str, why: str, **options: object) -> None:
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


def _join_names(f: _File) -> None:
    if "name" not in schema.entity(f.entity).fields or f.entity not in ("lead", "contact", "user"):
        return
    full = next((c.name for c in f.columns.values() if canonical_field(c.name, f.entity) == "name"), None)
    parts = [next((c.name for c in f.columns.values() if re.fullmatch(p, plain(c.name, f.entity))), None) for p in (r"(first|given|fore) ?name|vorname|prénom", r"(last|sur|family) ?name|nachname|nom")]
    found = [p for p in parts if p]
    if full and full not in f.lines and found:
        for p in found:
            f.lines[p] = [{"ignore": True}]
            f.notes[p] = [f"a part of {full!r}"]
    elif len(found) == 2:
        f.joins["Full name"] = found
        f.lines |= {p: [] for p in found}
        f.put("Full name", "name", "first and last name; personal")


def _late(f: _File, c: Column, name: str) -> tuple[str, str]:
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


def _draft_column(f: _File, c: Column) -> None:
    fields, name = schema.entity(f.entity).fields, canonical_field(c.name, f.entity)
    if c.filled == 0 or c.distinct == 1 and c.filled == c.n and c.n > 1:
        f.lines[c.name] = [{"ignore": True}]
        f.notes[c.name] = [f"always {c.values[0][0]!r}: tells nothing" if c.filled else "always empty"]
        return
    known = fields.get(name)
    if known and (f.has(name) or c.kind not in _FITS[known.kind] or known.outcome and f.entity in ("lead", "deal") and name != "lost_reason"):
        known = None
    if known and known.references and (known.references not in ("user", "account", "product", "campaign") or c.kind not in ("text", "int") or c.kind == "int" and "id" not in plain(c.name)):
        known = None
    late, why = ("", "") if c.name == f.key else _late(f, c, name)
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
    if kind in ("int", "float", "money") and "," in f"{c.decimal}{_file_decimal(f)}":
        options["decimal"] = c.decimal or _file_decimal(f)
        notes.append("decimal comma")
    if kind == "bool":
        options |= _foreign(c)
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


def _file_decimal(f: _File) -> str:
    sure = {c.decimal for c in f.columns.values() if c.decimal}
    return "," if sure == {","} else ""


def _own_name(f: _File, column: str) -> str:
    text = unicodedata.normalize("NFKD", column).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "_", text).strip("_")[:48] or f"column_{list(f.columns).index(column) + 1}"
    while f.has(f"x_{slug}"):
        slug += "_2"
    return f"x_{slug}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(ch if ch.isprintable() else f"\\u{ord(ch):04X}" if ord(ch) < 0x10000 else f"\\U{ord(ch):08X}" for ch in text) + '"'


def _entry(entry: dict) -> str:
    return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in entry.items()) + " }"


def _file_lines(f: _File, name: str) -> list[str]:
    out = ["", f"# {f.path.name}: {len(f.columns)} columns, {next(iter(f.columns.values())).n if f.columns else 0:,} rows".replace("\n", " "), "[[file]]",
           f"name = {_toml(name)}", f'entity = "{f.entity}"', *f.head]
    found = list(dict.fromkeys(p for c in f.columns.values() for p in c.placeholders))
    if found:
        out.append(f"placeholders = {_toml(found)}  # they look like values and mean missing")
    if _file_decimal(f):
        out.append('decimal = ","  # 1.234,50')
    if f.joins:
        out.append(f"join = {_toml(f.joins)}")
    out.append("[file.columns]")
    order = [*f.columns, *f.joins]
    for column in sorted(f.lines, key=order.index):
        entries, why = f.lines[column], "; ".join(dict.fromkeys(f.notes.get(column, [])))
        mark = "# QUESTION: " if "QUESTION" in " ".join(f.notes.get(column, [])) else "# "
        text = _entry(entries[0]) if len(entries) == 1 else "[" + ", ".join(map(_entry, entries)) + "]"
        if entries:
            out.append(f"{_toml(column)} = {text}  {mark}{' '.join(why.replace('QUESTION: ', '').split())}")
    for entity, column in f.derived:
        extra = ', { field = "name" }' if "name" in schema.entity(entity).fields else ""
        out += ["", f"# each {entity} that column {_toml(column)} names, once", "[[file]]", f"name = {_toml(name)}", f'entity = "{entity}"', "distinct = true"]
        out += [f"placeholders = {_toml(found)}"] * bool(found) + ["[file.columns]", f'{_toml(column)} = [{{ field = "id" }}{extra}]']
    return out


def _written(files: list[_File]) -> str:
    folder = Path(os.path.commonpath([f.path.resolve().parent for f in files]))
    stem = files[0].path.name.split(".")[0] if len(files) == 1 else folder.name
    source = re.sub(r"[^a-z0-9]+", "_", unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()).strip("_") or "export"
    source = f"{source}_export" if source == "demo" else source
    timed = any(c.kind == "time" for f in files for c in f.columns.values())
    out = ["# Drafted from the files; each line says why. Answer the lines marked QUESTION, then: workbench import THIS_FILE --data FOLDER",
           "# known_at: assumed = it stood like this at creation, on your word; current_only and outcome never train a model (docs/mapping.md).",
           f'source = "{source}"  # the name that ids begin with', "# exported_on = 2024-12-31  # QUESTION: on which day were the files exported? Without it their latest event counts, or now"]
    out += ['time_zone = "UTC"  # QUESTION: in which time zone are times that state none, e.g. "Europe/Berlin"?'] if timed else []
    for f in sorted(files, key=lambda f: not f.entity):
        if f.entity:
            out += _file_lines(f, f.path.resolve().relative_to(folder).as_posix())
        else:
            out += ["", f"# {_toml(f.path.name)} is left out: neither its name nor its columns tell what a row is. QUESTION: is it needed?"]
    return "\n".join(out) + "\n"
