"ttile.func"() <{sym_name = "f", dims = ["N"]}> ({
^bb0(%0: memref<?x8xf32>, %1: memref<8x8xi8>, %9: memref<4xi64>):
  %2 = "ttile.alloc"() <{binding = {space = "stack", stored = false}}> : () -> memref<8x8xf32>
  %3 = "ttile.view"(%2) <{offsets = [0, 0], axes = [{axis = 0, step = 1, checked = false}, {axis = 1, step = 1, checked = false}], gather_axis = -1}> : (memref<8x8xf32>) -> memref<8x8xf32>
  %4 = "ttile.view"(%0) <{offsets = [#tessera.dim<"N">, 0], axes = [{axis = 0, step = 1, checked = true}, {axis = 1, step = 1, checked = false}], gather_axis = -1}> : (memref<?x8xf32>) -> memref<8x8xf32>
  "ttile.copy"(%4, %3) <{pad = 0.0}> : (memref<8x8xf32>, memref<8x8xf32>) -> ()
  "ttile.wait"() <{pending = 0}> : () -> ()
  %5 = "ttile.load"(%3) <{pad = 0.0}> : (memref<8x8xf32>) -> vector<8x8xf32>
  %6 = "ttile.view"(%1) <{offsets = [0, 0], axes = [{axis = 0, step = 1, checked = false}, {axis = 1, step = 1, checked = false}], gather_axis = -1}> : (memref<8x8xi8>) -> memref<8x8xi8>
  %7 = "ttile.load"(%6) <{pad = 1.0}> : (memref<8x8xi8>) -> vector<8x8xi8>
  %8 = "ttile.iota"() <{axis = 0, offset = 0}> : () -> vector<4x1xi64>
  %10 = "ttile.view"(%2, %8) <{offsets = [0, 0], axes = [{axis = -1, step = 1, checked = false}, {axis = 1, step = 1, checked = false}], gather_axis = 0}> : (memref<8x8xf32>, vector<4x1xi64>) -> memref<4x8xf32>
  %11 = "ttile.for"(%5) <{index = "i", extent = 8, step = 2, binding = {scope = "serial", instruction = "fma", stage = 2, stored = false}}> ({
  ^bb0(%12: vector<8x8xf32>):
    %13 = "ttile.contract"(%12, %5, %3) <{spec = "mk,kn->mn", order = "seq"}> : (vector<8x8xf32>, vector<8x8xf32>, memref<8x8xf32>) -> vector<8x8xf32>
    %14 = "ttile.view"(%2) <{offsets = [#tessera.dim<"i">, 0], axes = [{axis = 0, step = 1, checked = false}, {axis = 1, step = 1, checked = false}], gather_axis = -1}> : (memref<8x8xf32>) -> memref<2x8xf32>
    "ttile.yield"(%13) : (vector<8x8xf32>) -> ()
  }) : (vector<8x8xf32>) -> vector<8x8xf32>
  %15 = "ttile.if"() <{left = #tessera.dim<"N">, relation = "lt", right = 4}> ({
    "ttile.yield"(%11) : (vector<8x8xf32>) -> ()
  }, {
    "ttile.yield"(%5) : (vector<8x8xf32>) -> ()
  }) : () -> vector<8x8xf32>
  %16 = "ttile.reduce"(%15) <{axes = [1], combine = ["%0 = input : f32", "%1 = input : f32", "%2 = add(%0, %1) : f32", "return %2"], identity = [0.0], order = "tree(4)"}> : (vector<8x8xf32>) -> vector<8x1xf32>
  %17 = "ttile.permute"(%16) <{permutation = [1, 0]}> : (vector<8x1xf32>) -> vector<1x8xf32>
  %18 = "ttile.map"(%15, %17) <{program = ["%0 = input : f32", "%1 = input : f32", "%2 = mul(%0, %1) : f32", "return %2"]}> : (vector<8x8xf32>, vector<1x8xf32>) -> vector<8x8xf32>
  "ttile.store"(%4, %18) : (memref<8x8xf32>, vector<8x8xf32>) -> ()
  "ttile.return"() : () -> ()
}) {tessera.argument_shapes = [[[#tessera.dim<"N">, 8], [8, 8], [4]]]} : () -> ()
