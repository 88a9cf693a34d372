from tessera import Tensor, graph, op

import numpy as np

W = op.tensor((2,), init=np.array([1 + 2j, 3]))
#   ^ UNKNOWN_DTYPE: an array's elements have no element type here
