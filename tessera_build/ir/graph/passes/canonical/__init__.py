"""The rules of `canonicalise.py`, a file for each kind of op; every rule gives the simpler value, or None."""
