"""A whole entry as one program: where every value lives, which kernels run in which order, which weights they read."""
