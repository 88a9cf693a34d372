import numpy as np
from tessera import Tensor, f32, graph, loss_scale, op

net = graph.from_onnx(3)
#     ^ BAD_ARGUMENT: graph.from_onnx takes the path of a file
