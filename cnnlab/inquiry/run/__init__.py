"""Running a study: its missing runs are trained here, in worker processes or on a cluster."""
