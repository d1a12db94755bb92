"""What names of files and columns usually mean in CRM exports: the words of names.toml, no content."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable
from importlib import resources

NAMES = tomllib.loads(resources.files("workbench.connect").joinpath("names.toml").read_text(encoding="utf-8"))
WORD = {name: re.compile(pattern) for name, pattern in NAMES["words"].items()}
_FIELDS = [(e.split(), name, re.compile(pattern)) for e, name, pattern in (line.split(" | ", 2) for line in NAMES["fields"]["text"].strip().splitlines())]


def plain(name: str, entity: str = "") -> str:
    """A name in small words, without the entity that it belongs to.

    >>> plain("Deal - Won time", "deal"), plain("CreatedDate"), plain("Lead_Source", "lead"), plain("Währung")
    ('won time', 'created date', 'source', 'wahrung')
    """
    text = unicodedata.normalize("NFKD", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).replace("ß", "ss"))
    words = re.sub(r"[^a-z0-9]+", " ", "".join(ch for ch in text.lower() if not unicodedata.combining(ch))).strip()
    for own in NAMES["entities"].get(entity, ()):
        if words.startswith(own + " ") and entity != "user":
            words = words.removeprefix(own + " ")
    return words


def canonical_field(name: str, entity: str) -> str:
    """The field of `entity` that a column of this name usually is; "" where no name is known.

    >>> canonical_field("Deal - Organization", "deal"), canonical_field("Lead Source", "lead"), canonical_field("Shoe size", "lead")
    ('account_id', 'source', '')
    """
    for text in dict.fromkeys([plain(name, entity), plain(name)]):
        for entities, field, pattern in _FIELDS:
            if entity in entities and pattern.fullmatch(text):
                return field
    return ""


def entity_of(file: str, columns: Iterable[str], outcome: bool = False) -> tuple[str, bool]:
    """(entity, sure) of a file, by its name and those of its columns; "" where nothing tells. People with an `outcome` are leads.

    >>> entity_of("sales_pipeline.csv", ["opportunity_id", "account", "deal_stage"]), entity_of("x.csv", ["a", "b"])
    (('deal', True), ('', False))
    """
    names, stem = [plain(c) for c in columns], plain(re.sub(r"\..*", "", file))
    scores = {}
    for entity, words in NAMES["entities"].items():
        named = any(re.search(rf"\b({w}(s|es|n|en)?|{w[:-1]}ies)\b", stem) for w in words)
        telling = sum(bool(re.search(NAMES["telling"][entity], n)) for n in names)
        scores[entity] = 5 * named + 3 * min(telling, 3) + sum(canonical_field(n, entity) != "" for n in names) / 10
    best = max(scores, key=lambda e: scores[e])
    people = best == "contact" and any(re.search(NAMES["telling"]["lead"], n) for n in names)
    if people or outcome and best not in ("lead", "deal") and (scores[best] < 5 or best == "contact"):
        return "lead", people or best == "contact"
    return (best, scores[best] >= 5) if scores[best] >= 3 else ("", False)
