"""What a single field tells: leaks are named, clean fields are not, and no value vouches for itself."""

import numpy as np
import pandas as pd

from workbench.models.leaks import field_evidence, field_verdicts

RNG = np.random.default_rng(5)
N = 2000
EVENT = RNG.random(N) < 0.3


def verdict(values) -> str:
    return field_verdicts(pd.DataFrame({"f": values}), ["f"], EVENT)["verdict"][0]


def test_a_copy_of_the_outcome_is_a_leak_in_every_type():
    assert verdict(np.where(EVENT, "closed won", "other")) == "leak"
    assert verdict(pd.Series(EVENT, dtype="boolean")) == "leak"
    assert verdict(EVENT * 100.0 + RNG.random(N)) == "leak"
    assert verdict(pd.Series(pd.Timestamp("2024-05-01") + pd.to_timedelta(np.arange(N), "h")).where(EVENT)) == "leak"


def test_a_field_that_is_filled_only_after_the_outcome_is_a_leak():
    assert verdict(np.where(EVENT, RNG.choice(["a", "b", "c"], N), None)) == "leak"  # which value does not matter


def test_a_tag_that_settles_a_seventh_of_the_records_is_suspected():
    # a fifth of the 70 % losers get a tag that only they have: pure_share about .7 x .2 = .14
    tag = np.where(~EVENT & (RNG.random(N) < 0.2), "wrong number", RNG.choice(["x", "y"], N))
    found = field_evidence(pd.Series(tag), EVENT)
    assert 0.11 < found["pure_share"] < 0.17 and verdict(tag) == "suspect"


def test_honest_fields_are_not_accused():
    clean = pd.DataFrame({"number": RNG.normal(size=N), "levels": RNG.choice(list("abcdefgh"), N), "strong": EVENT + RNG.normal(0, 1.2, N),
                          "key": [f"k{i}" for i in range(N)], "rare": np.where(RNG.random(N) < 0.01, "x", None), "empty": [None] * N, "same": ["one"] * N})
    assert (field_verdicts(clean, list(clean), EVENT)["verdict"] == "fine").all()


def test_a_key_of_many_values_does_not_vouch_for_itself():
    # each value's rate is learned on other rows: a key met once has the base rate, so auc .5
    assert field_evidence(pd.Series([f"k{i}" for i in range(N)]), EVENT)["auc"] < 0.55


def test_a_rare_event_does_not_make_every_value_pure():
    rare = RNG.random(N) < 0.01
    found = field_verdicts(pd.DataFrame({"f": RNG.choice(list("ab"), N)}), ["f"], rare)
    assert found["pure_share"][0] == 0 and found["verdict"][0] == "fine"


def test_one_class_and_no_row_are_judged_without_a_fall():
    assert field_evidence(pd.Series(["a"] * 10), np.zeros(10, dtype=bool))["auc"] == 0.5
    assert field_verdicts(pd.DataFrame({"f": []}), [], np.empty(0)).empty
