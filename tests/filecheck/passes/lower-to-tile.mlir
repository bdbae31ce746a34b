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

// -----
// Rows are written in the state's own memory.
// CHECK-LABEL: func.func @append
// CHECK-NEXT:    %[[OLD:.*]] = forge.state_read
// CHECK-NEXT:    %[[NEW:.*]] = tile.launch @{{.*}}(%places, %rows, %[[OLD]]) [] writes [2] updates [2]
// CHECK-NEXT:    forge.state_write %cache, %[[NEW]]
// CHECK:       tile.kernel @{{.*}} writes [2] updates [2]
// CHECK:         tile.check
// CHECK:         tile.scatter {{.*}} combine "any"
func.func @append(%cache : !forge.state<tensor<8x4xf32>>, %rows : tensor<2x4xf32>, %places : tensor<2xi64>) -> !forge.state<tensor<8x4xf32>> {
  %0 = forge.state_read %cache : (!forge.state<tensor<8x4xf32>>) -> tensor<8x4xf32>
  %1 = forge.index_copy %0, %places, %rows dim 0 : (tensor<8x4xf32>, tensor<2xi64>, tensor<2x4xf32>) -> tensor<8x4xf32>
  %2 = forge.state_write %cache, %1 : (!forge.state<tensor<8x4xf32>>, tensor<8x4xf32>) -> !forge.state<tensor<8x4xf32>>
  func.return %2 : !forge.state<tensor<8x4xf32>>
}

// -----

// The caller's tensor is copied first.
// CHECK-LABEL: func.func @keep
// CHECK-NEXT:    %[[COPY:.*]] = tile.launch @copy_{{.*}}(%x) [] writes [1] updates []
// CHECK-NEXT:    tile.launch @index_copy_{{.*}}(%places, %rows, %[[COPY]]) [] writes [2] updates [2]
func.func @keep(%x : tensor<8x4xf32>, %rows : tensor<2x4xf32>, %places : tensor<2xi64>) -> tensor<8x4xf32> {
  %0 = forge.index_copy %x, %places, %rows dim 0 : (tensor<8x4xf32>, tensor<2xi64>, tensor<2x4xf32>) -> tensor<8x4xf32>
  func.return %0 : tensor<8x4xf32>
}

// -----

// A group in which one op has no kernel: the others have.
// CHECK-LABEL: func.func @parts
// CHECK-NEXT:    tile.launch @exp_
// CHECK-NEXT:    forge.aten "aten::lgamma"
// CHECK-NEXT:    tile.launch @neg_
// CHECK-NEXT:    func.return
func.func @parts(%x : tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.fused "elementwise" (%a = %x : tensor<4xf32>) {
    %1 = forge.exp %a : (tensor<4xf32>) -> tensor<4xf32>
    %2 = forge.aten "aten::lgamma"(%1) : (tensor<4xf32>) -> tensor<4xf32>
    %3 = forge.neg %2 : (tensor<4xf32>) -> tensor<4xf32>
    forge.yield %3 : tensor<4xf32>
  } : tensor<4xf32>
  func.return %0 : tensor<4xf32>
}

// -----

// Tiles hold no complex numbers.
// CHECK-LABEL: func.func @complex
// CHECK-NEXT:    forge.neg
// CHECK-NEXT:    func.return
func.func @complex(%x : tensor<3xcomplex<f32>>) -> tensor<3xcomplex<f32>> {
  %0 = forge.neg %x : (tensor<3xcomplex<f32>>) -> tensor<3xcomplex<f32>>
  func.return %0 : tensor<3xcomplex<f32>>
}

// -----

// Each part of a concatenation is written by programs of its own, none under a mask.
// CHECK-LABEL: tile.kernel @concat_
// CHECK-NOT:     tile.gather
// CHECK-NOT:     arith.select
// CHECK:         scf.if
// CHECK:           %[[X:.*]] = tile.load
// CHECK:           tile.store %[[X]]
// CHECK:         scf.if
// CHECK:           %[[Y:.*]] = tile.load
// CHECK:           %[[AT:.*]] = tile.index 16() : () -> index
// CHECK:           %[[VIEW:.*]] = tile.view %{{.*}}[%[[AT]]] : !tile.block<tensor<4x40xf32>> to !tile.block<tensor<4x24xf32, #forge.tensor<[], strides = [40, 1]>>>
// CHECK:           tile.store %[[Y]], %[[VIEW]]
// CHECK:         tile.return
func.func @concat(%x : tensor<4x16xf32>, %y : tensor<4x24xf32>) -> tensor<4x40xf32> {
  %0 = forge.concat %x, %y dim 1 : (tensor<4x16xf32>, tensor<4x24xf32>) -> tensor<4x40xf32>
  func.return %0 : tensor<4x40xf32>
}

// -----

// A concatenation that something in the group reads as a whole is computed by selection.
// CHECK-LABEL: tile.kernel @sum_
// CHECK-NOT:     scf.if
// CHECK:         arith.select
// CHECK:         tile.reduce "add"
func.func @sum(%x : tensor<4x16xf32>, %y : tensor<4x24xf32>) -> tensor<4xf32> {
  %s = forge.fused "sum" (%a = %x : tensor<4x16xf32>, %b = %y : tensor<4x24xf32>) {
    %0 = forge.concat %a, %b dim 1 : (tensor<4x16xf32>, tensor<4x24xf32>) -> tensor<4x40xf32>
    %1 = forge.sum %0 over [1] : (tensor<4x40xf32>) -> tensor<4xf32>
    forge.yield %1 : tensor<4xf32>
  } : tensor<4xf32>
  func.return %s : tensor<4xf32>
}
