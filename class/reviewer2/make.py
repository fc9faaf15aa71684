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

from cnnlab import BASE, Config, Study, confront, predict, replace
from cnnlab.inquiry.judge.verdict import Verdict
from cnnlab.inquiry.task import find_metric

OWNER, SEEDS = "kim", (0, 1, 2)
NET = replace(BASE, blocks=((1, 8), (1, 16)), train_images=2_000, epochs=3, batch_size=32, lr=0.02)
TINY, DEEP = ((1, 2),), ((3, 8), (3, 16), (2, 16))
FEW = replace(NET, train_images=300, epochs=10)
NO_SUCH_RUN = hashlib.md5(b"final_v2", usedforsecurity=False).hexdigest()
Found = dict[str, tuple[Verdict, ...]]  # the verdicts on each study


def study(name: str, question: str, base: Config = NET, **design: Any) -> Study:
    """Return a study of kim's."""
    return Study(f"my-{name}", question, base, SEEDS, **design)


def depth(name: str, epochs: int) -> Study:
    """Return the question about depth, which kim asks with a short training and with a longer one."""
    base = replace(NET, lr=0.01, epochs=epochs)
    arms = {"two convolutions": base, "eight convolutions": replace(base, blocks=DEEP)}
    return study(name, "Does a deeper network classify better?", base, arms=arms)


def claim(arm: str, metric: str, direction: str, size: tuple[float, float], *words: str) -> dict[str, Any]:
    """Return the arguments of a prediction."""
    because, if_refuted = words
    said = {"arm": arm, "metric": metric, "direction": direction, "size": size}
    return said | {"confidence": 75, "because": because, "if_refuted": if_refuted}


BATCH_SIZE = study("batch-size", "Do larger batches help?", vary={"batch_size": (32, 256)})
BATCH_NORM = replace(NET, norm="batch")

# What kim asked and predicted, in this order.
PLAN = [
    (
        study("rates", "How small may the learning rate be?", vary={"lr": (0.02, 0.0002)}),
        claim(
            *("lr=0.0002", "accuracy/valid", "lower", (20, 70)),
            "so small a rate hardly moves the weights in so few steps",
            "AdamW scales its steps, and the rate hardly matters",
        ),
    ),
    (
        study(
            *("activation", "Is leaky ReLU better than ReLU?"),
            arms={
                "ReLU": NET,
                "ReLU again": replace(NET, seed=1000),
                "leaky ReLU": replace(NET, activation="leaky_relu"),
            },
        ),
        claim(
            *("leaky ReLU", "accuracy/valid", "higher", (0.3, 3)),
            "a slope below zero keeps channels from dying",
            "few channels die in so small a network",
        ),
    ),
    (
        study("dropout", "Does dropout reduce overfitting?", FEW, vary={"dropout": (0.0, 0.5)}),
        claim(
            *("dropout=0.5", "gap/train_mode", "lower", (0.05, 0.5)),
            "dropout keeps the network from memorizing the training images",
            "the network is too small to memorize anything",
        ),
    ),
    (
        study("images", "How much do fewer images cost?", vary={"train_images": (2_000, 500)}),
        claim(
            *("train_images=500", "accuracy/valid", "lower", (5, 50)),
            "the network sees fewer examples and takes fewer steps",
            "500 images show all that so small a network can learn",
        ),
    ),
    (
        study(
            *("norm", "Does the network need a normalization?", replace(NET, norm="layer")),
            arms={"layer norm": replace(NET, norm="layer"), "no norm": BATCH_NORM},
        ),
        claim(
            *("no norm", "accuracy/valid", "higher", (0.5, 10)),
            "two layers train well without help",
            "even two layers train faster with normalized maps",
        ),
    ),
    (
        study(
            *("conv-dropout", "Does dropout in the convolutions help?", replace(NET, blocks=TINY)),
            arms={"baseline": replace(NET, blocks=TINY), "conv dropout": replace(NET, conv_dropout=0.1)},
        ),
        claim(
            *("conv dropout", "accuracy/valid", "higher", (1, 60)),
            "the maps become robust against missing values",
            "the convolutions have too few weights to overfit",
        ),
    ),
    (
        depth("depth", epochs=1),
        claim(
            *("eight convolutions", "accuracy/valid", "higher", (1, 10)),
            "more layers see larger parts of the image",
            "two layers are enough for images of this size",
        ),
    ),
    (
        depth("depth-long", epochs=4),
        claim(
            *("eight convolutions", "accuracy/valid", "higher", (1, 10)),
            "more layers see larger parts of the image, once they have had time to learn",
            "two layers are enough, however long they train",
        ),
    ),
    (
        study("smoothing", "Does label smoothing help?", vary={"label_smoothing": (0.0, 0.3)}),
        claim(
            *("label_smoothing=0.3", "accuracy/valid", "lower", (1, 10)),
            "so much smoothing hides which class is right",
            "the right class stays the largest target, and that is enough",
        ),
    ),
    (
        study(
            *("combination", "Do batch norm and dropout work together?", BATCH_NORM),
            arms={"batch norm": BATCH_NORM, "batch norm + dropout": replace(BATCH_NORM, epochs=6)},
            roles={"epochs": "scientific"},
        ),
        claim(
            *("batch norm + dropout", "accuracy/valid", "higher", (1, 20)),
            "one speeds up the training and the other regularizes",
            "the two disturb each other",
        ),
    ),
    (
        BATCH_SIZE,
        claim(
            *("batch_size=256", "accuracy/valid", "higher", (0.5, 5)),
            "a gradient over more images has less noise",
            "fewer steps cost more than the noise",
        ),
    ),
]
# What kim predicted about the last study when its results were known.
AFTERWARDS = claim(
    *("batch_size=256", "accuracy/valid", "lower", (5, 50)),
    "large batches leave too few steps in a short training",
    "the number of steps doesn't matter",
)

REPORT = """\
# What helps a small CNN on Fashion-MNIST?

Kim, report for the course lab. All numbers are for the validation images and are means over three seeds. Unless we say
otherwise, the network has two convolutions (8 and 16 channels) and learns from 2,000 images for 3 epochs, with AdamW,
batches of 32 and a learning rate of 0.02. Each claim names its study.

1. **Activation.** {better} is the better activation. Its accuracy is {activation:.2f} pp higher than that of {worse}.
   (my-activation)
2. **Overfitting.** With dropout 0.5, the network doesn't overfit any more. Its validation loss is {gap:.3f} nats lower
   than its training loss, so it does even better on new images than on its training images. We predicted that dropout
   lowers this gap. The effect is {gap_effect}. Here we used 300 images and 10 epochs. (my-dropout)
3. **Number of images.** With 500 instead of 2,000 training images, the accuracy drops by {images:.2f} pp. We predicted
   a drop. (my-images)
4. **Normalization.** A network this small doesn't need any. Without normalization (norm none, dropout 0, learning rate
   0.02) it reaches {no_norm:.2f} %, and with layer norm only {layer_norm:.2f} %. (my-norm)
5. **Learning rate.** A learning rate of 0.0002 is too small for 3 epochs on 2,000 images. Compared with 0.02, it
   changes the accuracy by {rates}. We predicted a drop. (my-rates)
6. **Dropout in the convolutions.** Dropout of 0.1 after every convolution raises the accuracy from {tiny:.2f} % to
   {conv_dropout:.2f} %. The effect is {conv_dropout_effect}. We predicted a gain. (my-conv-dropout)
7. **Depth.** A deeper network is better. With eight convolutions instead of two, the accuracy changes by {depth}.
   We predicted a gain before these runs. Here we used 4 epochs and a learning rate of 0.01. (my-depth-long)
8. **Label smoothing.** Label smoothing of 0.3 does harm, as we predicted. It raises the validation loss by
   {smoothing:.3f} nats. (my-smoothing)
9. **Combination.** Batch norm and dropout work best together. Batch norm alone reaches {batch_norm:.2f} %, and the
   combination reaches {combination:.2f} %. We predicted a gain. (my-combination)
10. **Batch size.** Our hypothesis was that large batches leave too few steps in a short training. The runs support it.
    With batches of 256 instead of 32, the accuracy changes by {batch_size}. (my-batch-size)
11. **Best network.** Our best run reaches {best:.2f} %. It is run `{no_such_run}`. Its learning curve
    is in `C:\\Users\\kim\\Desktop\\cnn\\final_v2\\curve.png`.
"""


def experiment(engine: str) -> Found:
    """Predict, run and confront everything; return the verdicts on each study."""
    found: Found = {}
    for design, said in PLAN:
        predict(design, **said)
        design.run(engine=engine, progress=False)
        found[design.name] = tuple(confront(design))
    predict(BATCH_SIZE, **AFTERWARDS)
    found[BATCH_SIZE.name] = tuple(confront(BATCH_SIZE))
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
    runs = {design.name: design.results() for design, _ in PLAN}
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
    expected = dict.fromkeys(("rates", "dropout", "images", "norm", "conv-dropout", "depth-long", "combination"), [yes])
    expected |= {"depth": [no], "batch-size": [no, late]}
    wrong = [
        f"my-{name} came out {outcomes[f'my-{name}']}, not {those}."
        for name, those in expected.items()
        if outcomes[f"my-{name}"] != those
    ]
    relu = PLAN[1][0].results().query("arm != 'leaky ReLU'")["accuracy/valid"]
    dropout = PLAN[2][0].results()
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
