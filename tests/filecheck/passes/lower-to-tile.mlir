// RUN: forgec opt %s -p 'lower-to-tile' --split-input-file | filecheck %s

// DOC: an op becomes a kernel of its own.
// CHECK-LABEL: func.func @alone
// CHECK-NEXT:    %{{.*}} = tile.launch @[[NAME:neg_[0-9a-f]*]](%x) [] writes [1] updates []
// CHECK-NEXT:    func.return
// CHECK:       tile.kernel @[[NAME]]
// CHECK:         arith.negf
func.func @alone(%x : tensor<2x3xf32>) -> tensor<2x3xf32> {
  %0 = forge.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return %0 : tensor<2x3xf32>
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
