"""Metrics of docs/evaluation.md: pure functions on records, and the runs that make the records with our core."""
