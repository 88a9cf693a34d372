"""Target IR (`ttarget`): the host program and the kernels of one variant, in scalars, vectors and pointers."""
