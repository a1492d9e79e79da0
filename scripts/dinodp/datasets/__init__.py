"""Data sets: manifests, volumes, archives, verification; one file per kind of source in `sources`."""
