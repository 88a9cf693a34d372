"""Text of every IR level: MLIR's generic operation syntax, printed and parsed in one place."""
