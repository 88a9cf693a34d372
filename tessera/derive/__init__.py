"""Derivatives of functions and of values of a trace: thin doors over the transforms of Graph IR."""
