// RUN: forgec opt %s -p 'schedule-kernel{target=sm_90a}' --remarks=missed --verify-diagnostics

// expected-remark@+1 {{read_back is not scheduled for sm_90a}}
tile.kernel @read_back(%y: !tile.block<tensor<4x64xf32>>, %s: !tile.block<tensor<4x4xf32>>) writes [0, 1] updates [0] grid [1] {
  %zero = tile.index 0() : () -> index
  %end = tile.index 64() : () -> index
  %step = tile.index 4() : () -> index
  %f = arith.constant 1.0 : f32
  %one = tile.broadcast %f along [] : f32 -> tensor<4x4xf32>
  %last = scf.for %i = %zero to %end step %step iter_args(%acc = %one) -> (tensor<4x4xf32>) {
    %b = arith.addf %acc, %acc : tensor<4x4xf32>
    tile.store %b, %y[%zero, %i] : tensor<4x4xf32>, !tile.block<tensor<4x64xf32>>
    scf.yield %b : tensor<4x4xf32>
  }
  %a = tile.load %y[%zero, %zero] : !tile.block<tensor<4x64xf32>> -> tensor<4x4xf32>
  %c = arith.addf %a, %last : tensor<4x4xf32>
  tile.store %c, %s[%zero, %zero] : tensor<4x4xf32>, !tile.block<tensor<4x4xf32>>
  tile.return
}
