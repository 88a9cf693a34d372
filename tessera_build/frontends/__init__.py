"""Frontends: each reads one kind of source and gives a Graph IR module."""
