"""Plain English: clumsy phrases that no text of this project uses, each with a better sentence beside it."""

import json
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
FILES = (
    *(
        "*.md",
        "docs/*.md",
        "*.py",
        "*.sh",
        "*.ipynb",
        ".ci/*.py",
        ".ci/run",
        "models/README.md",
        "experiment_log/README.md",
    ),
    *("cnnlab/**/*.py", "cnnlab/**/*.html", "tests/*.py"),
    *("benchmarks/*.py", "benchmarks/hidden/*.py", "benchmarks/*.md", "benchmarks/results/*.md"),
)
RECORDED = ("cnnlab/course/examples.py", "tests/test_words.py")  # words of predictions on record, and these

# what is clumsy, in a sentence, and that sentence in better words
PHRASES = [
    (r"whoever", "Whoever opens it is on record.", "Anyone who opens it is on record."),
    (r"mend(s|ed|ing)?", "It says what mends it.", "It says how to fix it."),
    (r"(it|they|which|that|id|what) stands? (in|beside|on|there)", "Its id stands in the UI.", "The UI shows its id."),
    (r"as (it|they) stands?", "It returns the record as it stands.", "It returns the current record."),
    (r"belongs? into", "Your reflection belongs into the logbook.", "Write your reflection in the logbook."),
    (r"one's own", "A folder of one's own.", "A folder of your own."),
    (r"holds? together", "The intervals hold together.", "The intervals are simultaneous."),
    (r"by heart", "It learns the images by heart.", "It memorises the images."),
    (
        r"(values?|dots?|rows?|sentences?|entry|entries|images|runs|studies) an? (image|update|arm|run|line|cell)",
        "It has one value an image.",
        "It has one value per image.",
    ),
    (r"(?<!there )(is|are) (?-i:none)(?! of| instead)", "A later guess is none.", "A later guess is not one."),
    (r"asked of", "It is asked of three arms.", "It is about three arms."),
    (r"c[ao]me of (it|them)", "It keeps what came of it.", "It keeps the result."),
    (r"said aloud", "It is said aloud.", "It is stated."),
    (r"so many", "It ends after so many epochs.", "It ends after this many epochs."),
    (r"\w+ times in \w+", "It is found 4 times in 5.", "It is detected with 80 % power."),
    (r"anew|afresh", "It is written anew.", "It is written again."),
    (r"as (it is|they are)(?=[.,;:)])", "It keeps the text as it is.", "It keeps the text unchanged."),
    (r"(in|of|with|on|by) (what|which)ever", "It works in whichever study.", "It works in any study."),
    (r"shall", "The folder that shall hold it.", "The folder that will hold it."),
    (r"to be had", "It is nowhere to be had.", "It can't be found anywhere."),
    (r"surely", "It is surely smaller.", "It is certainly smaller."),
    (r"(what|that) is missing of", "It trains what is missing of a study.", "It trains the missing runs of a study."),
    (r"goes on with", "It goes on with the next run.", "It continues with the next run."),
    (r"without a word", "It ends without a word.", "It ends without a message."),
]


def clumsy(text: str) -> list[str]:
    """Return each clumsy phrase with the words around it, and a better sentence as an example."""
    text = re.sub(r'"\s*\n\s*f?"', "", text)  # a string over several lines
    text = re.sub(r"\s*\n[\s#]*|\s+", " ", text)
    return [
        f"{text[max(0, found.start() - 40) : found.end() + 30]!r}: say it as in {better!r}"
        for phrase, _, better in PHRASES
        for found in re.finditer(rf"\b(?:{phrase})(?!\w)", text, re.IGNORECASE)
    ]


def words(file: Path) -> str:
    """Return a file's text; of a notebook its cells, without their outputs."""
    text = file.read_text(encoding="utf-8")
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"]) if file.suffix == ".ipynb" else text


@pytest.mark.parametrize(("phrase", "bad", "better"), PHRASES)
def test_a_clumsy_phrase_is_found_and_a_better_one_is_not(phrase: str, bad: str, better: str) -> None:
    assert len(clumsy(bad)) == 1, phrase
    assert clumsy(better) == []


@pytest.mark.parametrize("pattern", FILES)
def test_no_text_has_a_clumsy_phrase(pattern: str) -> None:
    files = [file for file in sorted(PROJECT.glob(pattern)) if file.relative_to(PROJECT).as_posix() not in RECORDED]
    assert files
    assert [f"{file.relative_to(PROJECT)}: {found}" for file in files for found in clumsy(words(file))] == []
