"""Secrets from the environment or the keyring, never from a file; connectors opened from [sources.NAME]."""

from __future__ import annotations

from importlib import import_module
from os import environ
from typing import Any

from workbench.connect.http import checked_address
from workbench.connect.streams import Connector
from workbench.errors import WorkbenchError
from workbench.settings import CRMS, settings


def secret(source: str, key: str, *, needed: bool = True) -> str:
    """The secret `key` (lower case: client_id, token ...) of a source: WORKBENCH_<SOURCE>_<KEY>, else keyring ("workbench", "<source>.<key>");
    "" where it is absent and not needed."""
    if value := environ.get(name := f"WORKBENCH_{source}_{key}".upper(), ""):
        return value
    import keyring
    from keyring.errors import KeyringError

    try:
        value = keyring.get_password("workbench", f"{source}.{key}") or ""
    except KeyringError:  # a server without one
        value = ""
    if needed and not value:
        raise WorkbenchError(f"The secret {key} of source {source} is not known.", fix=f"Run `workbench connect {source}`, or set {name}.")
    return value


def keep(source: str, key: str, value: str) -> bool:
    """Put a secret into the keyring (a rotated refresh token, what `workbench connect` asked for); False where there is none."""
    import keyring
    from keyring.errors import KeyringError

    try:
        keyring.set_password("workbench", f"{source}.{key}", value)
        return True
    except KeyringError:
        return False


def open_connector(source: str, told: dict[str, Any] | None = None) -> Connector:
    """The connector of [sources.NAME]: class `Connector` of workbench.connect.<crm>, made as Connector(source, told).

    told (default: from workbench.toml): crm, url, version, share, auth, keep_bodies, fields {entity: {canonical: native}}, and what the CRM
    adds. url must be https://, or http:// on 127.0.0.1, ::1 or localhost.
    """
    known = settings().sources
    if told is None and source not in known:
        raise WorkbenchError(f"There is no source {source!r} in workbench.toml.", fix=f"Write [sources.{source}] with crm and url; named are: {', '.join(known) or 'none'}.")
    told = known[source] if told is None else told
    if told.get("crm") not in CRMS:
        raise WorkbenchError(f"[sources.{source}] crm = {told.get('crm')!r} is none that is known.", fix=f"One of {', '.join(CRMS)}.")
    if told.get("url"):
        checked_address(told["url"])
    return import_module(f"workbench.connect.{told['crm']}").Connector(source, told)
