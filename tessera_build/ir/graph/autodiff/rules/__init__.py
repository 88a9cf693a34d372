"""The derivatives of all ops, one file for each family."""
