"""From a graph of operators to tasks: compute definitions per operator, fused into groups."""
