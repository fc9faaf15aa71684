"""The example predictions that ship with the lab, one per cell of the notebook, for anyone who wants to see it run.

They are recorded under the owner "example", so that the first predictions on a student's record are the student's own.
"""

from typing import Any

from cnnlab.inquiry.prediction import Prediction, predict
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.study import Study

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "01-baseline": [
        {
            "arm": "baseline again",
            "metric": "accuracy/valid",
            "direction": "none",
            "confidence": 60,
            "because": "the two arms are the same network, trained alike; only the random numbers differ",
            "if_refuted": "something differs between the arms that should not, and no later comparison can be trusted",
        }
    ],
    "02-dropout": [
        {
            "arm": "dropout=0.5",
            "metric": "loss/valid",
            "direction": "higher",
            "size": (0.03, 0.15),
            "confidence": 75,
            "because": "in a short training on many images the network underfits, and dropout takes features away",
            "if_refuted": "even a short training overfits enough for dropout to pay",
        },
    ],
    "02-dropout-short": [
        {
            "arm": "dropout=0.5",
            "metric": "loss/valid",
            "direction": "higher",
            "size": (0.03, 0.15),
            "confidence": 90,
            "because": "so few steps leave the network far from overfitting, and dropout takes features away",
            "if_refuted": "what three seeds showed in the quick profile was chance",
            "builds_on": "02-dropout in the quick profile",
        },
        {
            "trend": "dropout",
            "metric": "accuracy/valid",
            "direction": "lower",
            "size": (1, 5),
            "confidence": 85,
            "because": "the fewer the steps, the more a network needs all of its features in each of them",
            "if_refuted": "a small rate helps even here, or the rate does not matter in this range",
        },
    ],
    "02-dropout-long": [
        {
            "arm": "dropout=0.5",
            "metric": "loss/valid",
            "direction": "lower",
            "size": (0.02, 0.2),
            "confidence": 75,
            "because": "less overfitting means less certainty in wrong answers, which the loss punishes most",
            "if_refuted": "a smaller gap need not mean better predictions",
        },
    ],
    "03-learning-rates": [
        {
            "interaction": {"norm": "batch", "lr": 0.003},
            "metric": "accuracy/valid",
            "direction": "higher",
            "size": (5, 60),
            "confidence": 80,
            "because": "batch normalisation keeps the scale of the maps, so that small steps are not lost among them",
            "if_refuted": "a learning rate that is too low is too low with batch normalisation as well",
        },
    ],
    "03-normalization": [
        {
            "arm": "norm=batch",
            "metric": "accuracy/valid",
            "direction": "higher",
            "size": (0.5, 4),
            "at_least_sesoi": True,
            "confidence": 85,
            "because": "with normalised maps the early layers take larger steps, and the training is short",
            "if_refuted": "this network is shallow enough to train as well without a normalisation",
        },
    ],
    "03-rates-per-norm": [
        {
            "interaction": {"norm": "batch", "lr": 0.018},
            "metric": "accuracy/valid",
            "direction": "synergy",
            "size": (0.3, 5),
            "confidence": 70,
            "because": "without a norm three times the rate is too much, and with batch normalisation it is not",
            "if_refuted": "at this rate AdamW is as safe without a norm, or a norm needs small steps too",
        },
    ],
    "03-tiny-batches": [
        {
            "arm": "batch norm in the head",
            "metric": "accuracy/valid",
            "direction": "lower",
            "size": (3, 30),
            "confidence": 80,
            "because": "in the head each channel has one value per image, so the statistics come from two values",
            "if_refuted": "even two values per update are enough, since the running average smooths them",
        },
        {
            "arm": "batch norm in the convolutions",
            "against": "group norm in the convolutions",
            "metric": "accuracy/valid",
            "direction": "lower",
            "size": (0.3, 5),
            "confidence": 60,
            "because": "group norm takes its statistics from one image, so the size of the batch does not matter to it",
            "if_refuted": "in a convolution two images have enough positions for the statistics of a batch",
        },
        {
            "interaction": {"norm": "batch", "batch_size": 32},
            "metric": "accuracy/valid",
            "direction": "synergy",
            "size": (0.5, 8),
            "confidence": 60,
            "because": "the statistics of 32 images are close to those of all images, those of two are not",
            "if_refuted": "batch normalisation in the convolutions gains nothing from larger batches",
        },
    ],
    "04-combined": [
        {
            "interaction": {"conv_dropout": 0.2, "norm": "batch"},
            "metric": "loss/valid",
            "direction": "antagonism",
            "size": (0.01, 0.1),
            "confidence": 55,
            "because": "the normalised network learns faster, and dropout then takes away more of what it has learned",
            "if_refuted": "the two effects add up, or dropout costs a normalised network less",
        },
        {
            "arm": "dropout, then norm",
            "against": "norm, then dropout",
            "metric": "variance_ratio",
            "direction": "lower",
            "size": (0.05, 0.5),
            "confidence": 80,
            "because": "dropout before the norm raises the variance in training, which the running average then keeps",
            "if_refuted": "the variance that dropout adds is too small to matter at this rate",
        },
    ],
    "04-order": [
        {
            "arm": "norm, dropout, pool",
            "against": "pool, norm, dropout",
            "metric": "accuracy/valid",
            "direction": "lower",
            "size": (0.5, 6),
            "confidence": 65,
            "because": "a maximum over values of which some are dropped and the others scaled up is larger in training "
            "than in evaluation",
            "if_refuted": "the order of dropout and norm is what matters, and on which side of the pooling is not",
        }
    ],
    "05-search": [
        {
            "arm": "winner",
            "metric": "loss/valid",
            "direction": "lower",
            "size": (0.01, 0.3),
            "confidence": 80,
            "because": "it had the lowest loss of all trials, and not all of that will have been luck",
            "if_refuted": "the winner was lucky, and its settings are no better than those of the baseline",
            "builds_on": "the search before",
        }
    ],
    "06-best": [
        {
            "arm": "best",
            "against": "winner",
            "metric": "accuracy/valid",
            "direction": "higher",
            "size": (0.5, 2),
            "confidence": 85,
            "because": "it was chosen with far more runs than the search had, and it trains for twice as long",
            "if_refuted": "twenty trials find nearly as good a network as hours of choosing by hand",
            "builds_on": "the accuracies that the README of the lab reports",
        }
    ],
}


def predict_examples(study: Study, store: Store) -> list[Prediction]:
    """Record the example predictions of a study of any size under the owner of this process, and return them.

    A study of your own has none.
    """
    return [
        predict(study, store=store, **example)
        for name, examples in EXAMPLES.items()
        if study.name == name or study.name.endswith(f"-{name}")
        for example in examples
    ]
