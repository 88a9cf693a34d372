"""Measurements against the machine's own ceilings, taken in the same run. Never part of the tests."""
