"""Secrets: where they come from, and that they go nowhere else (canaries)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keyring
import pytest
from keyring.errors import KeyringError

from tests.servers import crms
from tests.servers.organisation import organisation
from tests.servers.ring import Memory
from workbench.connect.credentials import connect, keep, open_connector, secret
from workbench.errors import WorkbenchError


class Broken(Memory):
    def get_password(self, service, username, *_):
        raise KeyringError("no keyring on this machine")

    set_password = get_password  # type: ignore[assignment]


@pytest.fixture
def ring():
    before, ours = keyring.get_keyring(), Memory()
    keyring.set_keyring(ours)
    yield ours
    keyring.set_keyring(before)


@pytest.fixture
def no_ring(ring):
    keyring.set_keyring(Broken())


def project(folder: Path, text: str, monkeypatch) -> None:
    (folder / "workbench.toml").write_text(text)
    monkeypatch.chdir(folder)


def test_a_secret_comes_from_the_environment_before_the_keyring(ring, monkeypatch):
    keep("crm", "token", "of the ring")
    assert secret("crm", "token") == "of the ring" and ring.kept == {("workbench", "crm.token"): "of the ring"}
    monkeypatch.setenv("WORKBENCH_CRM_TOKEN", "of the environment")
    assert secret("crm", "token") == "of the environment"


def test_a_missing_secret_says_where_to_put_it(no_ring):
    with pytest.raises(WorkbenchError, match="workbench connect crm.*WORKBENCH_CRM_TOKEN"):
        secret("crm", "token")
    assert secret("crm", "token", needed=False) == "" and keep("crm", "token", "x") is False


@pytest.mark.parametrize(("lines", "words"), [
    ('crm = "salesforce"\nurl = "http://example.com"', "no address for a CRM"), ('crm = "hubspot"\nurl = "https://example.com"', "crm cannot be 'hubspot'"),
    ('crm = "pipedrive"\nurl = "https://example.com"\napi_token = "abc"', "secrets never stand in a file"),
    ('crm = "pipedrive"\nurl = "https://example.com"\nshare = 2', "share cannot be 2"),
    ('crm = "pipedrive"\nurl = "https://example.com"\n[sources.crm.fields.deal]\nnonsense = "a"', "nonsense is no field")])
def test_a_source_that_cannot_be_right_is_refused_with_a_sentence(lines, words, tmp_path, monkeypatch, ring):
    project(tmp_path, f"[sources.crm]\n{lines}\n", monkeypatch)
    monkeypatch.setenv("WORKBENCH_CRM_TOKEN", "x")
    with pytest.raises(WorkbenchError, match=words):
        open_connector("crm").streams  # noqa: B018


def test_an_unknown_source_names_those_that_there_are(tmp_path, monkeypatch):
    project(tmp_path, '[sources.sales]\ncrm = "pipedrive"\nurl = "https://example.com"\n', monkeypatch)
    with pytest.raises(WorkbenchError, match="named are: sales"):
        open_connector("other")


@pytest.mark.parametrize("crm", crms.of())
def test_connect_asks_for_what_is_missing_keeps_it_and_tells_what_may_be_read(crm, ring, tmp_path, monkeypatch):
    with crms.stand_in(crm, organisation()) as server:
        project(tmp_path, f'[sources.crm]\ncrm = "{crm}"\nurl = "{server.url}"\n', monkeypatch)
        told = {k.removeprefix("WORKBENCH_CRM_").lower(): v for k, v in crms.secrets(crm, server).items()}
        asked: list[tuple[str, bool]] = []

        def ask(words: str, hidden: bool) -> str:
            asked.append((words, hidden))
            return told[words.split()[0]]

        readable, notes = connect("crm", ask)
        assert [hidden for _, hidden in asked] == [True] * len(told) and set(ring.kept.values()) == set(told.values()) and notes == []
        assert sum(r["readable"] for r in readable) > 5
        connect("crm", lambda words, hidden: pytest.fail("asked again"))


def run(*words: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run([str(Path(sys.executable).parent / "workbench"), *words], cwd=folder, env={**os.environ, **env, "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}, capture_output=True, timeout=120)


@pytest.mark.parametrize("crm", crms.of())
def test_no_secret_is_in_any_output_error_or_file_of_the_lake(crm, tmp_path):
    """A sync that works and one that is refused; then every byte that was printed or written is searched."""
    with crms.stand_in(crm, organisation()) as server:
        (tmp_path / "workbench.toml").write_text(f'[sources.crm]\ncrm = "{crm}"\nurl = "{server.url}"\nshare = 1.0\n')
        env = crms.secrets(crm, server)
        canaries = {v for k, v in env.items() if not k.endswith("CLIENT_ID")}
        done = [run("sync", "crm", folder=tmp_path, env=env), run("status", folder=tmp_path, env={})]
        assert [d.returncode for d in done] == [0, 0], done[0].stderr.decode()
        server.faults.add("unauthorized", 3, times=0)
        refused = run("sync", "crm", "--full", folder=tmp_path, env=env)
        assert refused.returncode == 1 and b"Traceback" not in refused.stderr and b"streams failed" in refused.stderr
        canaries |= {*getattr(server, "tokens", ())}  # what the server gave in exchange
        written = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
        asked = " ".join(path for _, path in server.requests).encode()
        for canary in (c.encode() for c in canaries):
            assert not any(canary in text for d in (*done, refused) for text in (d.stdout, d.stderr)), "printed"
            assert not any(canary in text for text in written), "written"
            assert canary not in asked, "in an address"
        assert len(canaries) >= 1 and len(written) > 50
