// RUN: forgec opt %s -p 'extract-schedule-graph{target=sm_90a parts=2}' --split-input-file | filecheck %s
// RUN: forgec opt %s -p 'extract-schedule-graph{target=sm_90a parts=2}' --split-input-file --remarks=missed 2>&1 | filecheck %s --check-prefix=CHECK-REMARK

// DOC: two neighbours along the rows multiply with the same columns of weights, which are copied once.
// CHECK-LABEL: tile.kernel @linear(
// CHECK-SAME:    attributes {schedule_graphs = ["{\22name\22: \22linear\22, \22ops\22: [{\22name\22: \22load_b\22, \22kind\22: \22load{{[a-z+]*}}\22,
// CHECK-SAME:    {\22name\22: \22load_a.0\22, \22kind\22: \22load{{[a-z+]*}}\22,
// CHECK-SAME:    {\22name\22: \22sums.0\22, \22kind\22: \22mma.bf16{{[a-z+]*}}\22,
// CHECK-SAME:    {\22name\22: \22load_a.1\22,
// CHECK-SAME:    {\22name\22: \22sums.1\22,
// CHECK-SAME:    {\22name\22: \22b\22, \22producer\22: \22load_b\22, \22memory\22: \22shared\22, \22size\22: 16384, \22reads\22: [{\22op\22: \22sums.0\22,
// CHECK-SAME:    {\22name\22: \22sums.0\22, \22producer\22: \22sums.0\22, \22memory\22: \22register\22, \22size\22: 32768, \22reads\22: [{\22op\22: \22sums.0\22, \22release\22: 0, \22distance\22: 1}]}
// CHECK-SAME:    \22tile\22: {\22BM\22: 64, \22BN\22: 128, \22BK\22: 64, \22parts\22: 2}, \22traffic\22: 32768, \22trips\22: 8}"]} {
tile.kernel @linear(%x : !tile.block<tensor<256x512xbf16>>, %w : !tile.block<tensor<128x512xbf16>>,
    %y : !tile.block<tensor<256x128xf32>>) writes [2] tiles [BM over 256, BN over 128, BK over 512] grid [4, 1]
    bound {BM = 64, BN = 128, BK = 64} {
  %p = tile.program_id 0
  %m = tile.index p0 * 64 (%p) : (index) -> index
  %zero = arith.constant 0.0 : f32
  %start = tile.broadcast %zero along [] : f32 -> tensor<64x128xf32>
  %c0 = tile.index 0 () : () -> index
  %end = tile.index 512 () : () -> index
  %step = tile.index 64 () : () -> index
  %r = scf.for %k = %c0 to %end step %step iter_args(%acc = %start) -> (tensor<64x128xf32>) {
    %a = tile.load %x[%m, %k] : !tile.block<tensor<256x512xbf16>> -> tensor<64x64xbf16>
    %b = tile.load %w[%c0, %k] : !tile.block<tensor<128x512xbf16>> -> tensor<128x64xbf16>
    %sums = tile.dot %a, %b into %acc transposed : tensor<64x64xbf16>, tensor<128x64xbf16> -> tensor<64x128xf32>
    scf.yield %sums : tensor<64x128xf32>
  }
  tile.store %r, %y[%m, %c0] : tensor<64x128xf32>, !tile.block<tensor<256x128xf32>>
  tile.return
}

// -----

// No instruction of the machine multiplies numbers of 32 bits without rounding them.
// CHECK-LABEL: tile.kernel @exact_product(
// CHECK-NOT:     schedule_graphs
// CHECK-REMARK: exact_product has no graph: machine sm_90a has no instruction mma.f32, which kernel exact_product multiplies with
tile.kernel @exact_product(%x : !tile.block<tensor<128x32xf32>>, %w : !tile.block<tensor<32x32xf32>>,
    %y : !tile.block<tensor<128x32xf32>>) writes [2] tiles [BM over 128] grid [2] bound {BM = 64} {
  %p = tile.program_id 0
  %m = tile.index p0 * 64 (%p) : (index) -> index
  %zero = arith.constant 0.0 : f32
  %start = tile.broadcast %zero along [] : f32 -> tensor<64x32xf32>
  %c0 = tile.index 0 () : () -> index
  %end = tile.index 32 () : () -> index
  %step = tile.index 16 () : () -> index
  %r = scf.for %k = %c0 to %end step %step iter_args(%acc = %start) -> (tensor<64x32xf32>) {
    %a = tile.load %x[%m, %k] : !tile.block<tensor<128x32xf32>> -> tensor<64x16xf32>
    %b = tile.load %w[%c0, %k] : !tile.block<tensor<32x32xf32>> -> tensor<32x16xf32>
    %sums = tile.dot %a, %b into %acc transposed : tensor<64x16xf32>, tensor<32x16xf32> -> tensor<64x32xf32>
    scf.yield %sums : tensor<64x32xf32>
  }
  tile.store %r, %y[%m, %c0] : tensor<64x32xf32>, !tile.block<tensor<128x32xf32>>
  tile.return
}

// -----

// Sums of rows have no factor that neighbours could share.
// CHECK-LABEL: tile.kernel @row_sums(
// CHECK-NOT:     schedule_graphs
// CHECK-REMARK: row_sums has no graph: kernel row_sums has no product whose rows alone depend on an axis of the grid
tile.kernel @row_sums(%x : !tile.block<tensor<128x512xf32>>, %y : !tile.block<tensor<128xf32>>) writes [1]
    tiles [BM over 128, BN over 512] grid [4] bound {BM = 32, BN = 64} {
  %p = tile.program_id 0
  %m = tile.index p0 * 32 (%p) : (index) -> index
  %zero = arith.constant 0.0 : f32
  %start = tile.broadcast %zero along [] : f32 -> tensor<32xf32>
  %c0 = tile.index 0 () : () -> index
  %end = tile.index 512 () : () -> index
  %step = tile.index 64 () : () -> index
  %r = scf.for %k = %c0 to %end step %step iter_args(%acc = %start) -> (tensor<32xf32>) {
    %a = tile.load %x[%m, %k] : !tile.block<tensor<128x512xf32>> -> tensor<32x64xf32>
    %s = tile.reduce "add" %a axis 1 : tensor<32x64xf32> -> tensor<32xf32>
    %t = arith.addf %acc, %s : tensor<32xf32>
    scf.yield %t : tensor<32xf32>
  }
  tile.store %r, %y[%m] : tensor<32xf32>, !tile.block<tensor<128xf32>>
  tile.return
}

// -----

// A kernel without a loop is left alone, and nothing is said of it.
// CHECK-LABEL: tile.kernel @without_loop(
// CHECK-NOT:     schedule_graphs
// CHECK-REMARK-NOT:  without_loop has no graph
tile.kernel @without_loop(%x : !tile.block<tensor<64xf32>>, %y : !tile.block<tensor<64xf32>>) writes [1]
    tiles [BM over 64] grid [2] bound {BM = 32} {
  %p = tile.program_id 0
  %o = tile.index p0 * 32 (%p) : (index) -> index
  %v = tile.load %x[%o] : !tile.block<tensor<64xf32>> -> tensor<32xf32>
  tile.store %v, %y[%o] : tensor<32xf32>, !tile.block<tensor<64xf32>>
  tile.return
}
