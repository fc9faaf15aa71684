"""Predict, run, confront: what is expected, whether the comparison is fair, and what the runs say about it."""
