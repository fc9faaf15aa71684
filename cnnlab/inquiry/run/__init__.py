"""Running a study: what is missing is trained, here, in worker processes or on a cluster."""
