// RUN: forgec opt %s -p 'select-masked-rows,dce' --split-input-file | filecheck %s

// DOC: rows that a mask picks, changed and put back.
// CHECK-NOT:     forge.symbol
// CHECK-LABEL: func.func @rows
// CHECK-NEXT:    [[Y:%.*]] = forge.exp %x : (tensor<3x4xf32>) -> tensor<3x4xf32>
// CHECK-NEXT:    [[M:%.*]] = forge.reshape %m : (tensor<3xi1>) -> tensor<3x1xi1>
// CHECK-NEXT:    [[Z:%.*]] = forge.where [[M]], [[Y]], %x : (tensor<3x1xi1>, tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
// CHECK-NEXT:    func.return [[Z]]
forge.symbol @u0 "picked" min 0 max 3
func.func @rows(%x : tensor<3x4xf32>, %m : tensor<3xi1>) -> tensor<3x4xf32> {
  %0 = forge.aten "aten::index.Tensor"(%x, [%m]) defines [u0] : (tensor<3x4xf32>, tensor<3xi1>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
  %1 = forge.exp %0 : (tensor<?x4xf32, #forge.tensor<[u0]>>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
  %2 = forge.aten "aten::index_put"(%x, [%m], %1, false) : (tensor<3x4xf32>, tensor<3xi1>, tensor<?x4xf32, #forge.tensor<[u0]>>) -> tensor<3x4xf32>
  func.return %2 : tensor<3x4xf32>
}

// -----

// A mask of two dimensions, rows of two values, and what is added.
// CHECK-LABEL: func.func @places
// CHECK-NOT:     forge.aten
// CHECK:         [[S:%.*]] = forge.mul {{.*}} -> tensor<?x4xf32, #forge.tensor<[s0 * 2]>>
// CHECK-NEXT:    [[R:%.*]] = forge.reshape [[S]] : {{.*}} -> tensor<2x?x4xf32, #forge.tensor<[s0]>>
// CHECK-NEXT:    [[A:%.*]] = forge.add %x, [[R]]
// CHECK-NEXT:    [[M:%.*]] = forge.reshape %m : {{.*}} -> tensor<2x?x1xi1, #forge.tensor<[s0]>>
// CHECK-NEXT:    forge.where [[M]], [[A]], %x
forge.symbol @s0 "length" min 0
forge.symbol @u0 "picked" min 0
func.func @places(%x : tensor<2x?x4xf32, #forge.tensor<[s0]>>, %y : tensor<2x?x4xf32, #forge.tensor<[s0]>>, %w : tensor<4xf32>, %m : tensor<2x?xi1, #forge.tensor<[s0]>>) -> tensor<2x?x4xf32, #forge.tensor<[s0]>> {
  %0 = forge.aten "aten::index.Tensor"(%x, [%m]) defines [u0] : (tensor<2x?x4xf32, #forge.tensor<[s0]>>, tensor<2x?xi1, #forge.tensor<[s0]>>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
  %1 = forge.aten "aten::index.Tensor"(%y, [%m]) : (tensor<2x?x4xf32, #forge.tensor<[s0]>>, tensor<2x?xi1, #forge.tensor<[s0]>>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
  %2 = forge.add %0, %1 : (tensor<?x4xf32, #forge.tensor<[u0]>>, tensor<?x4xf32, #forge.tensor<[u0]>>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
  %3 = forge.mul %2, %w : (tensor<?x4xf32, #forge.tensor<[u0]>>, tensor<4xf32>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
  %4 = forge.aten "aten::index_put"(%x, [%m], %3, true) : (tensor<2x?x4xf32, #forge.tensor<[s0]>>, tensor<2x?xi1, #forge.tensor<[s0]>>, tensor<?x4xf32, #forge.tensor<[u0]>>) -> tensor<2x?x4xf32, #forge.tensor<[s0]>>
  func.return %4 : tensor<2x?x4xf32, #forge.tensor<[s0]>>
}

// -----

// A product of all rows may cost many times what it costs of those picked.
// CHECK-LABEL: func.func @product
// CHECK:         forge.aten "aten::index_put"
forge.symbol @u0 "picked" min 0 max 3
func.func @product(%x : tensor<3x4xf32>, %w : tensor<4x4xf32>, %m : tensor<3xi1>) -> tensor<3x4xf32> {
  %0 = forge.aten "aten::index.Tensor"(%x, [%m]) defines [u0] : (tensor<3x4xf32>, tensor<3xi1>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
  %1 = forge.linear %0, %w : (tensor<?x4xf32, #forge.tensor<[u0]>>, tensor<4x4xf32>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
  %2 = forge.aten "aten::index_put"(%x, [%m], %1, false) : (tensor<3x4xf32>, tensor<3xi1>, tensor<?x4xf32, #forge.tensor<[u0]>>) -> tensor<3x4xf32>
  func.return %2 : tensor<3x4xf32>
}

// -----

// The rows are returned as well.
// CHECK-LABEL: func.func @needed
// CHECK:         forge.aten "aten::index_put"
forge.symbol @u0 "picked" min 0 max 3
func.func @needed(%x : tensor<3x4xf32>, %m : tensor<3xi1>) -> (tensor<3x4xf32>, tensor<?x4xf32, #forge.tensor<[u0]>>) {
  %0 = forge.aten "aten::index.Tensor"(%x, [%m]) defines [u0] : (tensor<3x4xf32>, tensor<3xi1>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
  %1 = forge.exp %0 : (tensor<?x4xf32, #forge.tensor<[u0]>>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
  %2 = forge.aten "aten::index_put"(%x, [%m], %1, false) : (tensor<3x4xf32>, tensor<3xi1>, tensor<?x4xf32, #forge.tensor<[u0]>>) -> tensor<3x4xf32>
  func.return %2, %0 : tensor<3x4xf32>, tensor<?x4xf32, #forge.tensor<[u0]>>
}

// -----

// Along the rows, and by another mask.
// CHECK-LABEL: func.func @across
// CHECK:         forge.aten "aten::index_put"
forge.symbol @u0 "picked" min 0 max 3
func.func @across(%x : tensor<3x4xf32>, %m : tensor<3xi1>) -> tensor<3x4xf32> {
  %0 = forge.aten "aten::index.Tensor"(%x, [%m]) defines [u0] : (tensor<3x4xf32>, tensor<3xi1>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
  %1 = forge.softmax %0 dim 0 : (tensor<?x4xf32, #forge.tensor<[u0]>>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
  %2 = forge.aten "aten::index_put"(%x, [%m], %1, false) : (tensor<3x4xf32>, tensor<3xi1>, tensor<?x4xf32, #forge.tensor<[u0]>>) -> tensor<3x4xf32>
  func.return %2 : tensor<3x4xf32>
}

// -----

// CHECK-LABEL: func.func @other_mask
// CHECK:         forge.aten "aten::index_put"
forge.symbol @u0 "picked" min 0 max 3
func.func @other_mask(%x : tensor<3x4xf32>, %m : tensor<3xi1>, %n : tensor<3xi1>) -> tensor<3x4xf32> {
  %0 = forge.aten "aten::index.Tensor"(%x, [%n]) defines [u0] : (tensor<3x4xf32>, tensor<3xi1>) -> tensor<?x4xf32, #forge.tensor<[u0]>>
  %1 = forge.aten "aten::index_put"(%x, [%m], %0, false) : (tensor<3x4xf32>, tensor<3xi1>, tensor<?x4xf32, #forge.tensor<[u0]>>) -> tensor<3x4xf32>
  func.return %1 : tensor<3x4xf32>
}
