"""Tasks that are found by name: one file each, and one flagfile beside it."""
