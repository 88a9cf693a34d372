"""Rules that give sketches: each looks at properties of a workload, none at an operator's name."""
