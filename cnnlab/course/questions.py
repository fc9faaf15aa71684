"""One question on a common misconception before each section, with feedback on every choice."""

from dataclasses import dataclass

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.shown import Head, Part, Shown


@dataclass(frozen=True)
class Choice:
    """One possible answer, and the feedback on it."""

    text: str
    feedback: str
    is_right: bool = False


@dataclass(frozen=True)
class Question:
    """A question with its choices, by letter."""

    text: str
    choices: dict[str, Choice]

    @property
    def right(self) -> str:
        """The letter of the right answer."""
        return next(letter for letter, choice in self.choices.items() if choice.is_right)


QUESTIONS = {
    "1": Question(
        "Two networks with the same settings and different seeds reach 82.4 % and 82.1 %. What follows?",
        {
            "a": Choice(
                "The first one is better by 0.3 pp.",
                "On these images it is. If you train both again, the order may be reversed.",
            ),
            "b": Choice(
                "Nothing yet: first ask how far apart two equal networks usually are.",
                "Right. That is the noise floor, and the A/A test measures it.",
                is_right=True,
            ),
            "c": Choice(
                "They are equal, since the settings are.", "Equal settings don't give equal networks: seeds differ."
            ),
        },
    ),
    "2a": Question(
        "The training loss during an epoch is higher than the validation loss after it. The network has dropout. Why?",
        {
            "a": Choice(
                "The validation images have leaked into the training.",
                "They haven't. Look at how the two losses are measured.",
            ),
            "b": Choice(
                "The network does better on images that it has never seen.",
                "That would be odd. Look at how the two losses are measured.",
            ),
            "c": Choice(
                "In training, dropout is on and the weights are older; neither is true in validation.",
                "Right. Only losses measured alike, both in eval mode, can be compared.",
                is_right=True,
            ),
        },
    ),
    "2b": Question(
        "Suppose that dropout made a network worse. What does that say about dropout?",
        {
            "a": Choice(
                "It did harm in this setting. With other images, or more epochs, it may help.",
                "Right. What a method does depends on the network, the images and the length of the training.",
                is_right=True,
            ),
            "b": Choice(
                "It harms this network.",
                "It did, with these images and this many epochs. Section 2b changes both.",
            ),
            "c": Choice(
                "The rate was wrong.",
                "Perhaps. But a rate that is right for one setting need not be right for another.",
            ),
        },
    ),
    "3a": Question(
        "A network with batch normalisation is in eval mode. Which mean does it subtract?",
        {
            "a": Choice(
                "A running average from the training.",
                "Right. So training and evaluation compute different things, which section 4 is about.",
                is_right=True,
            ),
            "b": Choice(
                "The mean of the batch that it is given.",
                "That is what it does in train mode. In eval mode an image's result can't depend on other images.",
            ),
            "c": Choice(
                "The mean of each image.", "That is what layer, group and instance normalisation do, in both modes."
            ),
        },
    ),
    "4a": Question(
        "Dropout alone costs 1 pp of accuracy, a norm alone gains 3 pp, both together gain 2 pp. What is this called?",
        {
            "a": Choice(
                "Synergy: together they beat dropout alone.", "Adding up gives that too. Synergy is more than the sum."
            ),
            "b": Choice(
                "Antagonism: together they are worse than the norm alone.", "Adding up gives that too: -1 + 3 = 2."
            ),
            "c": Choice(
                "Neither: the effects add up.",
                "Right. An interaction is what is left after adding up, here 0.",
                is_right=True,
            ),
        },
    ),
    "4b": Question(
        'A verdict is "inconclusive". What does that mean?',
        {
            "a": Choice(
                "There is no effect.",
                'That would be "practically equivalent": the interval would lie within the SESOI.',
            ),
            "b": Choice("The prediction was a bad one.", "A good question may need more runs than there were."),
            "c": Choice(
                "These runs can't decide.", "Right. More seeds may: `power` says about how many.", is_right=True
            ),
        },
    ),
    "vault": Question(
        "A 95 % interval for an effect is [+0.1, +0.9] pp. Which sentence is right?",
        {
            "a": Choice(
                "Of 100 intervals made in this way, about 95 contain the true mean effect.",
                "Right. Whether this one is among them, nobody knows.",
                is_right=True,
            ),
            "b": Choice(
                "95 % of all seeds have an effect between 0.1 and 0.9 pp.",
                "That would be an interval for single runs. This one is for their mean.",
            ),
            "c": Choice(
                "With more seeds it would stay this wide.",
                "The spread of single runs doesn't change; the interval for their mean narrows.",
            ),
        },
    ),
    "3b": Question(
        "At a learning rate of 0.3, a network with a norm is 20 pp better than one without. What follows?",
        {
            "a": Choice(
                "The norm widens the range of rates that work.",
                "One rate is one point: the range may have moved instead. Look at low rates as well.",
            ),
            "b": Choice(
                "Nothing about the range: that takes several rates, low and high.",
                "Right. A range has two ends.",
                is_right=True,
            ),
            "c": Choice(
                "Nothing: the rate has nothing to do with the norm.",
                "It has: a norm changes how far a step moves the maps.",
            ),
        },
    ),
    "3c": Question(
        "Two networks are trained with the same learning rate. Is that a fair comparison?",
        {
            "a": Choice(
                "Only if the rate suits both, or each has its own best one.",
                "Right. The rate is a nuisance: the question isn't about it, but it can decide the outcome.",
                is_right=True,
            ),
            "b": Choice("Yes: all settings but one are equal.", "Equal settings favour the network that they suit."),
            "c": Choice(
                "Only if there are several seeds.",
                "Seeds show the noise. They can't show that a rate suits one arm better.",
            ),
        },
    ),
    "3d": Question(
        "Each batch has two images. Where does batch normalisation have the fewest values for its statistics?",
        {
            "a": Choice("After the first convolution.", "There each channel has 2 x 784 values."),
            "b": Choice(
                "It is the same everywhere: two, one per image.", "In a convolution every position of the image counts."
            ),
            "c": Choice(
                "In the head, after global average pooling.", "Right. There each channel has two values.", is_right=True
            ),
        },
    ),
    "5": Question(
        "The best of twenty trials of a search reaches 92.9 %. Trained again with fresh seeds, what do you expect?",
        {
            "a": Choice("92.9 % on average.", "The best of many noisy scores is partly luck, and luck doesn't repeat."),
            "b": Choice(
                "Less on average.",
                "Right. The difference is called the winner's curse.",
                is_right=True,
            ),
            "c": Choice("More, since it is the best network.", "It was chosen for its score, luck included."),
        },
    ),
}


@dataclass(frozen=True, repr=False)
class Asked(Shown):
    """A question, or the feedback on an answer."""

    question: Question
    answer: str = ""

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        lines = [f"{letter}) {choice.text}" for letter, choice in self.question.choices.items()]
        if not self.answer:
            said = f"Put {_or(self.question.choices)} in place of the dots."
        else:
            said = f"{self.answer}) {self.question.choices[self.answer].feedback}"
        return [Head(self.question.text), lines, said]


def quiz(section: str, answer: object) -> Asked:
    """Return the question of a section; with an answer such as "b", the feedback on it. `...` is not an answer yet.

    Nothing is recorded: it is for you alone.

    Raises:
        LabError: there is no such question, or no such choice.
    """
    if section not in QUESTIONS:
        raise LabError(f"there is no question {section!r}: choose {_or(QUESTIONS)}.")
    question = QUESTIONS[section]
    if answer is ...:
        return Asked(question)
    if answer not in question.choices:
        raise LabError(f"answer={answer!r} is not a choice: choose {_or(question.choices)}.")
    return Asked(question, str(answer))


def _or(names: dict[str, Choice] | dict[str, Question]) -> str:
    """Return names as choices, such as "a", "b" or "c"."""
    *first, last = (f'"{name}"' for name in names)
    return f"{', '.join(first)} or {last}"
