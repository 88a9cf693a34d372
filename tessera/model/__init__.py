"""The parts that models are written with: traced tensors, annotations, parameters, state, places in the source."""
