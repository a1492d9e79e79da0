"""From scores to metrics, intervals, cases and strata."""
