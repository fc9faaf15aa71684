"""Colours and sizes of figures."""

# Okabe & Ito's colours, which colour-blind readers tell apart (Okabe & Ito 2008, Color Universal Design).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
PINK, YELLOW, SKY = "#CC79A7", "#E69F00", "#56B4E9"
LINES = [(BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PINK, ":"), (YELLOW, "-"), (SKY, "--")]
ARM_STYLES = [(colour, line, marker) for marker in (".", "x") for colour, line in LINES]
OUTCOME_COLOURS = {"supported": GREEN, "refuted": ORANGE, "practically equivalent": BLUE, "inconclusive": GREY}
WIDTH = 8.0  # inches
PAPER = 7.0  # inches between the margins of A4, where 8 points are 8 points
