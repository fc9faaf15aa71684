"""Benchmarks of the lab: each is a ratio against peers that were measured in the same invocation."""
