"""The command line: one file a command, which parses arguments, calls the driver and prints.

Takes: what a person types. Gives: text, or JSON with `--json`; a documented exit code.
Invariant: nothing is computed here, and nothing is printed that was not measured.
"""
