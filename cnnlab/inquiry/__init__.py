"""Predict, run, confront: what is asked of an experiment before and after its runs."""
