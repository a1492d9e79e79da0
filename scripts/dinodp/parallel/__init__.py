"""Several jobs, devices and processes: shards of a split, a free GPU for a job, one fit by several processes."""
