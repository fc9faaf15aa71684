"""Hides Lightning from MLflow in measured processes.

MLflow's PyTorch flavour imports `pytorch_lightning` wherever it is installed, and that takes seconds. It is installed
for these benchmarks only, so the lab must not pay for it. The peer Lightning is measured under its newer name,
`lightning`.
"""

raise ImportError("hidden by the benchmarks")
