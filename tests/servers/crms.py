"""The three stand-ins by name, each with the settings and secrets of a source that reads it."""

from __future__ import annotations

import time
from datetime import date, datetime
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pandas as pd
import pytest

from tests.servers.base import Server
from tests.servers.organisation import Organisation
from workbench.connect.http import HttpClient

NAMES = ("salesforce", "pipedrive", "agentbox")
SMALL = {"salesforce": {"page": 60}, "pipedrive": {"page": 60}, "agentbox": {}}  # pages small enough for faults between them
LIVE = {"salesforce": ("user", "stage", "campaign", "product", "account", "contact", "lead", "deal", "activity", "deal_product", "deal_contact", "membership", "quota", "fx_rate"),
        "pipedrive": ("user", "stage", "product", "account", "contact", "lead", "deal", "activity", "deal_product"),
        "agentbox": ("user", "contact", "listing", "requirement", "lead", "activity")}


def stand_in(crm: str, org: Organisation) -> Server:
    """A stand-in over `org`, not yet started."""
    server = getattr(import_module(f"tests.servers.{crm}"), crm.capitalize())(org, **SMALL[crm])
    if crm == "pipedrive":
        server.daily = 100_000_000
    return server


def secrets(crm: str, server: Server, source: str = "crm") -> dict[str, str]:
    """The environment that lets source `source` in."""
    module = import_module(f"tests.servers.{crm}")
    told = {"salesforce": lambda: {"CLIENT_ID": module.CLIENT_ID, "CLIENT_SECRET": module.CLIENT_SECRET}, "pipedrive": lambda: {"TOKEN": module.TOKEN},
            "agentbox": lambda: {"CLIENT_ID": server.client, "API_KEY": server.key}}[crm]()  # type: ignore[attr-defined]
    return {f"WORKBENCH_{source.upper()}_{key}": value for key, value in told.items()}


def settings(crm: str, server: Server) -> dict:
    """What [sources.NAME] says."""
    return {"crm": crm, "url": server.url, "share": 1.0} | ({"pace": 0} if crm == "agentbox" else {})


# What the fault matrix reads: the streams in which most can go wrong, and the tables that they fill.
FEW = {"salesforce": (("Opportunity", "Lead", "Task", "Event"), ("deal", "lead", "activity")), "pipedrive": (("deals", "leads", "activities", "notes", "mails"), ("deal", "lead", "activity")),
       "agentbox": (("contacts", "listings", "search-requirements", "enquiries", "inspections", "notes"), ("contact", "listing", "requirement", "lead", "activity"))}
_init = HttpClient.__init__


def connector(crm: str, server: Server, monkeypatch: pytest.MonkeyPatch, *, few: bool = False):
    """The connector of source `crm` that reads the stand-in; pages of 20 where the reader chooses them; waits of 10 ms, and 1 s of patience."""
    module = import_module(f"workbench.connect.{crm}")
    for name, value in secrets(crm, server).items():
        monkeypatch.setenv(name, value)
    if crm == "agentbox":
        monkeypatch.setattr(module, "PAGE", 20)
    monkeypatch.setattr(HttpClient, "__init__", lambda self, *a, **k: _init(self, *a, **k | {"wait": lambda s: time.sleep(min(s, 0.01)), "timeout": (2, 1)}))
    made = module.Connector("crm", settings(crm, server))
    if few:
        made.streams = [s for s in made.streams if s.name in FEW[crm][0]]
    return made


def differences(lake, server: Server, entities: tuple[str, ...] = (), *, times: bool = True) -> list[str]:
    """Where the lake's current rows are not what the stand-in says that its CRM shows; [] = row for row, value for value. times: instants count."""
    out = []
    for entity in entities or LIVE[server.crm]:
        wanted, rows = server.expected(entity), lake.read(entity).to_dict("records")
        have = {r["id"].split(":", 1)[1]: r for r in rows}
        out += [f"{entity}: {len(rows) - len(have)} rows twice"] * (len(rows) > len(have))
        out += [f"{entity} {key} is missing" for key in wanted.keys() - have.keys()] + [f"{entity} {key} is too much" for key in have.keys() - wanted.keys()]
        for key in wanted.keys() & have.keys():
            out += [f"{entity} {key}: {name} is {have[key][name]!r}, not {value!r}" for name, value in wanted[key].items()
                    if not _same(have[key][name], value) and (times or not isinstance(value, date))]
    return sorted(out)


def _same(have: Any, wanted: Any) -> bool:
    """Lake's value = canonical value; keys without their source, dates without a time, missing = None."""
    if have is None or have is pd.NaT or isinstance(have, float) and pd.isna(have):
        return wanted is None
    if isinstance(wanted, date) and not isinstance(wanted, datetime):
        return pd.Timestamp(have) == pd.Timestamp(wanted)
    if isinstance(wanted, float) and not isinstance(wanted, bool):
        return abs(have - wanted) < 1e-6
    return have == (f"crm:{wanted}" if isinstance(have, str) and have.startswith("crm:") else wanted)


def broken_histories(lake, entities: tuple[str, ...]) -> list[str]:
    """Records whose versions overlap, leave a gap, repeat themselves, or end without a current one."""
    out = []
    for entity in entities:
        fields = ", ".join(c for c in lake.columns(entity) if c not in ("id", "valid_from", "valid_to", "recorded_at", "origin"))
        out += [f"{entity} {i}" for i, in lake.sql(f"""select distinct id from (select id, valid_to, lead(valid_from) over w as next, hash({fields}) as h, lag(h) over w as before
            from {entity}_versions window w as (partition by id order by valid_from)) where valid_to is distinct from next or h = before""").fetchall()]
    return out


def of(*crms: str) -> list:
    """Parameters of a test: each CRM, skipped where its stand-in or connector is not there."""
    return [pytest.param(crm, marks=pytest.mark.skipif(not _there(crm), reason=f"no connector or stand-in of {crm}")) for crm in crms or NAMES]


def _there(crm: str) -> bool:
    return find_spec(f"workbench.connect.{crm}") is not None and find_spec(f"tests.servers.{crm}") is not None
