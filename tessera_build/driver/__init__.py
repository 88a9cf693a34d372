"""One module per thing that a person can ask for: build, verify, bench, inspect, quickstart.

Takes: requests as plain values; the command line only parses and prints.
Gives: records. Invariant: rooms below do the work and don't know each other; they meet here and nowhere else.
"""
