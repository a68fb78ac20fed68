"""Weights -> numbers and pictures: probes and reports."""
