// RUN: forgec opt %s --split-input-file --verify-diagnostics

tile.kernel @axis(%x: !tile.block<tensor<8xf32>>, %y: !tile.block<tensor<8xf32>>) writes [1] grid [2] {
  // expected-error@+1 {{there is no axis 1: the kernel's grid has 1}}
  %p = tile.program_id 1
  tile.return
}

// -----

tile.kernel @outside(%x: !tile.block<tensor<8x4xf32>>) grid [1] {
  %z = tile.index 0() : () -> index
  // expected-error@+1 {{in_bounds names dimension 2 of a block of rank 2}}
  %a = tile.load %x[%z, %z] in_bounds [2] : !tile.block<tensor<8x4xf32>> -> tensor<8x4xf32>
  tile.return
}

// -----

tile.kernel @negative(%x: !tile.block<tensor<8x4xf32>>, %y: !tile.block<tensor<8x4xf32>>) writes [1] grid [1] {
  %z = tile.index 0() : () -> index
  %a = tile.load %x[%z, %z] in_bounds [0, 1] : !tile.block<tensor<8x4xf32>> -> tensor<8x4xf32>
  // expected-error@+1 {{in_bounds names dimension -1 of a block of rank 2}}
  tile.store %a, %y[%z, %z] in_bounds [-1] : tensor<8x4xf32>, !tile.block<tensor<8x4xf32>>
  tile.return
}

// -----

tile.kernel @twice(%x: !tile.block<tensor<8x4xf32>>) grid [1] {
  %z = tile.index 0() : () -> index
  // expected-error@+1 {{in_bounds names a dimension twice}}
  %a = tile.load %x[%z, %z] in_bounds [1, 1] : !tile.block<tensor<8x4xf32>> -> tensor<8x4xf32>
  tile.return
}

// -----

// expected-error@+1 {{the tile parameter BM is bound to 0, at least 1 is needed}}
tile.kernel @nothing(%x: !tile.block<tensor<8xf32>>) tiles [BM over 8] grid [1] bound {BM = 0} {
  tile.return
}

// -----

// expected-error@+1 {{BZ is bound and is no tile parameter of the kernel}}
tile.kernel @unknown(%x: !tile.block<tensor<8xf32>>) tiles [BM over 8] grid [1] bound {BM = 8, BZ = 4} {
  tile.return
}

// -----

tile.kernel @foreign(%x: !tile.block<tensor<8xf32>>) grid [1] {
  %z = tile.index 0() : () -> index
  %a = tile.load %x[%z] : !tile.block<tensor<8xf32>> -> tensor<8xf32>
  // expected-error@+1 {{forge.exp stands in a kernel, which holds ops of tile, arith, math, scf}}
  %b = forge.exp %a : (tensor<8xf32>) -> tensor<8xf32>
  tile.return
}

// -----

tile.kernel @branches(%x: !tile.block<tensor<8xf32>>) grid [1] {
  %z = tile.index 0() : () -> index
  %a = tile.load %x[%z] : !tile.block<tensor<8xf32>> -> tensor<8xf32>
  %b = tile.load %x[%z] : !tile.block<tensor<8xf32>> -> tensor<4xf32>
  %t = arith.constant true
  %r = scf.if %t -> (tensor<8xf32>) {
    // expected-error@+1 {{the then branch of scf.if yields tensor<8xf32> as value 0, found tensor<4xf32>}}
    scf.yield %b : tensor<4xf32>
  } else {
    scf.yield %a : tensor<8xf32>
  }
  tile.return
}

// -----

tile.kernel @counts(%x: !tile.block<tensor<8xf32>>) grid [1] {
  %z = tile.index 0() : () -> index
  %a = tile.load %x[%z] : !tile.block<tensor<8xf32>> -> tensor<8xf32>
  %t = arith.constant true
  %r = scf.if %t -> (tensor<8xf32>) {
    scf.yield %a : tensor<8xf32>
  } else {
    // expected-error@+1 {{the else branch of scf.if yields 1 values, found 2}}
    scf.yield %a, %a : tensor<8xf32>, tensor<8xf32>
  }
  tile.return
}
