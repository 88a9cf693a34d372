from tessera import KVCache, State, Tensor, f32, graph, i32, op


class Stop(BaseException):
    pass


raise Stop("own")
#^ AUTHOR_CODE_FAILED: Stop: own
