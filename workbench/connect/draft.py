"""Draft a mapping from the files themselves: each line says why it stands, and each open question is marked."""

from __future__ import annotations

import difflib
import re
import unicodedata
from pathlib import Path

from workbench import schema
from workbench.connect.checked import NO, YES, raw_sql
from workbench.connect.drafted import Draft, mapping_text, toml
from workbench.connect.profile import ANSWERS, FIELDS, NAMES, WORD, Column, canonical_field, entity_of, plain
from workbench.connect.tables import read_text_table, text_database
from workbench.errors import WorkbenchError

_REFERENCES = {"user": "owner_id", "account": "account_id", "product": "product_id", "contact": "contact_id", "campaign": "campaign_id", "lead": "source_lead_id"}
_NAMED = ("user", "product", "account", "campaign")  # known by their names, which may serve as keys
_FITS = {"text": ("text", "int", "float", "bool", "date", "time"), "int": ("int",), "float": ("int", "float"), "money": ("int", "float"),
         "bool": ("bool",), "date": ("date", "time"), "time": ("date", "time")}


def draft_mapping(paths: list[Path] | list[str]) -> str:
    """A mapping (TOML text that `read_mapping` takes) for plain exports, drafted from names and content.

    Every line says why; what the files cannot tell is marked `# QUESTION:`. Files of which no entity can be told are left out, with a note.
    """
    if not paths:
        raise WorkbenchError("No file is named.", fix="Run `workbench mapping FILE...`.")
    files, connection = list[Draft](), text_database()
    for path in map(Path, paths):
        if not path.is_file():
            raise WorkbenchError(f"There is no file {path}.", fix="Name the files of the export.")
        table = read_text_table(path, connection=connection, name=f"raw_{len(files)}")
        columns = {name: Column(table, name) for name in table.columns}
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
    own = NAMES["entities"][f.entity]
    others = "|".join(w for words in NAMES["entities"].values() for w in words if w not in own)
    found = [c for c in unique if WORD["key"].search(plain(c)) and not re.search(rf"\b({others})\b", plain(c))]
    found += [c for c in unique if plain(c) in own or canonical_field(c, f.entity) == "name" and f.entity in _NAMED]
    found += [c for c in unique if WORD["number"].search(plain(c))]
    found += [c.name for c in f.columns.values() if re.fullmatch(r"(\w+ )?id", plain(c.name)) and c.distinct > 0.9 * c.n]
    return next(iter(found + [c for c in unique if f.columns[c].kind == "text"]), "")


def _draft_file(f: Draft, files: list[Draft]) -> None:
    story = f.entity in ("deal", "lead")
    if f.key:
        c = f.columns[f.key]
        repeats = f"QUESTION: the key? {c.n - c.distinct:,} rows repeat another's or have none, and will be rejected"
        f.put(f.key, "id", "unique and never empty" if c.unique else repeats)
    else:
        f.head.append("# QUESTION: which column identifies a row? None is unique; the line number stands in, so another export cannot update this one.")
    _join_columns(f)
    if story:
        _find_outcome(f)
        for column in [c for c in f.lines if f.lines[c] and c != f.key and c not in f.joins and f.columns[c].kind == "text"][-1:]:
            f.put(column, {"deal": "stage", "lead": "status"}[f.entity], "as a step: today's value", known_at="current_only")
    _find_references(f, files)
    claims = _claims(f)
    for c in f.columns.values():
        if c.name not in f.lines or c.name in claims:
            _draft_column(f, c, claims.get(c.name, ""))
    if story and not f.has("created_at"):
        runs = [c.name for c in f.columns.values() if c.unique and c.kind == "int" and c.name != f.key and WORD["running"].search(plain(c.name))][:1]
        f.head += [f"order_by = {toml(r)}  # QUESTION: a running number; is larger later?" for r in runs] or [
            "# QUESTION: no column tells when a record was created, so it is scored without time; is there one to export?"]
        f.lines = {c: told for c, told in f.lines.items() if c not in runs}
    money = next((c for c in f.columns.values() if any(e.get("field") == "amount" for e in f.lines.get(c.name, []))), None)
    if money and not f.has("currency"):
        found = WORD["currency"].search(" ".join([money.name, *(v for v, _ in money.values[:5])]))
        code = {"€": "EUR", "$": "USD", "£": "GBP"}.get(found[0], found[0]) if found else ""
        f.head.append(f'constants = {{ currency = "{code}" }}  # as the amounts say' if found else
                      '# QUESTION: in which currency are the amounts?  constants = { currency = "USD" }')


def _join_columns(f: Draft) -> None:
    """Make one column of first and last name, of won and lost time, of closed and won."""
    for rule in NAMES["join"]:
        known = [c for c in f.columns.values() if f.entity in rule["entities"].split() and c.kind in rule["kinds"].split()]
        parts = [next((c for c in known if re.fullmatch(p, plain(c.name, f.entity))), None) for p in rule["parts"]]
        whole = [c for c in f.columns.values() if c not in parts and canonical_field(c.name, f.entity) == rule["unless"] != ""]
        if all(parts) and not whole:
            f.join(rule["name"], [c for c in parts if c])


def _meaning(value: str) -> bool | str:
    """Won (True), lost (False) or open (""), by words; of two answers the second counts where the first is yes.

    >>> _meaning("Closed Won"), _meaning("Junk"), _meaning("Demo"), _meaning("no"), _meaning("1 0"), _meaning("0 0")
    (True, False, '', False, False, '')
    """
    answers = [ANSWERS.get(word) for word in value.lower().split()]
    if None not in answers:
        return bool(answers[-1]) if all(answers[:-1]) else ""
    return False if WORD["lost"].search(plain(value)) else True if WORD["won"].search(plain(value)) else ""


def _find_outcome(f: Draft) -> None:
    """Which column tells won and lost (deal) or converted and given up (lead); sets f.won."""
    lead, won = f.entity == "lead", schema.WON[f.entity]
    told = {c: {v: _meaning(v) for v, _ in c.values} for c in f.columns.values() if c.filled and (
        c.kind == "bool" and WORD[f"{f.entity}_outcome"].search(plain(c.name)) or
        (c.kind == "text" or c.name in f.joins) and 1 < c.distinct <= 60 and WORD["outcome"].search(plain(c.name)))}
    told = dict(sorted(told.items(), key=lambda item: ((item[0].kind == "bool") != lead, list(item[1].values()).count(""))))  # the clearest first
    c = next((c for c, words in told.items() if c.kind == "bool" or ({True} if lead else {True, False}) <= set(words.values())), None)
    ended = next((c for c in f.columns.values() if c.kind in ("date", "time") and plain(c.name, f.entity).startswith("won ")), None)
    if c and c.kind == "bool":
        asked = "QUESTION: does a no mean lost, or may it still be open? Map open ones to missing"
        f.put_won(c.name, won, "the outcome, by its name and its two values" if lead else asked, _foreign_answers(c))
    elif c and lead:
        f.put_won(c.name, won, "QUESTION: which values mean converted? Read by their words", {v: w for v, w in told[c].items() if w is True} | {"*": False})
    elif c:
        f.put_won(c.name, won, "which values mean won and lost, by their words; the others are open",
                  {v: w for v, w in told[c].items() if w != ""} | {"*": ""})
    elif ended and not lead:
        f.put_won(ended.name, won, "QUESTION: a deal with this date is won; which are lost?", {"*": True})
    else:
        what = "a lead became a customer" if lead else "a deal was won or lost"
        f.head.append(f"# QUESTION: which column tells whether {what}? Map it to {won}; without it nothing can be learned.")
    lost = {c: {v: True for v, w in words.items() if w is False} for c, words in told.items() if WORD["step"].search(plain(c.name))}
    if f.won and lead and lost:
        step = max(lost, key=lambda c: len(lost[c]))
        why = "these values mean given up, by their words; the others may still convert" if lost[step] else "QUESTION: does one of its values mean given up?"
        f.put(step.name, "is_lost", why, values=lost[step] | {"*": False} | ({"": False} if step.filled < step.n else {}))
    elif f.won and lead:
        f.head.append('# QUESTION: may a lead that has not converted still do so? As it stands, "no" counts as decided.')


def _foreign_answers(c: Column) -> dict:
    """What yes and no mean where the import does not know the words."""
    return {v: ANSWERS[v.lower()] for v, _ in c.values if v.lower() not in YES + NO}


def _find_references(f: Draft, files: list[Draft]) -> None:
    """Columns whose values are keys of another file (or of this one), with near spellings repaired."""
    fields, connection = schema.entity(f.entity).fields, f.table.connection
    for c in [c for c in f.columns.values() if c.kind in ("text", "int") and c.filled and c.name != f.key and c.name not in f.lines]:
        if c.kind == "int" and not re.search(r"\bid\b|key", plain(c.name)):
            continue  # a count is within any range of running numbers
        for other in files:
            target = "parent_id" if other is f and f.entity == "account" else "" if other is f else _REFERENCES.get(other.entity, "")
            known = fields.get(f"{other.entity}_id" if f.entity == "activity" else target)
            if not other.key or known is None or f.has(known.name) or other.columns[other.key].distinct < 3:
                continue
            keys = f"select {raw_sql(other.key)} as k from {other.table.name} where k is not null"
            broken = connection.sql(f"""select {raw_sql(c.name)} as v, count(*) from {f.table.name} where v is not null and v not in ({keys})
                group by 1 order by 2 desc, 1""").fetchall()
            near = _nearest([v for v, _ in broken[:200]], [k for k, in connection.sql(keys).fetchall()]) if broken else {}
            left = sum(n for v, n in broken if v not in near and v not in c.placeholders)
            if left > 0.4 * c.filled:
                continue
            why = f"{1 - left / c.filled:.1%} of its values are keys of {other.path.name}"
            why += f"; QUESTION: {', '.join(f'{a!r} meant as {b!r}' for a, b in list(near.items())[:3])}?" if near else ""
            late, reason = _late(f, c)
            f.put(c.name, known.name, "; ".join(filter(None, [why, reason])), values=near, known_at=_known_at(late, known.known_at))
            break


def _bare(value: str) -> str:
    return re.sub(r"[\W_]", "", value).lower() or value


def _nearest(values: list[str], keys: list[str]) -> dict[str, str]:
    """value -> the key that it seems to mean: the same letters, or nearly."""
    bare, few = {_bare(k): k for k in keys}, keys if len(keys) < 5000 else []
    found = {v: bare.get(_bare(v)) or next(iter(difflib.get_close_matches(v, few, 1, 0.88)), "") for v in values}
    return {v: k for v, k in found.items() if k}


def _claims(f: Draft) -> dict[str, str]:
    """column -> the field that its name and kind tell; the surest column of a field has it."""
    fields, claims = schema.entity(f.entity).fields, dict[str, str]()
    free = [c for c in f.columns.values() if c.name not in f.lines or f.lines[c.name] and (c.name == f.key or c.kind in ("date", "time"))]
    for entities, name, pattern in FIELDS:
        known = fields.get(name) if f.entity in entities.split() and name not in claims.values() and not f.has(name) else None
        c = next((c for c in free if known and c.kind in _FITS[known.kind] and c.name not in claims
                  and any(re.fullmatch(pattern, plain(c.name, own)) for own in (f.entity, ""))), None)
        if c and known and (c.name != f.key or name == "name" and f.entity in _NAMED) and (not known.references or known.references in _NAMED and (
                c.kind == "text" or "id" in plain(c.name))):
            claims[c.name] = name
    dates = [c for c in free if c.kind in ("date", "time") and c.name not in claims]
    if "created_at" in fields and "created_at" not in claims.values() and len(dates) == 1 and not any(WORD[w].search(plain(dates[0].name)) for w in ("late", "personal")):
        claims[dates[0].name] = "created_at"
        f.notes[dates[0].name] = ["QUESTION: the creation? It is the only date left"]
    plan = next((f.columns[c] for c, name in claims.items() if name == "closed_at"), None)
    if plan and f.won and f.entity == "deal" and "close_on" not in claims.values() and (opened := plan.evidence(f.won)["filled_open"]) > 0.2:
        _put_date(f, plan, "close_on", f"filled in {opened:.0%} of the open ones: a plan until they close", known_at="current_only")
    return claims


def _put_date(f: Draft, c: Column, name: str, why: str, **options: object) -> None:
    formats = c.formats
    if c.other:
        sure = {d.formats[0][:2] for d in f.columns.values() if d.formats and not d.other}
        fitting = [told for told in (c.formats, c.other) if told[0][:2] in sure]
        formats = fitting[0] if len(fitting) == 1 else formats
        asked = f"QUESTION: is the day or the month first? Each date fits {c.formats[0]} and {c.other[0]}"
        why += "; day and month as in the file's other dates" if len(fitting) == 1 else f"; {asked}"
    elif formats and formats[0][1] in "dm":
        why += f"; only {formats[0]} fits"
    f.put(c.name, name, why, format=formats[0] if len(formats) == 1 else formats, **options)


def _late(f: Draft, c: Column) -> tuple[str, str]:
    """(known_at, why) where a column seems to be written after creation: by its name, or by what it tells of the outcome."""
    e = c.evidence(f.won) if f.won else {"n": 0}
    if e["n"] >= 60:
        low, high = sorted([e["filled_rate"], e["empty_rate"]])
        pure = f"{e['pure']:.0%} of the rows in values of one outcome"
        if e["auc"] > 0.95 or e["pure"] >= 0.2:
            return "outcome", f"LEAK: alone it tells the outcome (AUC {e['auc']:.2f}, {pure})"
        if e["filled_decided"] - e["filled_open"] > 0.5:
            return "outcome", f"LEAK: filled in {e['filled_decided']:.0%} of the decided, in {e['filled_open']:.0%} of the open"
        if e["auc"] > 0.85 or e["pure"] >= 0.05:
            return "current_only", f"suspect: AUC {e['auc']:.2f} alone, {pure}"
        if min(e["n_empty"], e["n"] - e["n_empty"]) >= 0.05 * e["n"] and high > 2.5 * max(low, 0.001):
            return "current_only", (f"suspect: {e['filled_rate']:.0%} won where filled, {e['empty_rate']:.0%} where empty, "
                                    "so it seems to be filled in along the way")
    if plain(c.name) == "age" and all(re.fullmatch(r"1[4-9]|[2-9]\d|10\d", v) for v, _ in c.values):
        return "", "a person's age, by its values"
    if WORD["late"].search(plain(c.name)):
        return "current_only", "by its name today's value, or somebody's judgement of unknown date"
    return ("current_only", "a date that may be written later") if c.kind in ("date", "time") else ("", "")


def _known_at(late: str, default: str) -> str:
    return late or ("" if default in ("fixed", "outcome") else "assumed")


def _draft_column(f: Draft, c: Column, name: str) -> None:
    known = schema.entity(f.entity).fields.get(name)
    dated = known is not None and known.kind in ("date", "time")
    if c.filled == 0 or c.distinct == 1 and c.filled == c.n > 1 and not dated:
        return f.ignore(c.name, f"always {c.values[0][0]!r}: tells nothing" if c.filled else "always empty")
    late, why = ("", "") if c.name == f.key or dated and known and known.known_at != "historized" else _late(f, c)
    notes = [f"by its name; {c.distinct:,} values" if known else f"{c.distinct:,} values"] + [why] * bool(why)
    options: dict = {}
    if known and known.references:
        f.derived.append((known.references, c.name))
        notes[0] = f"its {c.distinct:,} values become records of their own below"
    personal = bool(known and known.personal or c.personal or WORD["personal"].search(plain(c.name)) and not known)
    if personal:
        notes.append(f"personal: {c.personal}" if c.personal else "personal")
    if not known:
        name, options = _own_name(f, c.name), {"type": c.kind if c.kind != "text" else "", "personal": personal}
    kind, decimal = known.kind if known else c.kind, c.decimal or f.decimal
    if kind in ("int", "float", "money") and decimal == ",":
        options["decimal"] = decimal
        notes.append("decimal comma")
    options |= {"known_at": _known_at(late, known.known_at if known else "historized"), "values": _foreign_answers(c) if kind == "bool" else {}}
    if kind == "text" and c.distinct <= 300 and not c.personal and (same := _spellings(c)):
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
        usual.setdefault(_bare(v), v)
    return {v: usual[_bare(v)] for v, _ in c.values if usual[_bare(v)] != v}


def _own_name(f: Draft, column: str) -> str:
    text = unicodedata.normalize("NFKD", column).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "_", text).strip("_")[:48] or f"column_{list(f.columns).index(column) + 1}"
    while f.has(f"x_{slug}"):
        slug += "_2"
    return f"x_{slug}"
