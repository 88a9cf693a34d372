from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor[4]):
    def body(carry, step):
        return op.concat([carry, carry]), step

    return op.scan(body, x, x)
    #      ^ CARRY_CHANGES_TYPE: what scan carries changes its type from one iteration to the next
