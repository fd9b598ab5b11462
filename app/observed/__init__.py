"""Metrics, drift and logs of a replica."""
