"ttarget.func"() <{sym_name = "k", dims = ["N"]}> ({
^bb0(%0: memref<64xf32>, %1: i64, %2: i64):
  %3 = "ttarget.const"() <{value = 0}> : () -> i64
  %4 = "ttarget.const"() <{value = 1.0}> : () -> f32
  %5 = "ttarget.splat"(%4) : (f32) -> vector<8xf32>
  %6 = "ttarget.lane_index"() : () -> vector<8xi64>
  %20 = "ttarget.lane_index"() : () -> vector<4xi32>
  %7 = "ttarget.extract"(%5) <{lane = 7}> : (vector<8xf32>) -> f32
  %8 = "ttarget.insert"(%5, %7) <{lane = 0}> : (vector<8xf32>, f32) -> vector<8xf32>
  %9 = "ttarget.shuffle"(%5, %8) <{lanes = [0, 15]}> : (vector<8xf32>, vector<8xf32>) -> vector<2xf32>
  %10 = "ttarget.op"(%5, %8, %8) <{name = "fma"}> : (vector<8xf32>, vector<8xf32>, vector<8xf32>) -> vector<8xf32>
  %11 = "ttarget.op"(%5, %8) <{name = "lt"}> : (vector<8xf32>, vector<8xf32>) -> vector<8xi1>
  %12 = "ttarget.load"(%0, %1, %11) <{alignment = 64, operandSegmentSizes = [1, 1, 1, 0]}> : (memref<64xf32>, i64, vector<8xi1>) -> vector<8xf32>
  %13 = "ttarget.gather"(%0, %6, %11, %12) : (memref<64xf32>, vector<8xi64>, vector<8xi1>, vector<8xf32>) -> vector<8xf32>
  "ttarget.store"(%0, %3, %13) <{alignment = 0, stream = false}> : (memref<64xf32>, i64, vector<8xf32>) -> ()
  "ttarget.scatter"(%0, %6, %13, %11) : (memref<64xf32>, vector<8xi64>, vector<8xf32>, vector<8xi1>) -> ()
  "ttarget.prefetch"(%0, %3) <{level = 1}> : (memref<64xf32>, i64) -> ()
  %14 = "ttarget.alloca"() <{elements = 8}> : () -> memref<8xf32>
  %15 = "ttarget.loop"(%3, %1, %5) <{step = 8}> ({
  ^bb0(%16: i64, %17: vector<8xf32>):
    "ttarget.yield"(%17) : (vector<8xf32>) -> ()
  }) : (i64, i64, vector<8xf32>) -> vector<8xf32>
  %18 = "ttarget.op"(%1, %3) <{name = "ge"}> : (i64, i64) -> i1
  %19 = "ttarget.branch"(%18) ({
    "ttarget.yield"(%5) : (vector<8xf32>) -> ()
  }, {
    "ttarget.yield"(%8) : (vector<8xf32>) -> ()
  }) : (i1) -> vector<8xf32>
  "ttarget.check"(%18) <{code = 1}> : (i1) -> ()
  "ttarget.return"() : () -> ()
}) : () -> ()
