"""What a job needs whatever it computes: files, logs, costs, provenance, devices, processes."""
