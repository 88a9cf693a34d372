from tessera import Tensor, graph, i8, op

import numpy as np

W = op.tensor((2,), i8, init=np.array([1.5, 300.0]))
#   ^ NUMBER_CHANGES_TYPE: an array has numbers that are no elements of type i8
