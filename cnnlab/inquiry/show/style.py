"""Colors and sizes of figures, and how a notebook shows them."""

import io
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.text import Text

# Okabe & Ito's colors, which color-blind readers can distinguish (Okabe & Ito 2008, Color Universal Design).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
PINK, YELLOW, SKY = "#CC79A7", "#E69F00", "#56B4E9"
LINES = [(BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PINK, ":"), (YELLOW, "-"), (SKY, "--")]
ARM_STYLES = [(colour, line, marker) for marker in (".", "x") for colour, line in LINES]
OUTCOME_COLOURS = {"supported": GREEN, "refuted": ORANGE, "practically equivalent": BLUE, "inconclusive": GREY}
WIDTH = 8.0  # inches
PAPER = 7.0  # inches between the margins of A4, where 8 points are 8 points


class LabFigure(Figure):
    """A figure for notebooks, with its title as the alternative text for readers who can't see it.

    Names in it may have any characters: a dollar is one, and not the beginning of a formula.
    """

    def draw(self, renderer: Any) -> None:
        """Draw the figure, with every text taken literally."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
        with mpl.rc_context({"text.parse_math": False}):  # for ticks that are made only now
            super().draw(renderer)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, bytes], dict[str, dict[str, str]]]:
        file = io.BytesIO()
        self.savefig(file, format="png", bbox_inches="tight")
        return {"image/png": file.getvalue()}, {"image/png": {"alt": " ".join(self.get_suptitle().split())}}


def svg(figure: Figure) -> str:
    """Return a figure as SVG without a background, for a page."""
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return "<svg" + file.getvalue().partition("<svg")[2]
