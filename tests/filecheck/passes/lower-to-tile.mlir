// RUN: forgec opt %s -p lower-to-tile --split-input-file | filecheck %s

// DOC: a sum of two tensors, the second one a row that is added to each row of the first.
// CHECK-LABEL: func.func @rows
// CHECK-NEXT:    tile.launch @add_
// CHECK:       tile.kernel @add_
func.func @rows(%x: tensor<64x48xf32>, %b: tensor<48xf32>) -> tensor<64x48xf32> {
  %y = forge.add %x, %b : (tensor<64x48xf32>, tensor<48xf32>) -> tensor<64x48xf32>
  func.return %y : tensor<64x48xf32>
}

// -----

// Equal groups are one kernel, whatever their values are called.
// CHECK-LABEL: func.func @twice
// CHECK-NEXT:    tile.launch @[[NAME:exp_[0-9a-f]+]](
// CHECK-NEXT:    tile.launch @[[NAME]](
// CHECK:       tile.kernel @[[NAME]](
// CHECK-NOT:   tile.kernel
func.func @twice(%x: tensor<8xf32>) -> tensor<8xf32> {
  %a = forge.exp %x : (tensor<8xf32>) -> tensor<8xf32>
  %b = forge.exp %a : (tensor<8xf32>) -> tensor<8xf32>
  func.return %b : tensor<8xf32>
}

// -----

// A matrix product loops over tiles of what is summed; the epilogue is computed on the tile of the result.
// CHECK-LABEL: tile.kernel @linear_
// CHECK-SAME:    tiles [BM over 32, BN over 24, BK over 16]
// CHECK:         scf.for
// CHECK:           tile.dot
// CHECK:           scf.yield
// CHECK:         math.tanh
// CHECK-NEXT:    tile.store
func.func @linear(%x: tensor<32x16xf32>, %w: tensor<24x16xf32>) -> tensor<32x24xf32> {
  %0 = forge.fused "linear" (%a = %x : tensor<32x16xf32>, %b = %w : tensor<24x16xf32>) {
    %1 = forge.linear %a, %b : (tensor<32x16xf32>, tensor<24x16xf32>) -> tensor<32x24xf32>
    %2 = forge.tanh %1 : (tensor<32x24xf32>) -> tensor<32x24xf32>
    forge.yield %2 : tensor<32x24xf32>
  } : tensor<32x24xf32>
  func.return %0 : tensor<32x24xf32>
}

// -----

// Rearrangements that strides express stay: the plan makes them views of the same memory.
// CHECK-LABEL: func.func @view
// CHECK-NEXT:    forge.reshape
// CHECK-NOT:   tile.kernel
func.func @view(%x: tensor<4x6xf32>) -> tensor<24xf32> {
  %y = forge.reshape %x : (tensor<4x6xf32>) -> tensor<24xf32>
  func.return %y : tensor<24xf32>
}

// -----

// An operation without an op of its own stays.
// CHECK-LABEL: func.func @aten
// CHECK-NEXT:    forge.aten "aten::roll"
// CHECK-NOT:   tile.kernel
func.func @aten(%x: tensor<4x6xf32>) -> tensor<4x6xf32> {
  %y = forge.aten "aten::roll"(%x, [1], [0]) : (tensor<4x6xf32>) -> tensor<4x6xf32>
  func.return %y : tensor<4x6xf32>
}
