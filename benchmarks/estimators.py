"""Compares intervals for a contrast: their rate of "supported" without an effect, their coverage and their power.

Studies are simulated, with the values of n seeds in each arm: first normal ones, then violations of the assumptions.
"""

import numpy as np

from benchmarks import crossed
from benchmarks.measure import Options
from benchmarks.simulated import ESTIMATORS, LEVEL, Situation, draw, holds, per_seed, percent, welch
from benchmarks.table import Report, Table

STUDIES = 40_000  # simulated per cell of a table
SEEDS = (3, 5, 10)
BLOCKS = (-0.1, 0.0, 0.15, 0.5)  # correlations between the arms of a seed

SITUATIONS = (
    Situation("two arms, equal SD", (-1, 1), (1, 1)),
    Situation("two arms, SD 0.7 and 0.24 (plain, BatchNorm)", (-1, 1), (0.7, 0.24)),
    Situation("two arms, SD 0.24 and 1.2 (fivefold)", (-1, 1), (0.24, 1.2)),
    Situation("interaction, equal SD", (1, -1, -1, 1), (1, 1, 1, 1)),
    Situation("interaction, SD 0.7, 1.2, 0.24, 0.6", (1, -1, -1, 1), (0.7, 1.2, 0.24, 0.6)),
    Situation("trend over 0, 0.1, 0.3, 0.5, last SD fivefold", (-0.76, -0.42, 0.25, 0.93), (0.24, 0.24, 0.24, 1.2)),
)
NOTES = [
    'The lab takes the per-seed interval: of the three it is the only one whose rate of "supported" is the stated one '
    "whatever the SDs and the correlation are.",
    "Welch's interval finds smaller effects with 3 seeds; from 5 seeds on there is little between them. Pooling the "
    "variances of all arms gains most where they are equal and breaks where they differ.",
    "Heavy tails make the per-seed interval a little cautious: it covers in 95.5 to 96.4 %.",
    "A failed run that is averaged makes the interval so wide that hardly anything is found, and with more seeds it is "
    "likelier that one fails. To withhold the verdict finds no more; but it says why, and doesn't call it a lack of "
    "seeds.",
    "Shared seeds narrow the interval by the square root of 1 - correlation. Without a correlation they cost 5 % of "
    "the width with 10 seeds, and a quarter with 3, against Welch's interval.",
    "Several arms: Dunnett's pooled variance fails where the spreads differ. Bonferroni with each arm's own spread "
    "holds, but where all spreads are equal its intervals are more than twice as wide with 3 seeds, 8 % with 10.",
    'The 90 % interval says "no difference" falsely in 5 %, the 95 % interval in 2.5 %, and needs more seeds.',
    *crossed.NOTES,
]


def run(options: Options) -> Report:
    """Simulate, and return rates of "supported", coverages and powers."""
    studies = 200 if options.quick else options.repeats or STUDIES
    rng = np.random.default_rng(2026)
    tables = []
    for table in (rates, powers, heavy_tails, failures, shared_seeds, simultaneous, equivalence):
        options.say(f"  {table.__name__}")
        tables.append(table(studies, rng))
    tables += crossed.tables(options)
    return Report("Which interval over the seeds?", "Simulated studies.", tables, NOTES)


def rates(studies: int, rng: np.random.Generator) -> Table:
    """Normal values without an effect."""
    rows = []
    for situation in SITUATIONS:
        for n in SEEDS:
            cells = [_under_no_effect(situation, n, block, studies, rng) for block in BLOCKS]
            rows.append((situation.name, str(n), *cells))
    caption = (
        'Normal values: rate of "supported" without an effect, in percent (2.5 is stated), and in brackets the '
        f"coverage of the 95 % interval: {' / '.join(ESTIMATORS)}. {studies:,} simulated studies per cell."
    )
    return Table(caption, ("situation", "seeds", *(f"correlation {block:g}" for block in BLOCKS)), rows)


def powers(studies: int, rng: np.random.Generator) -> Table:
    """The effect at which 80 % of the intervals exclude zero."""
    studies = max(200, studies // 4)
    rows = [(one.name, str(n), *_detectable(one, n, studies, rng)) for one in SITUATIONS for n in SEEDS]
    caption = (
        "Normal values: smallest effect that is detected with 80 % power (two-sided, 5 %), in the unit of the SDs, at "
        f"a correlation of 0.15: the smaller, the better. {studies:,} simulated studies a step."
    )
    return Table(caption, ("situation", "seeds", *ESTIMATORS), rows)


def heavy_tails(studies: int, rng: np.random.Generator) -> Table:
    """Values with the tails of t with 3 degrees of freedom."""
    rows = [
        (one.name, str(n), _under_no_effect(one, n, 0.15, studies, rng, tails=3)) for one in SITUATIONS for n in SEEDS
    ]
    caption = (
        "Heavy tails: the same for values with the tails of a t distribution with 3 degrees of freedom, at a "
        f"correlation of 0.15: {' / '.join(ESTIMATORS)}. {studies:,} simulated studies per cell."
    )
    return Table(caption, ("situation", "seeds", '"supported" (coverage)'), rows)


def failures(studies: int, rng: np.random.Generator, share: float = 0.04) -> Table:
    """Runs that fail at chance level: averaged with the others, or left without a verdict."""
    rows, arms = [], SITUATIONS[0]._replace(sds=(0.3, 0.3))
    for n in (3, 5, 8, 20):
        values, failed = 90 + draw(arms, n, 0.15, studies, rng), rng.random((studies, n, 2)) < share
        any_failed, cells = failed.any(axis=(1, 2)), []
        for effect in (0, 1):
            with_effect = values + np.array([0, effect])
            sound = per_seed(with_effect, np.array(arms.weights))[0] > 0
            averaged = per_seed(np.where(failed, 10, with_effect), np.array(arms.weights))[0] > 0
            cells += [percent(found) for found in (sound, averaged, sound & ~any_failed)]
        rows.append((str(n), percent(any_failed), " / ".join(cells[:3]), " / ".join(cells[3:])))
    caption = (
        f"Failing runs: two arms of SD 0.3 at 90 %, each run falls to 10 % with probability {share:g}. Rate of "
        '"supported" in percent: if none failed / failed runs averaged / verdict withheld where a run failed. '
        f"{studies:,} simulated studies per cell."
    )
    return Table(caption, ("seeds", "studies with a failed run", "no effect", "effect 1"), rows)


def shared_seeds(studies: int, rng: np.random.Generator) -> Table:
    """Arms with the same seeds, or with different ones."""
    rows, (arms, *_) = [], SITUATIONS
    for n in SEEDS:
        for block in (0.0, 0.15, 0.5, 0.9):
            cells = []
            for correlation, estimator in ((block, per_seed), (0.0, per_seed), (0.0, welch)):
                low, high = estimator(draw(arms, n, correlation, studies, rng), np.array(arms.weights))
                cells.append(f"{percent(holds((low, high)))} ({(high - low).mean():.2f})")
            rows.append((str(n), f"{block:g}", *cells))
    caption = (
        "Two arms of SD 1 with the same seeds, whose values correlate, or with different seeds: coverage in percent, "
        f"and in brackets the mean width. {studies:,} simulated studies per cell."
    )
    return Table(caption, ("seeds", "correlation", "same, per seed", "different, per seed", "different, Welch"), rows)


def simultaneous(studies: int, rng: np.random.Generator) -> Table:
    """Three arms against one control, with simultaneous intervals."""
    rows = []
    for sds in ((1, 1, 1, 1), (0.22, 0.29, 0.67, 3.74), (3.74, 0.22, 0.29, 0.67)):
        for n in SEEDS:
            arms = Situation("control and three arms", (), sds)
            point = np.quantile(_largest_ratio(_pivotal(n, rng)), LEVEL)
            values = draw(arms, n, 0.15, studies, rng)
            each = [
                per_seed(values, np.eye(4)[arm] - np.eye(4)[0], 1 - (1 - LEVEL) / 3)
                for arm in (1, 2, 3)  # arm 0 is the control
            ]
            together = np.all([holds(one) for one in each], axis=0)
            width = " / ".join(f"{(high - low).mean():.2f}" for low, high in each)
            pooled_width = 2 * point * np.sqrt(2 / n * values.var(axis=1, ddof=1).mean(axis=1)).mean()
            cells = percent(together), width, percent(_largest_ratio(values) <= point), f"{pooled_width:.2f}"
            rows.append((", ".join(f"{sd:g}" for sd in sds), str(n), *cells))
    caption = (
        "Three arms against a control (the first SD), at a correlation of 0.15: coverage of the three 95 % intervals "
        "together, in percent, and their mean widths. Dunnett's critical value is from 200,000 simulated studies. "
        f"{studies:,} simulated studies per cell."
    )
    columns = ("SDs", "seeds", "per seed, Bonferroni", "widths", "pooled, Dunnett", "width of all")
    return Table(caption, columns, rows)


def equivalence(studies: int, rng: np.random.Generator) -> Table:
    """Claims of no difference, by the 90 % interval of two one-sided tests and by the 95 % interval."""
    rows = []
    for sd in (0.5, 1.0):
        for n in (3, 5, 10, 20):
            arms, cells = SITUATIONS[0]._replace(sds=(sd, sd)), []
            for truth in (0.0, 1.0):
                values = draw(arms, n, 0.15, studies, rng) + np.array([0, truth])
                for level in (0.9, 0.95):
                    low, high = per_seed(values, np.array(arms.weights), level)
                    cells.append(percent((low > -1) & (high < 1)))
            rows.append((f"{sd:g}", str(n), *cells))
    caption = (
        '"No difference" with a smallest effect of interest of 1, two arms: rate of "supported" in percent, where '
        f"there is no difference and where there is just one of 1. {studies:,} simulated studies per cell."
    )
    return Table(caption, ("SD", "seeds", "none, 90 %", "none, 95 %", "of 1, 90 %", "of 1, 95 %"), rows)


def _under_no_effect(
    situation: Situation, n: int, block: float, studies: int, rng: np.random.Generator, tails: float = np.inf
) -> str:
    values, weights = draw(situation, n, block, studies, rng, tails), np.array(situation.weights)
    found = [estimator(values, weights) for estimator in ESTIMATORS.values()]
    return " / ".join(f"{percent(low > 0)} ({percent(holds((low, high)))})" for low, high in found)


def _detectable(situation: Situation, n: int, studies: int, rng: np.random.Generator) -> list[str]:
    """Return, for each estimator, the effect at which 80 % of the intervals exclude zero."""
    values, weights = draw(situation, n, 0.15, studies, rng), np.array(situation.weights)
    found = []
    for estimator in ESTIMATORS.values():
        low, high = estimator(values, weights)
        # an effect shifts an interval without changing its width: detected if low + effect > 0 or high + effect < 0
        effects = np.linspace(0, 12 * max(situation.sds), 1201)
        power = np.array([((low + effect > 0) | (high + effect < 0)).mean() for effect in effects])
        found.append(f"{effects[np.argmax(power >= 0.8)]:.2f}")
    return found


def _pivotal(n: int, rng: np.random.Generator) -> np.ndarray:
    return draw(Situation("equal", (), (1, 1, 1, 1)), n, 0.0, 200_000, rng)


def _largest_ratio(values: np.ndarray) -> np.ndarray:
    """Return the largest |t| of the arms against the first one, with one variance for all: (studies,)."""
    means, n = values.mean(axis=1), values.shape[1]
    error = np.sqrt(2 / n * values.var(axis=1, ddof=1).mean(axis=1))
    return np.abs(means[:, 1:] - means[:, :1]).max(axis=1) / error
