"""Graph IR (`tgraph`): what to compute, as pure dataflow over typed tensors."""
