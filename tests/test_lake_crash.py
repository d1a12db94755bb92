"""A killed writer loses nothing and doubles nothing; readers see all of a publish or none."""

import multiprocessing
import os
import shutil
import signal
import time
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from workbench.lake import open_lake
from workbench.store import Store

AT = datetime(2024, 2, 1)
N = 2000
processes = multiprocessing.get_context("forkserver")  # children that have imported, but never used, the lake
processes.set_forkserver_preload(["workbench.lake", "pandas", __name__])


def rows(entity: str, first: int, last: int, word: str) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"s:{i}" for i in range(first, last)], "name": [f"{word} {entity} {i}" for i in range(first, last)]})


def write(path: Path) -> None:
    """One sync of two tables: half of its records are changed, half are new."""
    lake = open_lake(path)
    with lake.writer():
        for entity in ("account", "deal"):
            lake.upsert(entity, rows(entity, N // 2, 3 * N // 2, "new"), at=AT)


def content(path: Path) -> dict[str, list[tuple]]:
    lake = open_lake(path)
    return {e: lake.sql(f"select id, valid_from, valid_to, name, deleted_at from {e}_versions order by id, valid_from").fetchall() for e in ("account", "deal")}


@pytest.fixture(scope="module")
def before_and_after(tmp_path_factory):
    """A lake before the sync, its content before and after, and the seconds that the sync takes in a child."""
    base = tmp_path_factory.mktemp("base")
    lake = open_lake(base, create=True)
    with lake.writer():
        for entity in ("account", "deal"):
            lake.upsert(entity, rows(entity, 0, N, "old"), at=datetime(2024, 1, 1))
    seconds = []
    for whole in (base.parent / "whole1", base.parent / "whole2"):  # the first child also warms up
        shutil.copytree(base, whole)
        child, ready = start(write_when_told, whole)
        ready.recv()
        began = time.perf_counter()
        child.join()
        seconds.append(time.perf_counter() - began)
    assert content(base.parent / "whole1") == content(base.parent / "whole2")
    return base, content(base), content(whole), seconds[-1]


def start(target, *args):
    here, there = processes.Pipe()
    child = processes.Process(target=target, args=(*args, there), daemon=True)
    child.start()
    return child, here


def write_when_told(path: Path, pipe) -> None:
    pipe.send("ready")
    write(path)


def write_and_die(path: Path, method: str, call: int, pipe) -> None:
    """Write, and die in the `call`-th call of a method of Store: odd numbers before it does anything, even ones after."""
    original, calls = getattr(Store, method), iter(range(1, 100))

    def deadly(self, *args, **named):
        turn = next(calls)
        if 2 * turn - 1 == call:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(self, *args, **named)
        if 2 * turn == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(Store, method, deadly)
    write(path)
    pipe.send("survived")


def whole_or_nothing(path: Path, before, after) -> bool:
    """What stands is the state before or after, and doing it again ends in the state after; True when it was published."""
    stands = content(path)
    assert stands == before or stands == after
    write(path)
    assert content(path) == after
    return stands == after


@pytest.mark.parametrize("step", range(20))
def test_a_writer_killed_at_any_time_loses_and_doubles_nothing(before_and_after, tmp_path, step):
    base, before, after, seconds = before_and_after
    shutil.copytree(base, tmp_path / "lake")
    child, ready = start(write_when_told, tmp_path / "lake")
    ready.recv()
    time.sleep(seconds * 1.2 * step / 19)
    child.kill()
    child.join()
    whole_or_nothing(tmp_path / "lake", before, after)


@pytest.mark.parametrize("method, call, published", [("create", 1, False), ("merge", 1, False), ("merge", 3, False), ("merge", 4, False), ("_publish", 1, False),
                                                     ("_publish", 2, True)])
def test_a_writer_killed_between_two_commits_loses_and_doubles_nothing(before_and_after, tmp_path, method, call, published):
    base, before, after, _ = before_and_after
    shutil.copytree(base, tmp_path / "lake")
    child, _ = start(write_and_die, tmp_path / "lake", method, call)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert whole_or_nothing(tmp_path / "lake", before, after) == published


def test_a_first_import_killed_before_its_publish_leaves_an_empty_lake_that_takes_it_again(tmp_path):
    open_lake(tmp_path / "lake", create=True)
    child, _ = start(write_and_die, tmp_path / "lake", "_publish", 1)
    child.join()
    assert content(tmp_path / "lake") == {"account": [], "deal": []}
    write(tmp_path / "lake")
    assert [len(v) for v in content(tmp_path / "lake").values()] == [N, N]


def test_a_publish_table_without_any_row_is_a_lake_without_any_publish(tmp_path):
    DeltaTable.create(tmp_path / "_versions", pa.schema([("publish", pa.int64()), ("tables", pa.string())]))
    assert open_lake(tmp_path).version == -1
    write(tmp_path)
    assert open_lake(tmp_path).version == 0


def test_a_version_published_long_ago_stays_readable_whatever_is_committed_after_it(tmp_path):
    lake = open_lake(tmp_path, create=True)
    lake.upsert("account", rows("account", 0, 3, "old"), at=datetime(2024, 1, 1))
    then = lake.version
    for log in tmp_path.glob("*/_delta_log/*.json"):
        os.utime(log, (0, 0))  # as if written in 1970: Delta itself would drop it at a checkpoint
    for number in range(25):
        lake.upsert("account", rows("account", 0, 1, str(number)), at=datetime(2024, 1, 2 + number))
    assert open_lake(tmp_path, version=then).read("account")["name"].tolist() == ["old account 0", "old account 1", "old account 2"]


def test_a_killed_write_is_not_published_by_the_next_writer_of_another_table(before_and_after, tmp_path):
    base, before, _, _ = before_and_after
    shutil.copytree(base, tmp_path / "lake")
    child, _ = start(write_and_die, tmp_path / "lake", "_publish", 1)
    child.join()
    open_lake(tmp_path / "lake").upsert("user", rows("user", 0, 3, "new"), at=AT)
    assert content(tmp_path / "lake") == before


def read_until(path: Path, last: int, pipe) -> None:
    """Read both tables as published, again and again, until round `last`; send the number of reads, or what was wrong."""
    seen, reads, give_up = 0, 0, time.monotonic() + 3 * last + 60
    while seen < last:
        if time.monotonic() > give_up or os.getppid() == 1:
            return pipe.send(f"the writer stopped at round {seen}")
        lake = open_lake(path)
        names = {e: sorted(int(v) for v in lake.read(e, columns=["name"])["name"]) for e in ("account", "deal")}
        if names["account"] != names["deal"] or names["deal"] != list(range(len(names["deal"]))):
            return pipe.send(f"half a publish: {names}")
        if names["deal"][-1] < seen:
            return pipe.send(f"round {names['deal'][-1]} after round {seen}")
        seen, reads = names["deal"][-1], reads + 1
        time.sleep(.3)  # leave the writer a share of two cores
    pipe.send(reads)


def rounds(path: Path, n: int, n_readers: int) -> list:
    """Publish n rounds of one more record in each of two tables beside readers; what the readers sent."""
    lake = open_lake(path, create=True)

    def publish(number: int) -> None:
        with lake.writer():
            for entity in ("account", "deal"):
                row = pd.DataFrame({"id": [f"s:{number}"], "name": [str(number)]})
                if number % 10 == 0:
                    lake.upsert(entity, row, at=AT)
                else:  # the same commit without the checks, which would take most of the time
                    lake.store.append(entity, first[entity].set_column(0, "id", [row["id"]]).drop_columns("name").append_column("name", [row["name"]]))

    publish(0)
    first = {e: lake.store.open(e).to_pyarrow_table() for e in ("account", "deal")}
    readers = [start(read_until, path, n) for _ in range(n_readers)]
    for number in range(1, n + 1):
        publish(number)
    told = [pipe.recv() if pipe.poll(60) else "no answer" for _, pipe in readers]
    for child, _ in readers:
        child.join(10)
    return told


def test_four_readers_beside_a_writer_see_whole_publishes_only(tmp_path):
    told = rounds(tmp_path, 100, 4)
    assert all(isinstance(reads, int) for reads in told), told
    assert sum(told) >= 20


@pytest.mark.soak
def test_readers_beside_a_long_row_of_publishes(tmp_path):
    told = rounds(tmp_path, 1000, 4)
    assert all(isinstance(reads, int) for reads in told), told
