// RUN: forgec opt %s -p 'bind-tiles{tiles="BM=32"}' --split-input-file | filecheck %s

// DOC: a block of 64 elements is covered exactly: nothing to pad, everything in bounds.
// CHECK-LABEL: tile.kernel @exact(
// CHECK-SAME:    tiles [BM over 64] grid [2] bound {BM = 32} {
// CHECK-NEXT:    %p = tile.program_id 0
// CHECK-NEXT:    %o = tile.index p0 * 32(%p) : (index) -> index
// CHECK-NEXT:    %v = tile.load %x[%o] in_bounds [0] : !tile.block<tensor<64xf32>> -> tensor<32xf32>
// CHECK-NEXT:    tile.store %v, %y[%o] in_bounds [0] : tensor<32xf32>, !tile.block<tensor<64xf32>>
// CHECK-NEXT:    tile.return
tile.kernel @exact(%x : !tile.block<tensor<64xf32>>, %y : !tile.block<tensor<64xf32>>) writes [1]
    tiles [BM over 64] grid [floordiv(63 + BM, BM)] {
  %p = tile.program_id 0
  %o = tile.index p0 * BM (%p) : (index) -> index
  %v = tile.load %x[%o] : !tile.block<tensor<64xf32>> -> tensor<?xf32, #forge.tensor<[BM]>>
  %w = tile.pad %v[%o] within [64] other 0.0 : tensor<?xf32, #forge.tensor<[BM]>>
  tile.store %w, %y[%o] : tensor<?xf32, #forge.tensor<[BM]>>, !tile.block<tensor<64xf32>>
  tile.return
}

// -----

// The last program is half outside: the pad stays, and nothing is said of bounds.
// CHECK-LABEL: tile.kernel @inexact(
// CHECK-SAME:    grid [3] bound {BM = 32} {
// CHECK:         %v = tile.load %x[%o] : !tile.block<tensor<80xf32>> -> tensor<32xf32>
// CHECK-NEXT:    %w = tile.pad %v[%o] within [80] other 0.0 : tensor<32xf32>
// CHECK-NEXT:    tile.store %w, %y[%o] : tensor<32xf32>, !tile.block<tensor<80xf32>>
tile.kernel @inexact(%x : !tile.block<tensor<80xf32>>, %y : !tile.block<tensor<80xf32>>) writes [1]
    tiles [BM over 80] grid [floordiv(79 + BM, BM)] {
  %p = tile.program_id 0
  %o = tile.index p0 * BM (%p) : (index) -> index
  %v = tile.load %x[%o] : !tile.block<tensor<80xf32>> -> tensor<?xf32, #forge.tensor<[BM]>>
  %w = tile.pad %v[%o] within [80] other 0.0 : tensor<?xf32, #forge.tensor<[BM]>>
  tile.store %w, %y[%o] : tensor<?xf32, #forge.tensor<[BM]>>, !tile.block<tensor<80xf32>>
  tile.return
}

// -----

// A loop in steps of the tile, over an extent that is a multiple of it for every value of the symbol.
// CHECK-LABEL: tile.kernel @multiple(
// CHECK:         scf.for %k = %z to %n step %s {
// CHECK-NEXT:      %v = tile.load %x[%k] in_bounds [0] : !tile.block<tensor<?xf32, #forge.tensor<[n0 * 64]>>> -> tensor<32xf32>
// CHECK-NEXT:      tile.store %v, %y[%k] in_bounds [0]
tile.kernel @multiple(%x : !tile.block<tensor<?xf32, #forge.tensor<[n0 * 64]>>>,
    %y : !tile.block<tensor<?xf32, #forge.tensor<[n0 * 64]>>>) symbols [n0] writes [1] tiles [BM over n0 * 64] grid [1] {
  %z = arith.constant 0 : index
  %n = tile.index n0 * 64 () : () -> index
  %s = tile.index BM () : () -> index
  scf.for %k = %z to %n step %s {
    %v = tile.load %x[%k] : !tile.block<tensor<?xf32, #forge.tensor<[n0 * 64]>>> -> tensor<?xf32, #forge.tensor<[BM]>>
    tile.store %v, %y[%k] : tensor<?xf32, #forge.tensor<[BM]>>, !tile.block<tensor<?xf32, #forge.tensor<[n0 * 64]>>>
  }
  tile.return
}

// -----

// A row must be in one tile: the launch says how long it is at most.
// CHECK-LABEL: tile.kernel @whole(
// CHECK-SAME:    bound {BD = 112} {
// CHECK:         %v = tile.load %x[%z] : !tile.block<tensor<?xf32, #forge.tensor<[n0]>>> -> tensor<112xf32>
forge.symbol @s0 "seq" min 1 max 50
tile.kernel @whole(%x : !tile.block<tensor<?xf32, #forge.tensor<[n0]>>>,
    %y : !tile.block<tensor<?xf32, #forge.tensor<[n0]>>>) symbols [n0] writes [1] tiles [BD whole n0] grid [1] {
  %z = arith.constant 0 : index
  %v = tile.load %x[%z] : !tile.block<tensor<?xf32, #forge.tensor<[n0]>>> -> tensor<?xf32, #forge.tensor<[BD]>>
  tile.store %v, %y[%z] : tensor<?xf32, #forge.tensor<[BD]>>, !tile.block<tensor<?xf32, #forge.tensor<[n0]>>>
  tile.return
}
func.func @forward(%a : tensor<?xf32, #forge.tensor<[s0 * 2]>>) -> tensor<?xf32, #forge.tensor<[s0 * 2]>> {
  %y = tile.launch @whole(%a) [s0 * 2] writes [1] updates [] : (tensor<?xf32, #forge.tensor<[s0 * 2]>>) -> tensor<?xf32, #forge.tensor<[s0 * 2]>>
  func.return %y : tensor<?xf32, #forge.tensor<[s0 * 2]>>
}

// -----

// Without an upper bound there is no tile that is certain to hold it: nothing is done.
// CHECK-LABEL: tile.kernel @unbounded(
// CHECK-NOT:     bound
// CHECK:         tile.load %x[%z] : !tile.block<tensor<?xf32, #forge.tensor<[n0]>>> -> tensor<?xf32, #forge.tensor<[BD]>>
tile.kernel @unbounded(%x : !tile.block<tensor<?xf32, #forge.tensor<[n0]>>>,
    %y : !tile.block<tensor<?xf32, #forge.tensor<[n0]>>>) symbols [n0] writes [1] tiles [BD whole n0] grid [1] {
  %z = arith.constant 0 : index
  %v = tile.load %x[%z] : !tile.block<tensor<?xf32, #forge.tensor<[n0]>>> -> tensor<?xf32, #forge.tensor<[BD]>>
  tile.store %v, %y[%z] : tensor<?xf32, #forge.tensor<[BD]>>, !tile.block<tensor<?xf32, #forge.tensor<[n0]>>>
  tile.return
}
