"tgraph.func"() <{sym_name = "f"}> ({
^bb0(%0: tensor<?x4xf32>):
  %1 = "tgraph.neg"(%0) {tessera.result_shapes = [[#tessera.dim<"N">, 4]]} : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %2 = "tgraph.softmax"(%1) <{axis = 1}> {tessera.result_shapes = [[#tessera.dim<"N">, 4]]} : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %3 = "tgraph.dimension"() <{dtype = i64, value = #tessera.dim<"2*N">}> : () -> tensor<i64>
  "tgraph.return"(%2) : (tensor<?x4xf32>) -> ()
}) {tessera.argument_shapes = [[[#tessera.dim<"N">, 4]]]} : () -> ()
