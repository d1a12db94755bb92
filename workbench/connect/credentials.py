"""Secrets from the environment or the keyring, never from a file; connectors opened from [sources.NAME]."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from importlib import import_module
from os import environ
from typing import Any

from workbench.connect.http import HttpClient, Refused, checked_address
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


def refreshed(source: str, login: str, path: str) -> dict[str, Any]:
    """A new access token for an OAuth 2 refresh token: the answer of POST login + path. The refresh token that comes with it is kept (as rotated_token) before
    anything else is asked, for the old one may never work again; where that fails, the one that was entered since is tried."""
    client_id, word, entered = (secret(source, key) for key in ("client_id", "client_secret", "refresh_token"))
    kept, basic = secret(source, "rotated_token", needed=False), b64encode(f"{client_id}:{word}".encode()).decode()
    client = HttpClient(login, crm=f"{login}{path}", headers=lambda: {"Authorization": f"Basic {basic}"}, secrets=lambda: [word, entered, kept])
    for token in filter(None, (kept, entered)):
        try:
            told = client.post(path, {"grant_type": "refresh_token", "refresh_token": token}).json()
            break
        except Refused as refused:
            if token == entered or refused.status not in (400, 401):
                raise
    if (new := told.get("refresh_token", token)) != token and not keep(source, "rotated_token", new):
        raise WorkbenchError(f"{login} gave a new refresh token, and there is no keyring to keep it.", fix="Install a keyring where syncs run, or log in another way.")
    return told


# What each way to log in needs; those after "|" only where the vendor gave them.
KEYS = {("salesforce", "client_credentials"): "client_id client_secret", ("salesforce", "jwt"): "client_id username private_key", ("salesforce", "refresh_token"):
        "client_id refresh_token | client_secret", ("salesforce", "password"): "client_id client_secret username password | security_token", ("pipedrive", "token"): "token",
        ("pipedrive", "oauth"): "client_id client_secret refresh_token", ("agentbox", "key"): "client_id api_key"}


def connect(source: str, ask: Callable[[str, bool], str], *, anew: bool = False) -> tuple[list[dict], list[str]]:
    """Ask for what is not known of a source (`ask(words, hidden)`; `anew`: for everything), keep it in the keyring, and tell what may be read
    (rows of Connector.check) and what is left to do. A CRM's name serves for a source that workbench.toml does not name yet."""
    told, notes = settings().sources.get(source), []
    if told is None and source in CRMS:
        told = {"crm": source, "url": ask(f"Address of your {source.capitalize()} (https://...)", False)}
        notes.append(f'Write into workbench.toml:\n[sources.{source}]\ncrm = "{source}"\nurl = "{checked_address(told["url"])}"')
    if told is not None:
        ways = [way for crm, way in KEYS if crm == told["crm"]]
        if (way := told.get("auth", ways[0])) not in ways:
            raise WorkbenchError(f"[sources.{source}] auth = {way!r} is unknown.", fix=f"One of {', '.join(ways)}.")
        must, _, may = KEYS[told["crm"], way].partition("|")
        for key in (*must.split(), *may.split()):
            if anew or not secret(source, key, needed=False):
                value = ask(f"{key} of {source}" + " (empty if there is none)" * (key in may.split()), True)
                if value and not keep(source, key, value):
                    environ[name := f"WORKBENCH_{source}_{key}".upper()] = value
                    notes.append(f"There is no keyring here, so {key} was not kept: set {name} where syncs run.")
    return open_connector(source, told).check(), notes


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
