"""Standard kernels in the kernel language: what compute definitions cannot express, one kernel a file."""
