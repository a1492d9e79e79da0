"""A user's own scans: fit on healthy ones, predict anomaly maps of new ones in the geometry of the input."""
