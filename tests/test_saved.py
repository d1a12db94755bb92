"""Saved models: every rung comes back to the last bit, a changed byte is refused, and the card tells what a model is for."""

import json
import pickletools
import shutil
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from workbench.errors import WorkbenchError
from workbench.models import saved
from workbench.models.calibration import Interval, Platt
from workbench.models.learners import RUNGS, Boosted, Logistic
from workbench.models.reasons import Scorer
from workbench.models.rungs import BaseRate
from workbench.models.saved import load_model, save_model

HOSTILE = ['"quoted" \\ \\n', "new\nline", "😀 emoji", "NaN", "nan", "null", "(none)", "x" * 5000, "'", "a,b:c{}[]", "\u2028", "pandas_categorical:[[1]]", "end of trees", "<script>"]
CARD = {"facts": {"n": 3, "gain": float("nan"), "features": ["a"], "nested": {"auc": 0.1 + 0.2}}, "card": "# Card\nof é"}


def rows(n: int = 2500, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Columns of every kind with holes; what is in `text` and `n_visits` tells."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"n_visits": rng.poisson(4, n).astype(float), "age_days": rng.exponential(30, n), "text": rng.choice(HOSTILE, n), "flag": pd.array(rng.random(n) < 0.5, dtype="boolean"),
                      "seen_on": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 400, n), unit="D"), "rare": np.where(rng.random(n) < 0.02, rng.random(n), np.nan),
                      "enquiry_text": [" ".join(words) for words in rng.choice(["price", "Übermorgen", "<script>", "demo\"now", "urgent", "student"], (n, 4))]})
    y = (rng.random(n) < expit((X["n_visits"] - 4) / 2 + 3 * (X["text"] == "new\nline") - 3 * X["text"].isin(["NaN", HOSTILE[2]]) + 2 * X["enquiry_text"].str.contains("urgent"))).to_numpy(int)
    X.loc[::17, ["n_visits", "text"]] = [np.nan, None]
    X.loc[::19, "flag"], X.loc[::23, "seen_on"] = pd.NA, pd.NaT
    return X, y, np.arange(n).astype(str)


@pytest.fixture(scope="module")
def scorers() -> dict[str, Scorer]:
    X, y, groups = rows()
    fitted: dict = {}
    for rung in RUNGS:
        fitted[rung.name] = rung().fit(X, y, groups, fitted)
    return {name: Scorer(rung, Platt().fit(rung.parts(X), y)) for name, rung in fitted.items()}


@pytest.fixture
def logistic(scorers, tmp_path):
    return save_model(scorers[Logistic.name], tmp_path, features=rows()[0], **CARD)


@pytest.mark.parametrize("name", [r.name for r in RUNGS])
def test_a_rung_comes_back_to_the_last_bit(scorers, tmp_path, name):
    path = save_model(scorers[name], tmp_path, features=rows()[0], **CARD)
    again, new = load_model(path), rows(400, seed=1)[0]
    new.loc[:5, "text"] = "never seen"
    assert np.array_equal(scorers[name].probabilities(new), again.probabilities(new))
    (points, start), (points_again, start_again) = scorers[name].points(new), again.points(new)
    pd.testing.assert_frame_equal(points, points_again, check_exact=True)
    assert start == start_again
    if name != BaseRate.name:
        assert again.probabilities(new).std() > 0.05  # it does tell leads apart


def test_a_model_saved_again_after_loading_is_the_same_model(scorers, tmp_path):
    for scorer in scorers.values():
        path = save_model(scorer, tmp_path, features=rows()[0], **CARD)
        again = load_model(path)
        assert save_model(again, tmp_path / "again", features=rows()[0], facts=CARD["facts"], card=CARD["card"]).name == path.name


def test_facts_card_and_features_come_back(logistic):
    again = load_model(logistic)
    assert (logistic / "card.md").read_text() == CARD["card"] and again.identity == logistic.name
    assert again.facts | {"gain": 0} == CARD["facts"] | {"gain": 0} and np.isnan(again.facts["gain"])
    assert again.features == {"n_visits": "number", "age_days": "number", "text": "text", "flag": "text", "seen_on": "date", "rare": "number", "enquiry_text": "text"}


def test_a_model_is_json_trees_as_text_and_a_card(scorers, tmp_path):
    path = save_model(scorers["blend"], tmp_path, features=rows()[0], **CARD)
    names = sorted(p.name for p in path.iterdir())
    assert [n.split("_")[0] for n in names] == ["card.md", "manifest.json", "model.json", *["trees"] * 4]
    for name in ("manifest.json", "model.json"):
        json.loads((path / name).read_text(), parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    for name in names:
        assert (path / name).read_text().startswith("tree\n" if name.startswith("trees") else ("{", "#"))
        with pytest.raises(Exception):  # noqa: B017
            list(pickletools.genops((path / name).read_bytes()))


def test_saving_twice_leaves_one_folder_and_another_card_makes_another_model(scorers, tmp_path):
    first, second = (save_model(scorers["naive Bayes"], tmp_path, features=rows()[0], **CARD) for _ in range(2))
    other = save_model(scorers["naive Bayes"], tmp_path, features=rows()[0], facts=CARD["facts"], card="another")
    assert first == second != other and sorted(tmp_path.iterdir()) == sorted([first, other])


def test_the_same_model_saved_at_once_stands_once(scorers, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: save_model(scorers["blend"], tmp_path, features=rows()[0], **CARD), range(16)))
    assert set(paths) == set(tmp_path.iterdir()) and len(set(paths)) == 1


def test_a_killed_save_leaves_nothing_that_is_taken_for_a_model(scorers, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.rename", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            save_model(scorers[BaseRate.name], tmp_path, features=rows()[0], **CARD)
    left, = tmp_path.iterdir()
    assert left.name.startswith(".")
    with pytest.raises(WorkbenchError, match="folder renamed"):
        load_model(left)
    load_model(save_model(scorers[BaseRate.name], tmp_path, features=rows()[0], **CARD))


def test_every_changed_byte_is_refused_by_the_name_of_its_file(scorers, tmp_path):
    path = save_model(scorers["LightGBM"], tmp_path, features=rows()[0], **CARD)
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for at in np.linspace(0, len(whole) - 1, 12, dtype=int):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
            with pytest.raises(WorkbenchError) as caught:
                load_model(path)
            assert str(path) in caught.value.what and (file.name == "manifest.json" or f"{file} was changed" in caught.value.what)
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(WorkbenchError):
            load_model(path)
        file.unlink()
        with pytest.raises(WorkbenchError, match="is no whole saved model"):
            load_model(path)
        file.write_bytes(whole)
    load_model(path)


def test_a_manifest_that_covers_the_change_is_refused_since_the_folder_has_another_name(logistic):
    (logistic / "card.md").write_text("For everything.")
    manifest = json.loads((logistic / "manifest.json").read_text())
    manifest["files"]["card.md"] = saved.sha256(b"For everything.").hexdigest()
    (logistic / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WorkbenchError, match=r"manifest.json was changed"):
        load_model(logistic)


def test_a_manifest_without_the_card_is_refused(logistic):
    manifest = json.loads((logistic / "manifest.json").read_text())
    del manifest["files"]["card.md"]
    (logistic / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WorkbenchError, match=r"card.md was changed"):
        load_model(logistic)


@pytest.mark.parametrize("told", ["", "[]", '{"format": 1}', '{"format": 1, "files": {"model.json": 1, "../../secret": "x"}}', '{"format": 1, "files": []}'])
def test_what_is_no_manifest_is_refused_in_a_sentence(logistic, told):
    (logistic / "manifest.json").write_text(told)
    with pytest.raises(WorkbenchError):
        load_model(logistic)


def test_another_format_is_refused(logistic, monkeypatch):
    monkeypatch.setattr(saved, "FORMAT", 2)
    with pytest.raises(WorkbenchError, match="has format 1, and this workbench reads format 2"):
        load_model(logistic)


def test_a_folder_that_is_none_and_one_renamed_are_refused(logistic, tmp_path):
    with pytest.raises(WorkbenchError, match="is no whole saved model"):
        load_model(tmp_path / "nowhere")
    logistic.rename(tmp_path / "renamed")
    with pytest.raises(WorkbenchError, match="folder renamed"):
        load_model(tmp_path / "renamed")


def test_a_damaged_model_is_not_taken_for_saved(scorers, logistic, tmp_path):
    (logistic / "card.md").write_text("")
    with pytest.raises(WorkbenchError, match="card.md was changed"):
        save_model(scorers[Logistic.name], tmp_path, features=rows()[0], **CARD)
    shutil.rmtree(logistic)
    load_model(save_model(scorers[Logistic.name], tmp_path, features=rows()[0], **CARD))


def test_rows_that_lack_a_feature_or_hold_another_kind_are_refused_and_more_columns_are_not(logistic, scorers):
    again, X = load_model(logistic), rows(50)[0]
    for score in (again.probabilities, again.points):
        with pytest.raises(WorkbenchError, match="age_days is missing; text was text and is number"):
            score(X.drop(columns="age_days").assign(text=1.0))
    shuffled = X[X.columns[::-1]].assign(more=1)
    assert np.array_equal(again.probabilities(shuffled), scorers[Logistic.name].probabilities(X))
    assert list(again.points(shuffled)[0]) == list(X)


@pytest.mark.parametrize("value", [object(), {1, 2}, (1, 2), pd.Timestamp("2024-01-01"), np.array(["2024-01-01"], dtype="datetime64[D]"), pd.DataFrame(), np.float32(1), lambda: 1])
def test_what_cannot_be_written_as_data_is_an_error_and_nothing_is_written(tmp_path, value):
    rung = BaseRate().fit(*rows(100))
    rung.more_ = [{"deep": value}]
    with pytest.raises(WorkbenchError, match="cannot be saved as data"):
        save_model(Scorer(rung, Platt().fit(rung.parts(rows(100)[0]), rows(100)[1])), tmp_path, features=rows(5)[0], **CARD)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [0.1 + 0.2, -0.0, 5e-324, 1.7976931348623157e308, float("inf"), -float("inf"), float("nan"), np.float64(1 / 3), np.int64(2**62), np.bool_(True), 2**70, "\x00\u2028😀",
                                   None, [], {}, {1: {"a": [None]}, 2.5: "x"}, np.array([[0.1, np.nan], [np.inf, -0.0]]), np.array(["a", None, "😀\n"], dtype=object), np.empty((0, 3)),
                                   np.array([True, False]), pd.Series([0.1, 0.2], index=["x\ny", "NaN"]), pd.Series([1.5], index=[2.0]), pd.Series(dtype="float64")])
def test_a_learned_value_comes_back_as_it_was(value):
    again = saved._decoded(json.loads(json.dumps(saved._encoded(value, held := {}), allow_nan=False)), held)
    np.testing.assert_equal(again.to_dict() if isinstance(value, pd.Series) else again, value.to_dict() if isinstance(value, pd.Series) else value)
    if isinstance(value, float):
        assert np.signbit(again) == np.signbit(value)
    if isinstance(value, np.ndarray):
        assert again.dtype == value.dtype and again.shape == value.shape


def test_an_interval_comes_back_to_the_last_bit(scorers):
    X, y, groups = rows()
    parts = scorers["blend"].rung.parts(X)
    interval = Interval().fit(scorers["blend"].map, parts, y, groups, np.arange(len(y)) % 5)
    again = saved._decoded(json.loads(json.dumps(saved._encoded(interval, held := {}), allow_nan=False)), held)
    np.testing.assert_array_equal(interval.bounds(scorers["blend"].map, parts), again.bounds(scorers["blend"].map, parts))


def test_a_loaded_bag_keeps_its_size_and_seed(scorers, tmp_path):
    rung = load_model(save_model(scorers["blend"], tmp_path, features=rows()[0], **CARD)).rung
    assert isinstance(rung.trees_, Boosted) and rung.trees_.bags == len(rung.trees_.models_) == 4
