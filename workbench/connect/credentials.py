"""Secrets from the environment or the keyring, never from a file; connectors opened from [sources.NAME]."""

from __future__ import annotations

from typing import Any

from workbench.connect.streams import Connector


def secret(source: str, key: str, *, needed: bool = True) -> str:
    """The secret `key` (lower case: client_id, token ...) of a source: WORKBENCH_<SOURCE>_<KEY>, else keyring ("workbench", "<source>.<key>");
    "" where it is absent and not needed."""
    raise NotImplementedError


def keep(source: str, key: str, value: str) -> None:
    """Put a secret into the keyring (a rotated refresh token, what `workbench connect` asked for)."""
    raise NotImplementedError


def open_connector(source: str, told: dict[str, Any]) -> Connector:
    """The connector of [sources.NAME]: class `Connector` of workbench.connect.<crm>, made as Connector(source, told).

    told: crm, url, version, share, auth, keep_bodies, fields {entity: {canonical: native}}, and what the CRM adds. url must be https://, or
    http:// on 127.0.0.1, ::1 or localhost.
    """
    raise NotImplementedError
