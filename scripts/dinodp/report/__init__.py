"""What a reader sees: tables, figures, the alignment of components with anatomy, the comparison report."""
