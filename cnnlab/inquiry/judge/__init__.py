"""What the runs say about a prediction, and what may be said about the runs."""
