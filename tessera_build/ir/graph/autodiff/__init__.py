"""Derivatives of Graph IR functions: forward mode, linearisation and transposition, and new entries of modules."""
