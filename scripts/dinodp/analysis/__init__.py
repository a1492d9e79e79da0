"""What a run says beyond its metrics: where models fail, and whether components follow anatomy."""
