"""Anybody's anomaly maps against lesion masks: `dinodp evaluate` and `dinodp compare`."""
