// RUN: forgec opt %s -p 'schedule-kernel{target=sm_90a}' --remarks=missed --verify-diagnostics

// expected-remark@+1 {{in_place is not scheduled for sm_90a}}
tile.kernel @in_place(%y: !tile.block<tensor<4x64xf32>>) writes [0] updates [0] grid [1] {
  %zero = tile.index 0() : () -> index
  %end = tile.index 64() : () -> index
  %step = tile.index 4() : () -> index
  scf.for %i = %zero to %end step %step {
    %a = tile.load %y[%zero, %i] : !tile.block<tensor<4x64xf32>> -> tensor<4x4xf32>
    %b = arith.addf %a, %a : tensor<4x4xf32>
    tile.store %b, %y[%zero, %i] : tensor<4x4xf32>, !tile.block<tensor<4x64xf32>>
  }
  tile.return
}
