"""The committed notebooks run from top to bottom on the small demo and show what is committed."""

from tests.check_notebooks import NOTEBOOKS, demo_environment, nbval


def test_every_notebook_runs_on_the_demo_and_its_headline_tables_are_as_committed(tmp_path):
    assert NOTEBOOKS
    done = nbval(demo_environment(tmp_path / "lake"))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
