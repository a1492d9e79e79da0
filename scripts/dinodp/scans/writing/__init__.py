"""What a prediction leaves behind: maps, tables, a gallery."""
