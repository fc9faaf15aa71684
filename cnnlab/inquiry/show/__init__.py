"""What a reader sees: verdicts with figures, the logbook, the report, and text for a terminal."""
