"""The commands of ``dinodp``: one module each, with ``add`` (its arguments) and ``run`` (exit status)."""
