"""The four intermediate representations (graph, schedule, tile, target) and what they share (core, machine)."""
