"""What every IR level shares: types, symbolic dims, scalar programs, nodes, text, hashing, spans and errors."""
