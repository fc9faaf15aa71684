"""How BASE and BEST were chosen, on the validation images only.

    python -m benchmarks.configs --home FOLDER [STUDY ...] [--workers N]

Everything runs as studies of the lab and resumes after an interruption; each study has its own report. For BASE, the
learning rate was chosen. BEST is the strongest network with fewer than 100,000 parameters. It was chosen in steps: a
screening (Plackett & Burman 1946) of 12 runs in which ten factors vary at once, so that every run gives information
about each of them; then single changes to the better levels, and combinations of changes. The choice was trained with
five seeds that no earlier study had used. Then came averaged weights, with one seed each, and finally the two changes
that looked best among these, with two seeds.
"""

from pathlib import Path
from typing import Any

import click
import pandas as pd

from benchmarks.measure import ROOT
from benchmarks.project import use_project
from benchmarks.table import Table, machine
from cnnlab.config import BASE, Config
from cnnlab.facts import num_parameters
from cnnlab.inquiry.design import Role
from cnnlab.inquiry.identity import differences
from cnnlab.inquiry.params import replace
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.run.choose import num_workers
from cnnlab.inquiry.run.engines import Workers
from cnnlab.inquiry.run.runner import run_study
from cnnlab.inquiry.study import Study
from cnnlab.models import build_model

RESULTS = ROOT / "benchmarks" / "results"
NOTE = "Validation images only. Seconds are those of one thread, part of them while other programs ran. Measured on"
START = replace(BASE, blocks=((2, 16), (2, 32), (2, 64)), norm="batch", conv_dropout_kind="spatial")

# Each factor with its low and high level; the eleventh column of the design has no factor and shows the noise.
FACTORS: dict[str, tuple[Any, Any]] = {
    "activation": ("relu", "silu"),
    "label_smoothing": (0.0, 0.1),
    "residual": (False, True),
    "conv_dropout": (0.0, 0.1),
    "dropout": (0.0, 0.2),
    "lr": (4e-3, 1e-2),
    "weight_decay": (0.02, 0.1),
    "batch_size": (128, 64),
    "blocks": (START.blocks, ((2, 18), (2, 36), (2, 72))),
    "schedule": ("one_cycle", "cosine"),
}
FIRST_ROW = (1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0)  # of the design; the others are its rotations and a row of low levels
# Every factor at its better level in the screening.
BETTER = replace(START, blocks=FACTORS["blocks"][1], schedule="cosine", lr=4e-3, weight_decay=0.02, batch_size=128)
# What was chosen among the combinations, with 8 epochs and the weights of the last step.
CHOSEN = replace(BETTER, schedule="one_cycle", lr=1e-2, label_smoothing=0.1, conv_dropout_kind="element")

LRS = (1e-3, 2e-3, 3e-3, 6e-3, 1e-2)


def learning_rate() -> Study:
    """Return the study of BASE's learning rate."""
    arms = {f"lr {lr:g}": replace(BASE, lr=lr) for lr in LRS}
    return Study("base-1-lr", "Which peak of the learning rate trains BASE best?", BASE, (0, 1), arms=arms)


def design() -> list[tuple[int, ...]]:
    """Return the 12 rows of the Plackett-Burman design: in every two columns each pair of levels occurs three times."""
    rotations = [FIRST_ROW[-i:] + FIRST_ROW[:-i] for i in range(len(FIRST_ROW))]
    return [*rotations, (0,) * len(FIRST_ROW)]


def screening() -> Study:
    """Return the study of the 12 rows; each has its own seed."""
    arms = {}
    for i, row in enumerate(design()):
        levels = {name: values[level] for (name, values), level in zip(FACTORS.items(), row, strict=False)}
        arms[f"row {i:02d}"] = replace(START, seed=i, **levels)
    control = f"row {len(arms) - 1:02d}"
    return Study("best-1-screening", "Which factors matter?", arms[control], (0,), arms=arms, control=control)


def refinement() -> Study:
    """Return the study of single changes to the better levels of the screening."""
    changes: dict[str, dict[str, Any]] = {
        "better levels": {},
        "label smoothing": {"label_smoothing": 0.1},
        "width early": {"blocks": ((1, 24), (2, 40), (2, 64))},
        "depth late": {"blocks": ((2, 16), (2, 32), (3, 52))},
        "sgd": {"optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4, "schedule": "one_cycle"},
        "one cycle": {"schedule": "one_cycle", "lr": 6e-3},
    }
    arms = {arm: replace(BETTER, **change) for arm, change in changes.items()}
    return Study("best-2-changes", "Which single change helps?", BETTER, (0, 1), arms=arms, control="better levels")


def combination() -> Study:
    """Return the study of combined changes, against the overfitting that all earlier arms have shown."""
    base = replace(BETTER, schedule="one_cycle", lr=1e-2, label_smoothing=0.1, batch_size=64, precision="bf16")
    changes: dict[str, dict[str, Any]] = {
        "relu": {},
        "silu": {"activation": "silu"},
        "silu, some conv dropout": {"activation": "silu", "conv_dropout": 0.03},
        "silu, 12 epochs": {"activation": "silu", "epochs": 12},
        "sgd": {"optimizer": "sgd", "lr": 0.05, "weight_decay": 1e-3},
        "large batches": {"batch_size": 128},
    }
    arms = {arm: replace(base, **change) for arm, change in changes.items()}
    return Study(
        "best-3-combinations", "Which changes go together?", base, (0,), arms=arms, roles={"epochs": "scientific"}
    )


def confirmation() -> Study:
    """Return the study of the choice alone, with seeds that were not used to choose it."""
    question = "How good is the choice, with fresh seeds?"
    return Study("best-4-confirmation", question, CHOSEN, range(100, 105), arms={"chosen": CHOSEN})


def averaging() -> Study:
    """Return the study of averaged weights, with what may go together with them."""
    long, wide_early = {"keep": "average", "epochs": 16}, {"blocks": ((2, 20), (2, 40), (2, 64))}
    changes: dict[str, dict[str, Any]] = {
        "last weights": {"keep": "last"},
        "average": {},
        "average, higher rate": {"lr": 0.02},
        "average, silu": {"activation": "silu", "pool": "last"},
        "average, wide early": wide_early,
        "average, deep": {"blocks": ((2, 16), (3, 32), (2, 68))},
        "average, 16 epochs": long,
        "average, 16 epochs, dropout": long | {"dropout": 0.2},
        "average, 16 epochs, conv dropout": long | {"conv_dropout": 0.05, "conv_dropout_kind": "spatial"},
    }
    base = replace(CHOSEN, keep="average", precision="bf16")
    arms = {arm: replace(base, **change) for arm, change in changes.items()}
    roles: dict[str, Role] = {"epochs": "scientific", "keep": "scientific"}
    return Study("best-5-averaging", "What do averaged weights change?", base, (0,), arms=arms, roles=roles)


def longer() -> Study:
    """Return the study of the two changes that looked best: SiLU, twice as many epochs, and both."""
    base, silu = replace(CHOSEN, keep="average", precision="bf16"), {"activation": "silu", "pool": "last"}
    arms = {
        "average": base,
        "silu": replace(base, **silu),
        "16 epochs": replace(base, epochs=16),
        "silu, 16 epochs": replace(base, epochs=16, **silu),
    }
    roles: dict[str, Role] = {"epochs": "scientific"}
    return Study("best-6-longer", "SiLU, longer training, or both?", base, (0, 1), arms=arms, roles=roles)


def effects(runs: pd.DataFrame) -> Table:
    """Return, for each factor, the mean of the runs at its high level minus the mean at its low level."""
    factors = FACTORS | {"(empty)": ("nothing", "nothing")}
    levels = pd.DataFrame(design(), index=list(screening().arms), columns=list(factors)).loc[runs["arm"]]
    accuracy, loss = (runs[metric].to_numpy() for metric in ("accuracy/valid", "loss/valid"))
    rows = []
    for name, (low_level, high_level) in factors.items():
        high = levels[name].to_numpy() == 1
        accuracy_pp = 100 * (accuracy[high].mean() - accuracy[~high].mean())
        loss_nats = loss[high].mean() - loss[~high].mean()
        rows.append((f"{name}: {low_level} → {high_level}", f"{accuracy_pp:+.2f}", f"{loss_nats:+.4f}"))
    return Table(f"Effects, n = {len(runs)} runs:", ("factor", "accuracy, pp", "loss, nats"), rows)


def arms_table(study: Study, runs: pd.DataFrame) -> Table:
    """Return the mean and SD of each arm of a study."""
    rows = []
    for arm, group in runs.groupby("arm", sort=False):
        accuracy, config = 100 * group["accuracy/valid"], study.arms[str(arm)]
        rows.append(
            (
                f"{arm}: {described(config, study.base)}",
                f"{num_parameters(build_model(config)):,}",
                str(len(group)),
                f"{accuracy.mean():.2f}",
                f"{accuracy.std():.2f}" if len(group) > 1 else "-",
                f"{group['loss/valid'].mean():.4f}",
                f"{group['time/total_s'].mean():.0f}",
            )
        )
    columns = ("arm", "parameters", "n", "accuracy, %", "SD, pp", "loss", "seconds")
    base = described(study.base, BASE) if study.base != BASE else "BASE"
    return Table(f"The base: {base}.", columns, rows)


def described(config: Config, base: Config) -> str:
    """Return in words what a config has other than `base`, apart from the seed."""
    changes = {name: value for name, (_, value) in differences(base, config).items() if name != "seed"}
    return ", ".join(f"{name} {value}" for name, value in changes.items()) or "as the base"


CHOICES = (learning_rate, screening, refinement, combination, confirmation, averaging, longer)
STUDIES = {study.name: study for study in (choice() for choice in CHOICES)}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[STUDY]...", type=click.Choice(list(STUDIES)))
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the store.")
@click.option("--workers", type=click.IntRange(1), help="Worker processes.  [default: one for each core]")
def main(names: tuple[str, ...], home: Path, workers: int | None) -> None:
    """Train the missing runs of these studies (default: all), and write their reports into benchmarks/results."""
    use_project(home)
    store = connect()
    with Workers(store, workers or num_workers()) as engine:
        for study in [STUDIES[name] for name in names] or STUDIES.values():
            runs = run_study(study, store, engine, "cpu", explore=True)
            tables = [effects(runs)] if study.name == screening().name else []
            tables.append(arms_table(study, runs))
            text = "\n\n".join([f"# {study.question}", *(table.markdown() for table in tables), f"{NOTE} {machine()}."])
            (RESULTS / f"{study.name}.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
