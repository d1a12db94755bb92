"""The three stand-ins by name, each with the settings and secrets of a source that reads it."""

from __future__ import annotations

from importlib import import_module

import pytest

from tests.servers.base import Server
from tests.servers.organisation import Organisation

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


def connector(crm: str, server: Server, monkeypatch: pytest.MonkeyPatch):
    """The connector of source `crm` that reads the stand-in; pages of 20 where the reader chooses them; no waiting."""
    module = import_module(f"workbench.connect.{crm}")
    for name, value in secrets(crm, server).items():
        monkeypatch.setenv(name, value)
    if crm == "agentbox":
        monkeypatch.setattr(module, "PAGE", 20)
    return module.Connector("crm", settings(crm, server))


def of(*crms: str) -> list:
    """Parameters of a test: each CRM, skipped where its stand-in or connector is not there."""
    return [pytest.param(crm, marks=pytest.mark.skipif(not _there(crm), reason=f"no connector or stand-in of {crm}")) for crm in crms or NAMES]


def _there(crm: str) -> bool:
    try:
        return hasattr(import_module(f"workbench.connect.{crm}"), "Connector") and hasattr(import_module(f"tests.servers.{crm}"), crm.capitalize())
    except ImportError:
        return False
