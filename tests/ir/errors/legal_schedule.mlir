"tsched.func"() <{sym_name = "t"}> ({
^bb0(%0: tensor<4x8xf32>, %1: tensor<4xi32>):
  %2 = "tsched.compute"(%1, %0) <{accesses = [{indices = [#tessera.dim<"i">]}, {indices = [#tessera.dim<"_r0">, #tessera.dim<"k">]}], axes = [{name = "i", extent = 4}], reduction = [{name = "k", extent = 8}], combine = "sum", program = ["%0 = input : i32", "%1 = input : f32", "%2 = neg(%1) : f32", "return %2"], index_values = []}> : (tensor<4xi32>, tensor<4x8xf32>) -> tensor<4xf32>
  %3 = "tsched.kernel_call"(%2) <{kernel = "sort", parameters = [["n", 1.0], ["m", 2.0]]}> : (tensor<4xf32>) -> tensor<4xf32>
  "tsched.return"(%3) : (tensor<4xf32>) -> ()
}) : () -> ()
