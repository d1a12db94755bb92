"""Calibration: intervals hold what they say they hold, few events make none too sure, a season is learned and none is made up."""

import numpy as np
import pytest
from scipy.special import expit, logit
from threadpoolctl import threadpool_limits

from workbench.models.calibration import CLIP, MONTH, TYPICAL, Interval, Pace, Platt, calibration_error, equal_mass, log_losses

FOLDS = 5


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small matrices: threads that wait for each other cost twenty times as much."""
    with threadpool_limits(1, user_api="blas"):
        yield


def judged(events: int, seed: int, rate: float = 0.1):
    """One sample of a world as `Interval` takes it to be: the map's bends, and how each fold's model is off in each third, are normal with deviations drawn from
    half-normals of scale TYPICAL. Returns fitted map and interval, log-odds said, and the true rate of records scored so by one more model."""
    rng, n = np.random.default_rng(seed), int(events / rate)
    z, fold = rng.normal(logit(rate) - 0.4, 1.0, n), rng.integers(0, FOLDS, n)
    middles, third = np.quantile(z, (np.arange(10) + 0.5) / 10), np.searchsorted(np.quantile(z, (1 / 3, 2 / 3)), z)
    bent = z + np.interp(z, middles, rng.normal(0, abs(rng.normal(0, TYPICAL)), 10))
    off = rng.normal(0, abs(rng.normal(0, TYPICAL)), (FOLDS + 1, 3))
    y = (rng.random(n) < expit(bent + off[fold, third])).astype(int)
    said = (0.9 * z + 0.1)[:, None]
    map = Platt().fit(said, y)
    return map, Interval().fit(map, said, y, np.arange(n), fold), said, expit(bent + off[FOLDS, third]), rng


@pytest.mark.parametrize(("events", "samples"), [(60, 400), (300, 200), (1500, 150)])
def test_four_of_five_intervals_hold_the_true_rate(events, samples):
    # of records scored alike: the row's own; of bands: the mean rate of 100 records whose true chances differ by a tenth of the binomial variance, as HIDDEN says:
    # beta(9 p, 9 (1 - p)) has variance p (1 - p) / 10. A standard error is that of the samples' shares; in 400 of each .80, .80, .75 held of rows, .81, .80, .79 of bands.
    # Short in the rows of 1,500 events: the map takes in the folds' mean, so their spread (n - 1 of n parts) tells too little of how far one more model is off (n + 1)
    rows, bands = [], []
    for seed in range(samples):
        map, interval, said, true, rng = judged(events, seed)
        low, high = interval.bounds(map, said)
        rows.append(((low <= true) & (true <= high)).mean())
        own, held = rng.beta(9 * true, 9 * (1 - true)), []
        for part in equal_mass(said[:, 0], 5):
            k = rng.choice(part, 100, replace=False)
            low, high = interval.of_mean(map, said[k])
            held.append(low <= own[k].mean() <= high)
        bands.append(np.mean(held))
    for held, short in ((rows, 0.03), (bands, 0.0)):
        error = np.std(held) / np.sqrt(samples)
        assert error < 0.035 and -3 * error - short < np.mean(held) - 0.8 < 3 * error


def test_an_interval_holds_a_map_that_is_bent_more_than_usual():
    # truth = p + .04 sin 8p, up to .2 in log-odds; 60 samples of 600 records, five bins: .94 held, since what else might be wrong, and is not here, counts too
    held, n = [], 600
    for seed in range(60):
        rng = np.random.default_rng(seed)
        p = rng.random(n) * 0.6 + 0.1
        true, said = p + 0.04 * np.sin(8 * p), logit(p)[:, None]
        y = (rng.random(n) < true).astype(int)
        map = Platt().fit(said, y)
        low, high = Interval().fit(map, said, y, np.arange(n), rng.integers(0, FOLDS, n)).bounds(map, said)
        held += [low[part].mean() <= true[part].mean() <= high[part].mean() for part in equal_mass(p, 5)]
    assert 0.87 < np.mean(held) < 0.98


def test_intervals_of_the_best_scores_hold_where_events_are_rare():
    # 1.3 % have the event, some 50 of 4,000, so there are two bins, and the upper holds scores of 1 % and of 20 %; of the 20 best, whose rate the few events hardly
    # tell, 200 samples held .90 (standard error .02). Drawing records alone, without what may be wrong with the map's slope, held .4
    held = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        z = rng.normal(-5, 1.2, (4000, 1))
        true = expit(z[:, 0])
        y = (rng.random(4000) < true).astype(int)
        map = Platt().fit(z, y)
        low, high = Interval().fit(map, z, y, np.arange(4000), rng.integers(0, FOLDS, 4000)).bounds(map, z)
        held.append(((low <= true) & (true <= high))[np.argsort(-z[:, 0])[:20]].mean())
    assert 0.75 < np.mean(held) < 0.95


def width(y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """In log-odds, of each row."""
    map = Platt().fit(z, y)
    low, high = Interval().fit(map, z, y, np.arange(len(y)), np.random.default_rng(1).integers(0, FOLDS, len(y))).bounds(map, z)
    return logit(high) - logit(low)


def test_no_events_in_the_lowest_bins_make_no_interval_surer():
    # 1,000 records said to be at 1 %, 1,000 at 20 %, of which 200 came. Of the first 10 should come. None came: had residuals told how sure that is, they would have
    # said that nothing can be wrong (.11 to .14 %). In 1,000 trials none comes with a chance of 1 in 10 where the rate is .23 %: (1 - .0023)^1000 = .1
    z = np.repeat(logit([0.01, 0.2]), 1000)[:, None] + np.random.default_rng(0).normal(0, 0.01, (2000, 1))
    ten, none = np.zeros(2000, int), np.zeros(2000, int)
    none[1000::5] = 1
    ten[1000::5], ten[:1000:100] = 1, 1
    map, fold = Platt().fit(z, none), np.random.default_rng(1).integers(0, FOLDS, 2000)
    assert 0.0023 < Interval().fit(map, z, none, np.arange(2000), fold).bounds(map, z)[1][:1000].mean() < 0.01
    assert width(none, z)[:1000].mean() > width(ten, z)[:1000].mean() > width(ten, z)[1000:].mean()


def test_the_fewer_the_events_the_wider_the_interval():
    rng = np.random.default_rng(0)
    z = rng.normal(-2, 1, (16_000, 1))
    y = (rng.random(16_000) < expit(z[:, 0])).astype(int)
    found = [width(y[:n], z[:n]).mean() for n in (16_000, 4_000, 1_000)]
    assert found[0] < found[1] < found[2]


def test_rows_of_one_record_count_as_one():
    # 500 records eight times each: the map's variance is eight times that of 4,000 records with the same rows
    rng, often = np.random.default_rng(0), np.repeat(np.arange(500), 8)
    z = rng.normal(-2, 1, (500, 1))
    y = (rng.random(500) < expit(z[:, 0])).astype(int)[often]
    map, fold = Platt().fit(z[often], y), often % FOLDS
    one, many = (Interval().fit(map, z[often], y, groups, fold).covariance_ for groups in (often, np.arange(4000)))
    assert np.allclose(one / many, 8)


@pytest.mark.parametrize("came", [0, 1, 50, 100])
def test_one_value_for_everybody_has_a_level_and_an_interval(came):
    # (came of 100): the map says the share, or next to nothing or all where nobody or everybody had the event, and the interval has two ends with it between them
    z, y = np.full((100, 1), -1.0), np.random.default_rng(0).permutation(np.arange(100) < came).astype(int)
    map = Platt().fit(z, y)
    p = map.predict(z)
    assert np.ptp(p) == 0 and np.isclose(p[0], np.clip(came / 100, CLIP, 1 - CLIP))
    interval = Interval().fit(map, z, y, np.arange(100), np.arange(100) % FOLDS)
    for low, high in (interval.bounds(map, z[:1]), interval.of_mean(map, z)):
        assert 0 <= np.min(low) <= p[0] <= np.max(high) <= 1 and np.max(high) - np.min(low) > 0


def test_the_lowest_scores_are_judged_apart_where_they_can_hardly_convert():
    # the lowest 3 in 100 never convert, though the map gives them some .008: their interval leaves that out, and that of the middle stays narrow
    rng, n = np.random.default_rng(0), 30_000
    z = rng.normal(-2.5, 1, (n, 1))
    y = (rng.random(n) < np.where(z[:, 0] < -4.4, 0, expit(z[:, 0]))).astype(int)
    map = Platt().fit(z, y)
    interval, low, middle = Interval().fit(map, z, y, np.arange(n), np.arange(n) % FOLDS), z[z[:, 0] < -4.5], z[np.abs(z[:, 0] + 2.5) < 0.2]
    bounds = interval.of_mean(map, middle)
    assert interval.of_mean(map, low)[1] < map.predict(low).mean() and bounds[0] < map.predict(middle).mean() < bounds[1] < 1.2 * bounds[0]


def test_the_level_of_the_days_ahead_follows_a_season_seen_twice():
    # hazards x exp(.3 cos): the cosine is 1 in the middle of the 90 days ahead, on average .98 there; the map is learned from 3 to 9.7 months ago, whose horizons
    # run from 0 to 9.7 months ago, where it is -.18 on average: .3 x (.98 + .18) = .35 higher. Half a year on, as much lower. A season seen twice is believed for the larger part
    for sign in (1, -1):
        told = np.array([level_at(sign * 0.3, seed) for seed in range(6)])
        assert 0.4 * 0.35 < sign * told[:, 0].mean() < 1.1 * 0.35 and (np.abs(told[:, 0] - sign * 0.35) < 1.6 * np.sqrt(told[:, 1])).all()


def test_a_level_that_fell_lately_is_believed_for_the_larger_part():
    # hazards fell by exp(-.7) four months ago; of the horizons of the rows learned from, which began 3 to 9.7 months ago, some 43 % lie behind it: -.7 x .57 = -.40
    told = np.array([level_at(0, seed, fall=0.7) for seed in range(6)])
    assert -0.5 < told[:, 0].mean() < -0.2 and (told[:, 0] < -0.1).all()


def test_where_there_is_no_season_none_is_made_up():
    told = np.array([level_at(0, seed) for seed in range(8)])
    assert abs(told[:, 0].mean()) < 0.03 and np.abs(told[:, 0]).max() < 0.1 and np.sqrt(told[:, 1]).max() < 0.2


def test_under_a_year_of_rows_the_season_stays_unknown():
    short, long = (np.sqrt(np.mean([level_at(0.3, seed, months)[1] for seed in range(4)])) for months in (11, 40))
    assert short > 1.2 * long > 0.1


def level_at(season: float, seed: int, months: float = 27, fall: float = 0) -> tuple[float, float]:
    """Pace of 120,000 rows (some 50 conversions a month) up to `months` ago, the map learned from the latest 30 % of those whose 90 days are over."""
    rng, n = np.random.default_rng(seed), 120_000
    ago, z = rng.uniform(0, months * MONTH, n), rng.normal(-2, 1, n)
    hazard = expit(z) / 90 * np.exp(season * np.cos(2 * np.pi * (ago / MONTH + 1.5) / 12) + fall * (ago > 4 * MONTH))
    wait = rng.exponential(1 / hazard)
    learned = (ago > 90) & (ago < 90 + 0.3 * (months * MONTH - 90))
    return Pace(90, 7).fit(z, np.where(wait <= ago, wait, np.nan), ago).level(ago[learned], (expit(z) * (1 - expit(z)))[learned])


def test_losses_of_impossible_chances_are_finite():
    # a chance of 0 is read as .0001: -ln .0001 = 9.21
    assert np.allclose(log_losses(np.array([1, 0, 1]), np.array([0.0, 1.0, 1.0])), [9.2103, 9.2103, 0.0001], atol=1e-4)


def test_errors_are_weighted_by_the_rows_of_each_bin():
    # five rows in two bins: three at .2 with one event, |1/3 - .2| = .1333, and two at .9 with one, |.5 - .9| = .4: (3 x .1333 + 2 x .4) / 5 = .24
    y, p = np.array([1, 0, 0, 1, 0]), np.array([0.2, 0.2, 0.2, 0.9, 0.9])
    assert np.isclose(calibration_error(y, p, bins=2), 0.24) and [len(b) for b in equal_mass(p, 2)] == [3, 2] and len(equal_mass(p, 10)) == 5
