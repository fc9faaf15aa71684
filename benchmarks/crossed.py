"""Intervals over seeds and images: how often they contain the true mean, and how wide they are.

Values (S, N) are simulated: an effect of each seed, one of each image, and a rest.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats
from scipy.special import ndtri

from benchmarks.measure import Options
from benchmarks.simulated import LEVEL, holds, percent
from benchmarks.table import Table
from cnnlab.inquiry.judge.statistics import crossed_interval, optimism, t_interval

STUDIES = 2_000
SIZES = ((2, 200), (3, 200), (3, 5_000), (10, 200), (10, 5_000))  # seeds and images
NOTES = [
    "Seeds and images: the lab takes the analysis of variance. From 3 seeds on it covers in 94 to 97 % in all cells; "
    "with 2 seeds it is cautious, up to 98 %. The interval over the seeds alone says little about new images. The "
    "bootstrap (Owen 2007, with a t for the seeds) is two to three times as wide as needed where images count.",
]

DIFFERENCES = {  # shares of seeds, images and rest in the variance
    "seeds dominate": (0.9, 0.05, 0.05),
    "images dominate": (0.05, 0.9, 0.05),
    "all": (0.3, 0.4, 0.3),
    "rest dominates": (0.05, 0.05, 0.9),
}
Interval = tuple[float, float]
Draw = Callable[[np.random.Generator, int, int], tuple[np.ndarray, float]]  # values (S, N), and their true mean


def tables(options: Options) -> list[Table]:
    """Simulate, and return the coverages of intervals over seeds and images."""
    studies = 20 if options.quick else STUDIES
    return [coverages(studies, options), differences(studies, options)]


def normal(*shares: float, tails: float = np.inf, compensating: bool = False) -> Draw:
    """Return a function that draws values with mean 0; `shares` of seeds, images and rest in the variance of the mean.

    tails: the degrees of freedom of a t distribution, for seeds and images. compensating: a run loses on some images
    what it gains on others.
    """

    def draw(rng: np.random.Generator, seeds: int, images: int) -> tuple[np.ndarray, float]:
        of_seeds, of_images, of_rest = np.sqrt(shares) * np.sqrt([seeds, images, seeds * images])
        rest = of_rest * rng.standard_normal((seeds, images))
        if compensating:
            rest -= rest.mean(axis=1, keepdims=True)
        return of_seeds * _noise(rng, (seeds, 1), tails) + of_images * _noise(rng, (1, images), tails) + rest, 0.0

    return draw


def answers(of_seeds: float, of_images: float, of_rest: float) -> Draw:
    """Return a function that draws differences in right answers, -1, 0 or 1, of two arms that are 90 and 92 % accurate.

    A run is right about an image if a score exceeds a threshold. The score is the sum of the image's easiness (SD 3)
    and normal effects of the seed in an arm, of the image in an arm, and of the rest, with the given SDs.
    """
    total = np.sqrt(3**2 + of_seeds**2 + of_images**2 + of_rest**2)

    def draw(rng: np.random.Generator, seeds: int, images: int) -> tuple[np.ndarray, float]:
        easy, right = 3 * rng.standard_normal(images), []
        for accuracy in (0.90, 0.92):
            score = easy + of_images * rng.standard_normal(images) + of_seeds * rng.standard_normal((seeds, 1))
            right.append(score + of_rest * rng.standard_normal((seeds, images)) > total * ndtri(1 - accuracy))
        return right[1].astype(float) - right[0], 0.02

    return draw


SITUATIONS = {
    "seeds dominate": normal(0.9, 0.05, 0.05),
    "images dominate": normal(0.05, 0.9, 0.05),
    "seeds and images": normal(0.45, 0.45, 0.1),
    "rest dominates": normal(0.05, 0.05, 0.9),
    "images and rest, no seeds": normal(0.0, 0.5, 0.5),
    "images and rest, runs compensate": normal(0.0, 0.5, 0.5, compensating=True),
    "heavy tails, seeds dominate": normal(0.9, 0.05, 0.05, tails=3),
    "heavy tails, images dominate": normal(0.05, 0.9, 0.05, tails=3),
    "heavy tails, both": normal(0.45, 0.45, 0.1, tails=3),
    "answers, seeds dominate": answers(0.6, 0.5, 0.5),
    "answers, images dominate": answers(0.02, 1.0, 0.5),
    "answers, both": answers(0.1, 1.0, 1.0),
    "answers, rest dominates": answers(0.0, 0.1, 2.0),
}


def over_seeds(values: np.ndarray) -> Interval:
    """Student's t over the means of the seeds."""
    effect = t_interval(values.mean(axis=1))
    return effect.low, effect.high


def bootstrap(values: np.ndarray) -> Interval:
    """The pigeonhole bootstrap, which resamples rows and columns (Owen 2007), with a t for the seeds.

    It uses the variance of the means over all draws, in closed form.
    """
    seeds, images = values.shape
    rows, columns, cells = ((values.sum(axis=axis) ** 2).sum() for axis in (1, 0, ()))
    square = (1 - 1 / seeds) * (1 - 1 / images) * values.sum() ** 2
    square += (1 - 1 / images) * rows + (1 - 1 / seeds) * columns + cells
    variance = square / values.size**2 - values.mean() ** 2
    half = stats.t.ppf((1 + LEVEL) / 2, seeds - 1) * np.sqrt(variance * seeds / (seeds - 1))
    return values.mean() - half, values.mean() + half


INTERVALS = {"over the seeds alone": over_seeds, "bootstrap": bootstrap, "analysis of variance": crossed_interval}


def coverages(studies: int, options: Options) -> Table:
    """The mean over seeds and images."""
    rng, rows = np.random.default_rng(2027), []
    for name, draw in SITUATIONS.items():
        options.say(f"  seeds and images: {name}")
        for seeds, images in SIZES:
            found = np.empty((len(INTERVALS), studies, 2))
            means = np.empty(studies)
            for study in range(studies):
                values, truth = draw(rng, seeds, images)
                means[study] = values.mean()
                found[:, study] = [interval(values) for interval in INTERVALS.values()]
            cells = [_cell(one, truth, means.std()) for one in found]
            rows.append((name, str(seeds), f"{images:,}", *cells))
    caption = (
        "Mean over seeds and images: coverage of the 95 % interval in percent, and in brackets its mean width in SDs "
        f"of the mean (3.9 if the SD were known). {studies:,} simulated studies per cell."
    )
    return Table(caption, ("situation", "seeds", "images", *INTERVALS), rows)


def differences(studies: int, options: Options) -> Table:
    """The mean over validation images minus that over test images, with the same seeds."""
    rng, rows = np.random.default_rng(2028), []
    for name, (of_seeds, of_images, of_rest) in DIFFERENCES.items():
        options.say(f"  validation - test: {name}")
        for seeds in (2, 3, 5, 10):
            found, means = np.empty((studies, 2)), np.empty(studies)
            for study in range(studies):
                common = 3 * rng.standard_normal((seeds, 1))  # effect of a run, on all images
                valid = common + normal(of_seeds, 2 / 3 * of_images, 2 / 3 * of_rest)(rng, seeds, 500)[0]
                test = common + normal(0, 1 / 3 * of_images, 1 / 3 * of_rest)(rng, seeds, 1_000)[0]
                one = optimism(valid, test)
                found[study], means[study] = (one.low, one.high), one.estimate
            rows.append((name, str(seeds), _cell(found, 0.0, means.std())))
    caption = (
        "Validation - test, 500 and 1,000 images: coverage of the 95 % interval in percent, and in brackets its mean "
        f"width in SDs of the difference. {studies:,} simulated studies per cell."
    )
    return Table(caption, ("situation", "seeds", "analysis of variance"), rows)


def _noise(rng: np.random.Generator, shape: tuple[int, int], tails: float) -> np.ndarray:
    """Return noise of SD 1."""
    return (
        rng.standard_normal(shape) if np.isinf(tails) else rng.standard_t(tails, shape) / np.sqrt(tails / (tails - 2))
    )


def _cell(intervals: np.ndarray, truth: float, sd: float) -> str:
    low, high = intervals.T
    return f"{percent(holds((low, high), truth))} ({(high - low).mean() / sd:.1f})"
