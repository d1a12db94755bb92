"""`make demo CRM=salesforce|pipedrive|agentbox`: the demo organisation through a stand-in CRM: `python -m tests.crm_demo CRM`.

The stand-in serves the small demo organisation on a free port of the loopback, moved so that its last day is yesterday; `workbench sync` reads it over HTTP into the lake, as
source CRM; then the stand-in ends, and every notebook runs on that source.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from tests.servers import crms
from tests.servers.base import Server
from tests.servers.demo_org import as_agency, demo_organisation
from workbench.connect.demo import make_demo
from workbench.lake import open_lake

WORKBENCH = [sys.executable, "-c", "from workbench.cli import main; main()"]


def demo_server(crm: str, now: datetime) -> Server:
    """The stand-in over the demo organisation as of `now`, not yet started."""
    with tempfile.TemporaryDirectory() as folder:
        lake = open_lake(folder, create=True)
        make_demo(lake)
        org = demo_organisation(lake, now)
    server = getattr(import_module(f"tests.servers.{crm}"), crm.capitalize())(as_agency(org) if crm == "agentbox" else org)
    if crm == "pipedrive":  # its organisation does not change any more, and the day's tokens suffice for all of its past
        server.daily, server.mirror.refresh = 100_000_000, lambda: None
    return server


def main() -> int:
    """Exit code of the notebooks, or of the sync where it failed."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("crm", choices=crms.NAMES)
    crm = told.parse_args().crm
    with tempfile.TemporaryDirectory() as folder:
        with demo_server(crm, datetime.now(UTC).replace(tzinfo=None, microsecond=0)) as server:
            settings = "\n".join(f"{key} = {f'{value!r}'.lower() if not isinstance(value, str) else f'{chr(34)}{value}{chr(34)}'}" for key, value in crms.settings(crm, server).items())
            toml = Path(folder, "workbench.toml")
            toml.write_text(f"[sources.{crm}]\n{settings}\n", encoding="utf-8")
            environment = os.environ | crms.secrets(crm, server, crm) | {"WORKBENCH_TOML": str(toml)}
            if code := subprocess.run([*WORKBENCH, "sync", crm], env=environment).returncode:
                return code
    return subprocess.run([*WORKBENCH, "run", "all", "--source", crm]).returncode


if __name__ == "__main__":
    sys.exit(main())
