"""The command line: arguments in, sentences out. Everything heavy is imported inside the command that needs it."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from workbench import __version__, schema
from workbench.errors import WorkbenchError
from workbench.settings import settings

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Honest analytics over your CRM: import an export, run the notebooks, open reports/index.html.\n\n"
                       "Begin with `workbench demo && workbench run all`, or with `workbench mapping FILE.csv > mapping.toml`.")
lake_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after the lake: versions, compact, vacuum.")
app.add_typer(lake_app, name="lake")


def _use_lake(folder: Path | None) -> Path | None:
    if folder is not None:
        os.environ["WORKBENCH_LAKE"] = str(folder.absolute())
    return folder


Lake = Annotated[Path | None, typer.Option("--lake", metavar="FOLDER", callback=_use_lake, help="The lake's folder (default: WORKBENCH_LAKE or data/lake).")]


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line on stderr that tells what is being done: one that changes on a terminal, one a step in a log."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        yield lambda text: console.print(text, soft_wrap=True)
        return
    with console.status("", spinner="line") as status:
        yield lambda text: status.update(text.replace("[", r"\["))


@app.command()
def demo(size: Annotated[str, typer.Option(help="small (seconds), medium (20,000 leads) or large (for benchmarks).")] = "small",
         seed: Annotated[int, typer.Option(help="The same seed makes the same organisation.")] = 1,
         world: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="Another world, e.g. data/worlds/null.toml, and its truth.")] = None,
         truth: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where a world's truth goes (default: truth/WORLD-SIZE-SEED beside the lake).")] = None,
         if_missing: Annotated[bool, typer.Option("--if-missing", help="Do nothing where the lake holds the demo already.")] = False, lake: Lake = None) -> None:
    """Make the demo organisation, source `demo`.

    48 months of an invented B2B company, with history and dirt, that end on a fixed day.

    A world is the same company under other laws: a file that names what differs, such as `[outcome]` and below it `signal = 0`. Its truth, every open
    lead's chances at nine quarter ends, is written for tests alone; what those chances are worth (the oracle) is printed.

    data/worlds/baseline.toml lists and explains every parameter.
    """
    from workbench.connect.demo import make_demo
    from workbench.connect.demo_worlds import read_world
    from workbench.lake import open_lake

    laws = read_world(world) if world else None
    if truth and not laws:
        raise WorkbenchError("--truth needs a world.", fix="Give --world FILE.toml as well.")
    store = open_lake(create=True)
    if laws:
        truth = truth or store.path.parent / "truth" / f"{laws.name}-{size}-{seed}"
    if if_missing and (store.sources()["source"] == "demo").any():
        typer.echo(f"The demo organisation stands in {_shown(store.path)}.")
        return
    with _progress() as say:
        made = make_demo(store, size=size, seed=seed, world=laws, truth=truth, progress=say)
    typer.echo(made.to_string(index=False))
    if laws and truth:
        told = made.attrs["oracle"]
        typer.echo(f"Oracle (all hidden causes known), within 90 days: log loss {told['log_loss']:.4f}, AUC {told['auc']:.3f}, base rate {told['base_rate']:.4f} "
                   f"({told['n_events']:,} of {told['n']:,}). Truth in {_shown(truth)}.")
    typer.echo(f"Made the demo organisation in {_shown(store.path)}. Next: workbench run all")


@app.command("import")
def import_(mapping: Annotated[Path, typer.Argument(metavar="MAPPING.toml", help="Which column is which field; draft one with `workbench mapping FILE...`.")],
            data: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the files lie (default: beside the mapping).")] = None, lake: Lake = None) -> None:
    """Import an export by its mapping.

    Bad rows become findings; a file with too many of them is refused whole. Importing again replaces the same records.
    """
    from workbench.connect.files import import_files
    from workbench.lake import open_lake

    with _progress() as say:
        report = import_files(open_lake(create=True), mapping, data, at=_now(), progress=say)
    typer.echo(report.message())
    typer.echo(f"Next: workbench run all --source {report.source}")


@app.command()
def connect(source: Annotated[str, typer.Argument(metavar="SOURCE", help="A source of workbench.toml, or salesforce, pipedrive or agentbox.")],
            anew: Annotated[bool, typer.Option("--anew", help="Ask again for what is known already.")] = False) -> None:
    """Ask for a CRM's credentials, try them, and tell what they may read.

    Secrets go to the keyring, never to a file; WORKBENCH_<SOURCE>_<KEY> in the environment counts before it.
    """
    from workbench.connect.credentials import connect as connected

    readable, notes = connected(source, lambda words, hidden: typer.prompt(words, hide_input=hidden, default="", show_default=False, err=True), anew=anew)
    for r in readable:
        history = ", with history" if r.get("history") else ""
        typer.echo(f"{r['stream']:<28} " + (f"readable{history}" if r["readable"] else f"DENIED: {r.get('costs') or 'not needed by any model'}"))
    typer.echo("\n".join([*notes, f"Next: workbench sync {source}"]))


@app.command()
def sync(source: Annotated[str, typer.Argument(metavar="SOURCE", help="A source of workbench.toml (default: all of them).")] = "",
         full: Annotated[bool, typer.Option("--full", help="Pull everything again.")] = False, lake: Lake = None) -> None:
    """Bring the lake to what the CRMs show.

    Exit code 1 when a stream failed; the others are written, and the next sync goes on from there.
    """
    from workbench.connect.sync import sync_sources
    from workbench.lake import open_lake

    with _progress() as say:
        report = sync_sources(open_lake(create=True), [source] if source else list(settings().sources), now=_now(), full=full, progress=say)
    typer.echo(report.drop(columns="error").to_string(index=False))
    if failed := [e for e in report["error"] if e]:
        raise WorkbenchError(f"{len(failed)} of {len(report)} streams failed: " + " ".join(failed[:5]), fix="`workbench status` tells what stands.")


@app.command()
def status(source: Annotated[str, typer.Option(help="One source of the lake.")] = "", lake: Lake = None) -> None:
    """Tell how fresh each stream of each source is."""
    from workbench.connect.status import sync_status
    from workbench.lake import open_lake

    shown = sync_status(open_lake(), _now(), source or None)
    typer.echo(shown.to_string(index=False) if len(shown) else "Nothing was synced yet.")


@app.command()
def mapping(files: Annotated[list[Path], typer.Argument(metavar="FILE", help="CSV, gzip CSV, Excel or Parquet files of one export.")], lake: Lake = None) -> None:
    """Draft a mapping for an export and print it.

    `workbench mapping leads.csv > leads.toml`; open points are marked QUESTION, and every line says why.
    """
    from workbench.connect.draft import draft_mapping

    with _progress() as say:
        say(f"reading {len(files)} file(s)")
        text = draft_mapping(files)
    typer.echo(text, nl=not text.endswith("\n"))
    open_points = text.count("# QUESTION")
    typer.echo(f"{open_points} open question(s) are marked in the draft." if open_points else "The draft has no open question.", err=True)


@app.command()
def run(notebook: Annotated[list[str], typer.Argument(metavar="NOTEBOOK", help="Name, number (10) or `all`.")],
        parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A parameter of the notebook; may be repeated.")] = None,
        as_of: Annotated[str, typer.Option("--as-of", metavar="DATE", help="Everything as it was known at the end of this day, or at an instant.")] = "",
        source: Annotated[str, typer.Option(help="One source of the lake, e.g. demo.")] = "",
        jobs: Annotated[int, typer.Option(min=1, help="How many notebooks at once.")] = 2,
        standalone: Annotated[bool, typer.Option("--standalone", help="Make each report one file that can be mailed.")] = False, lake: Lake = None) -> None:
    """Run notebooks and make their reports.

    Exit code 1 when any of them failed; its notebook and a report that says why are kept.
    """
    from workbench.runs import run_notebooks

    given = dict(_pair(text) for text in parameter or [])
    with _progress() as say:
        records = run_notebooks(notebook, parameters=given, as_of=as_of, source=source, jobs=jobs, standalone=standalone, progress=say)
    _tell(records)


@app.command()
def due(lake: Lake = None) -> None:
    """Run what the schedules of workbench.toml make due.

    Each slot runs once, however often and in however many processes this is called; call it every few minutes.
    """
    from workbench.schedule import run_due

    with _progress() as say:
        records = run_due(_now(), progress=say)
    _tell(records) if records else typer.echo("Nothing is due.")


@app.command()
def dictionary(out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it.")] = Path("data/dictionary.md"), lake: Lake = None) -> None:
    """Write the data dictionary from the schema."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(schema.dictionary(), encoding="utf-8")
    typer.echo(f"Wrote {out}.")


@lake_app.command()
def versions(lake: Lake = None) -> None:
    """List the published versions.

    WORKBENCH_LAKE_VERSION=NUMBER repeats a run on one of them.
    """
    from workbench.lake import open_lake

    typer.echo(open_lake().versions().to_string(index=False))


@lake_app.command()
def compact(lake: Lake = None) -> None:
    """Join small files; content and pinned versions stay."""
    from workbench.lake import open_lake

    store = open_lake()
    with _progress() as say:
        say("compacting")
        store.compact()
    typer.echo(f"Compacted {_shown(store.path)}; it stands at version {store.version}.")


@lake_app.command()
def vacuum(keep_days: Annotated[int, typer.Option(min=0, help="Versions published in so many days stay readable.")] = 90, lake: Lake = None) -> None:
    """Delete files that no version of the last days needs."""
    from workbench.lake import open_lake

    store = open_lake()
    with _progress() as say:
        say("vacuuming")
        n = store.vacuum(_now(), keep_days)
    typer.echo(f"Deleted {n:,} files of {_shown(store.path)}.")


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _shown(path: Path) -> str:
    """A path as a person would type it from here."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise WorkbenchError(f"-p {text}: no value.", fix="Write it as -p name=value.")
    return name.strip(), value


def _tell(records: list[dict]) -> None:
    for r in records:
        typer.echo(f"{r['status']:<8} {r['name']} ({r['seconds']:.1f} s)" + (f": {r['error']}" if r["error"] else ""))
    failed = [r for r in records if r["status"] != "ok"]
    typer.echo(f"{len(records) - len(failed)} of {len(records)} notebooks ran. Open {_shown(settings().reports / 'index.html')}")
    if failed:
        raise typer.Exit(1)


def main() -> None:
    """The command `workbench`: errors as one sentence, Ctrl-C without a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's stop ends kernels and records like Ctrl-C
    try:
        sys.exit(app())
    except WorkbenchError as error:
        told, code = str(error), 1
    except OSError as error:  # a folder that may not be written, a full disk
        told, code = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.", 1
    except (KeyboardInterrupt, SystemExit, RuntimeError) as error:  # of Ctrl-C typer makes an exit 130, DuckDB an error of its own
        if getattr(error, "code", 130) != 130 or isinstance(error, RuntimeError) and str(error) != "Query interrupted":
            raise
        told, code = "interrupted; what was not finished was not published.", 130
    sys.stderr.write(f"workbench: {told}\n")
    sys.exit(code)
