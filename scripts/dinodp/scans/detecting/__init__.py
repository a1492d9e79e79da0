"""Fit a detector on healthy scans and score new ones."""
