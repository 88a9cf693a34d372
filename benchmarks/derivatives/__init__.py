"""What checkpoints and second derivatives cost beside a gradient, in turns in one process, one thread.

    python -m benchmarks.derivatives [--seconds 10]

Builds the 24 layers of `model.py` with proof. Prints how many bytes of workspace a gradient takes without and with a
checkpoint around every layer, and medians over rounds: the time with checkpoints, and that of a Hessian-vector product,
over the gradient's.
"""
