"""Gradient entries beside PyTorch's eager forward and backward, on one thread, in the same process and run.

    python -m benchmarks.gradients [--models mlp,mobilenetv2,resnet50,bert_base,FILE.onnx] [--seconds 30] [--verify]

A name is a recipe of `benchmarks.peers`: PyTorch runs the module itself, and we its export with all parameters kept
apart (normalisations are not folded into convolutions, since they are differentiated by). Of a file, PyTorch runs the
same graph operator by operator (`operators.py`), what depends on no input computed once before. Inputs of a file are
those of NAME.npz or NAME.case0.in.npz beside it. Both compute the outputs and the gradients, of the outputs' product
with seeded cotangents, by all floating-point inputs and weights; the answers are compared before anything is timed,
those of a file's graph with onnxruntime's as well.
"""

import os

# The benchmark keeps to one core. numpy's matrix product, which proofs compute with, would start a thread for each core
# of the machine: BERT-base's proof took over five minutes so, and less than two with one thread. Read as it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
