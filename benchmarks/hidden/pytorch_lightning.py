"""Hides Lightning from MLflow in measured processes.

MLflow's PyTorch flavor imports `pytorch_lightning` if it is installed, which takes seconds. It is installed for these
benchmarks only, so the measurements of the lab must not include this time. The peer Lightning is measured under its
newer name, `lightning`.
"""

raise ImportError("hidden by the benchmarks")
