"""Make the exercise "Reviewer 2": a store with real runs, and a report with ten faults and one sound claim.

    uv run class/reviewer2/make.py OUT

OUT gets mlflow.db, models/ and experiment_log/ of the student "kim", and report.md. Every number of the report comes
from the store; the false ones are changed here, by code. It takes a few minutes on two cores. The numbers are the same
each time on the same kind of processor; on another one they may differ a little.
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from cnnlab.config import BASE, Config, replace
from cnnlab.inquiry.judge.verdict import Verdict
from cnnlab.inquiry.prediction import predict
from cnnlab.inquiry.show.confront import confront
from cnnlab.inquiry.study import Study
from cnnlab.inquiry.task import find_metric

OWNER, SEEDS = "kim", (0, 1, 2)
NET = replace(BASE, blocks=((1, 8), (1, 16)), train_images=2_000, epochs=3, batch_size=32, lr=0.02)
TINY = replace(NET, blocks=((1, 2),))
FEW = replace(NET, train_images=300, epochs=10)
BATCH, LAYER = replace(NET, norm="batch"), replace(NET, norm="layer")
NO_SUCH_RUN = hashlib.md5(b"final_v2", usedforsecurity=False).hexdigest()
Found = dict[str, tuple[Verdict, ...]]  # the verdicts on each study


def study(name: str, question: str, base: Config = NET, **design: Any) -> Study:
    """Return a study of kim's."""
    return Study(f"my-{name}", question, base, SEEDS, **design)


def depth(name: str, epochs: int) -> Study:
    """Return the question about depth, which kim asks with a short training and with a longer one."""
    base = replace(NET, lr=0.01, epochs=epochs)
    arms = {"two convolutions": base, "eight convolutions": replace(base, blocks=((3, 8), (3, 16), (2, 16)))}
    return study(name, "Does a deeper network classify better?", base, arms=arms)


def claim(
    arm: str,
    direction: str,
    size: tuple[float, float],
    because: str,
    if_refuted: str,
    metric: str = "accuracy/valid",
) -> dict[str, Any]:
    """Return the arguments of a prediction."""
    return {**locals(), "confidence": 75}


RELUS = {"ReLU": NET, "ReLU again": replace(NET, seed=1000), "leaky ReLU": replace(NET, activation="leaky_relu")}
STUDIES = {  # what kim asked, in this order
    one.name: one
    for one in (
        study("rates", "How small may the learning rate be?", vary={"lr": (0.02, 0.0002)}),
        study("activation", "Is leaky ReLU better than ReLU?", arms=RELUS),
        study("dropout", "Does dropout reduce overfitting?", FEW, vary={"dropout": (0.0, 0.5)}),
        study("images", "How much do fewer images cost?", vary={"train_images": (2_000, 500)}),
        study("norm", "Is a normalization needed?", LAYER, arms={"layer norm": LAYER, "no norm": BATCH}),
        study(
            "conv-dropout",
            "Does dropout in the convolutions help?",
            TINY,
            arms={"baseline": TINY, "conv dropout": replace(NET, conv_dropout=0.1)},
        ),
        depth("depth", epochs=1),
        depth("depth-long", epochs=6),
        study("smoothing", "Does label smoothing help?", vary={"label_smoothing": (0.0, 0.3)}),
        study(
            "combination",
            "Do batch norm and dropout work together?",
            BATCH,
            arms={"batch norm": BATCH, "batch norm + dropout": replace(BATCH, epochs=6)},
            roles={"epochs": "scientific"},
        ),
        study("batch-size", "Do larger batches help?", vary={"batch_size": (32, 256)}),
    )
}
# What kim predicted about each; the last one came when the results were known.
CLAIMS = [
    ("my-rates", claim("lr=0.0002", "lower", (20, 70), "such steps hardly move a weight", "AdamW scales its steps")),
    ("my-activation", claim("leaky ReLU", "higher", (0.3, 3), "a slope keeps channels alive", "few channels die")),
    (
        "my-dropout",
        claim(
            *("dropout=0.5", "lower", (0.05, 0.5), "the network can't memorize the images", "the network is too small"),
            metric="gap/train_mode",
        ),
    ),
    ("my-images", claim("train_images=500", "lower", (5, 50), "it takes fewer steps", "500 images show it all")),
    ("my-norm", claim("no norm", "higher", (0.5, 20), "two layers train without help", "even two layers need it")),
    ("my-conv-dropout", claim("conv dropout", "higher", (1, 60), "the maps get robust", "there is no overfitting")),
    ("my-depth", claim("eight convolutions", "higher", (1, 20), "it sees larger parts", "two layers are enough")),
    ("my-depth-long", claim("eight convolutions", "higher", (1, 20), "it needs more time", "two layers are enough")),
    ("my-smoothing", claim("label_smoothing=0.3", "lower", (1, 10), "it hides the right class", "it does no harm")),
    (
        "my-combination",
        claim("batch norm + dropout", "higher", (1, 20), "each helps in its way", "they disturb each other"),
    ),
    ("my-batch-size", claim("batch_size=256", "higher", (0.5, 5), "gradients have less noise", "steps matter more")),
    ("my-batch-size", claim("batch_size=256", "lower", (5, 50), "it takes too few steps", "steps don't matter")),
]

REPORT = """\
# What helps a small CNN on Fashion-MNIST?

Kim, report for the course lab. All numbers are for the validation images and are means over three seeds. Unless we say
otherwise, the network has two convolutions (8 and 16 channels) and learns from 2,000 images for 3 epochs, with AdamW,
batches of 32 and a learning rate of 0.02. Each claim names its study.

1. **Activation.** {better} is the better activation. Its accuracy is {activation:.2f} pp higher than that of {worse}.
   (my-activation)
2. **Overfitting.** With dropout 0.5, the network doesn't overfit any more. Its validation loss is {gap:.3f} nats lower
   than its training loss, so it does even better on new images than on its training images. We predicted that dropout
   lowers this gap. The effect is
   {gap_effect}. Here we used 300 images and 10 epochs. (my-dropout)
3. **Number of images.** With 500 instead of 2,000 training images, the accuracy drops by {images:.2f} pp. We predicted
   a drop. (my-images)
4. **Normalization.** A network this small doesn't need any. Without normalization (norm none, dropout 0, learning rate
   0.02) it reaches {no_norm:.2f} %, and with layer norm only {layer_norm:.2f} %. (my-norm)
5. **Learning rate.** A learning rate of 0.0002 is too small for 3 epochs on 2,000 images. Compared with 0.02, it
   changes the accuracy by {rates}. We predicted a drop. (my-rates)
6. **Dropout in the convolutions.** Dropout of 0.1 after every convolution raises the accuracy from {tiny:.2f} % to
   {conv_dropout:.2f} %. The effect is {conv_dropout_effect}. We predicted a gain. (my-conv-dropout)
7. **Depth.** A deeper network is better. With eight convolutions instead of two, the accuracy changes by
   {depth}. We predicted a gain before these runs. Here we used
   6 epochs and a learning rate of 0.01. (my-depth-long)
8. **Label smoothing.** Label smoothing of 0.3 does harm, as we predicted. It raises the validation loss by
   {smoothing:.3f} nats. (my-smoothing)
9. **Combination.** Batch norm and dropout work best together. Batch norm alone reaches {batch_norm:.2f} %, and the
   combination reaches {combination:.2f} %. We predicted a gain. (my-combination)
10. **Batch size.** Our hypothesis was that large batches leave too few steps in a short training. The runs support it.
    With batches of 256 instead of 32, the accuracy changes by
    {batch_size}. (my-batch-size)
11. **Best network.** Our best run reaches {best:.2f} %. It is run `{no_such_run}`. Its learning curve
    is in `C:\\Users\\kim\\Desktop\\cnn\\final_v2\\curve.png`.
"""


def experiment(engine: str) -> Found:
    """Predict, run and confront everything; return the verdicts on each study."""
    found: Found = {}
    for name, said in CLAIMS:
        predict(STUDIES[name], **said)
        STUDIES[name].run(engine=engine, progress=False)
        found[name] = tuple(confront(STUDIES[name]))
    return found


def mean(runs: pd.DataFrame, arm: str, metric: str = "accuracy/valid") -> float:
    """Return the mean of an arm over its seeds, in the metric's unit."""
    return float(find_metric(metric).scale * runs.loc[runs["arm"] == arm, metric].mean())


def effect(one: Verdict) -> str:
    """Return the effect of a verdict as a report says it."""
    assert one.effect
    metric = one.prediction.metric
    interval = metric.say_interval(one.effect.low, one.effect.high)
    return f"{metric.say(one.effect.estimate)} (95 % interval {interval})"


def numbers(found: Found) -> dict[str, Any]:
    """Return what the report says: true numbers of the store, and two that are changed."""
    runs = {name: one.results() for name, one in STUDIES.items()}
    activation = mean(runs["my-activation"], "leaky ReLU") - mean(runs["my-activation"], "ReLU")
    better, worse = ("Leaky ReLU", "ReLU") if activation > 0 else ("ReLU", "leaky ReLU")
    images, smoothing = runs["my-images"], runs["my-smoothing"]
    lost = mean(images, "train_images=2000") - mean(images, "train_images=500")
    losses = [mean(smoothing, f"label_smoothing={one}", "loss/valid") for one in (0.0, 0.3)]
    return {
        "better": better,
        "worse": worse,
        "activation": abs(activation),
        "gap": -mean(runs["my-dropout"], "dropout=0.5", "gap/train_mode"),
        "gap_effect": effect(found["my-dropout"][0]),
        "images": 0.7 * lost,  # false
        "no_norm": mean(runs["my-norm"], "no norm"),
        "layer_norm": mean(runs["my-norm"], "layer norm"),
        "rates": effect(found["my-rates"][0]),
        "tiny": mean(runs["my-conv-dropout"], "baseline"),
        "conv_dropout": mean(runs["my-conv-dropout"], "conv dropout"),
        "conv_dropout_effect": effect(found["my-conv-dropout"][0]),
        "depth": effect(found["my-depth-long"][0]),
        "smoothing": losses[1] - losses[0],
        "batch_norm": mean(runs["my-combination"], "batch norm"),
        "combination": mean(runs["my-combination"], "batch norm + dropout"),
        "batch_size": effect(found["my-batch-size"][1]),
        "best": 100 * max(table["accuracy/valid"].max() for table in runs.values()) + 2.5,  # false
        "no_such_run": NO_SUCH_RUN,
    }


def unfit(found: Found, said: dict[str, Any]) -> list[str]:
    """Return why the runs of this machine don't make the exercise; nothing if they do."""
    outcomes = {name: [f"{one.outcome}, {one.label}" for one in some] for name, some in found.items()}
    yes, no, late = "supported, confirmatory", "refuted, confirmatory", "supported, exploratory"
    fine = ("rates", "dropout", "images", "norm", "conv-dropout", "depth-long", "combination")
    expected = {name: [yes] for name in fine}
    expected |= {"depth": [no], "batch-size": [no, late]}
    wrong = [
        f"my-{name} came out {outcomes[f'my-{name}']}, not {those}."
        for name, those in expected.items()
        if outcomes[f"my-{name}"] != those
    ]
    relu = STUDIES["my-activation"].results().query("arm != 'leaky ReLU'")["accuracy/valid"]
    dropout = STUDIES["my-dropout"].results()
    return wrong + [
        sentence
        for holds, sentence in (
            (found["my-activation"][0].outcome != "supported", "Leaky ReLU is better than ReLU beyond chance."),
            (said["activation"] < 100 * (relu.max() - relu.min()), "Repeats differ less than leaky ReLU and ReLU."),
            (said["gap"] > 0.01, "The gap in train mode isn't negative."),
            (mean(dropout, "dropout=0.5", "gap/loss") > 0, "The gap in eval mode is negative, too."),
            (found["my-smoothing"][0].outcome != "supported", "Label smoothing lowers the accuracy."),
            (said["smoothing"] > 0.05, "Label smoothing hardly raises the loss."),
        )
        if not holds
    ]


def make(out: Path, engine: str = "auto") -> None:
    """Make the exercise in a folder that has no store yet."""
    if (out / "mlflow.db").exists():
        sys.exit(f"{out} has a store already: name a new folder.")
    out.mkdir(parents=True, exist_ok=True)
    os.environ |= {"CNNLAB_HOME": str(out.resolve()), "CNNLAB_OWNER": OWNER}
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    found = experiment(engine)
    said = numbers(found)
    (out / "report.md").write_text(REPORT.format(**said), encoding="utf-8", newline="\n")
    if wrong := unfit(found, said):
        sys.exit("This store doesn't fit the report; change a setting and make it again:\n" + "\n".join(wrong))
    print(f"The exercise is in {out}.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: uv run class/reviewer2/make.py OUT")
    make(Path(sys.argv[1]))
