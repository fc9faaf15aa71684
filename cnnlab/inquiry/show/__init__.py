"""What a reader sees: verdicts with figures, the logbook, the report, text for a terminal."""
