"""Tile IR (`ttile`): tiles as values, views into memory, contractions and reductions; the kernel language unbound."""
