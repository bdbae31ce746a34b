// RUN: forgec opt %s -p assign-layout --split-input-file | filecheck %s

// The copy served to merge batch and heads for a product: it works on them apart, and broadcasts what `repeat` had copied.
// CHECK-LABEL: func.func @product
// CHECK-NOT:     forge.copy
// CHECK:         %[[K:.*]] = forge.reshape {{.*}} -> tensor<1x4x16x7xf32
// CHECK:         %[[P:.*]] = forge.matmul %{{.*}}, %[[K]] : {{.*}} -> tensor<2x4x9x7xf32>
// CHECK-NEXT:    %[[R:.*]] = forge.reshape %[[P]] : (tensor<2x4x9x7xf32>) -> tensor<8x9x7xf32>
// CHECK-NEXT:    forge.softmax %[[R]]
func.func @product(%x: tensor<2x9x4x16xf32>, %y: tensor<4x7x16xf32>) -> tensor<8x9x7xf32> {
  %t = forge.transpose %x [0, 2, 1, 3] : (tensor<2x9x4x16xf32>) -> tensor<2x4x9x16xf32, #forge.tensor<[], strides = [576, 16, 64, 1]>>
  %c = forge.copy %t : (tensor<2x4x9x16xf32, #forge.tensor<[], strides = [576, 16, 64, 1]>>) -> tensor<2x4x9x16xf32>
  %q = forge.reshape %c : (tensor<2x4x9x16xf32>) -> tensor<8x9x16xf32>
  %b = forge.broadcast %y : (tensor<4x7x16xf32>) -> tensor<2x4x7x16xf32, #forge.tensor<[], strides = [0, 112, 16, 1]>>
  %d = forge.copy %b : (tensor<2x4x7x16xf32, #forge.tensor<[], strides = [0, 112, 16, 1]>>) -> tensor<2x4x7x16xf32>
  %e = forge.reshape %d : (tensor<2x4x7x16xf32>) -> tensor<8x7x16xf32>
  %k = forge.transpose %e [0, 2, 1] : (tensor<8x7x16xf32>) -> tensor<8x16x7xf32, #forge.tensor<[], strides = [112, 1, 16]>>
  %p = forge.matmul %q, %k : (tensor<8x9x16xf32>, tensor<8x16x7xf32, #forge.tensor<[], strides = [112, 1, 16]>>) -> tensor<8x9x7xf32>
  %s = forge.softmax %p dim 2 : (tensor<8x9x7xf32>) -> tensor<8x9x7xf32>
  func.return %s : tensor<8x9x7xf32>
}

// -----

// Heads that lie in groups: a rotation works on the groups.
// CHECK-LABEL: func.func @rotation
// CHECK:         forge.rope {{.*}} -> tensor<2x2x9x16xf32>
// CHECK-NEXT:    forge.reshape {{.*}} : (tensor<2x2x9x16xf32>) -> tensor<4x9x16xf32>
func.func @rotation(%x: tensor<2x4x9x16xf32>, %cos: tensor<9x16xf32>, %sin: tensor<9x16xf32>) -> tensor<4x9x16xf32> {
  %g = forge.slice %x dim 1 from 0 step 1 : (tensor<2x4x9x16xf32>) -> tensor<2x2x9x16xf32, #forge.tensor<[], strides = [576, 144, 16, 1]>>
  %h = forge.reshape %g : (tensor<2x2x9x16xf32, #forge.tensor<[], strides = [576, 144, 16, 1]>>) -> tensor<4x9x16xf32>
  %r = forge.rope %h cos %cos sin %sin : (tensor<4x9x16xf32>, tensor<9x16xf32>, tensor<9x16xf32>) -> tensor<4x9x16xf32>
  func.return %r : tensor<4x9x16xf32>
}

// -----

// A softmax over what is merged, a dimension that a product sums, and a result: they need the copy.
// CHECK-LABEL: func.func @stays
// CHECK:         %[[A:.*]] = forge.reshape {{.*}} -> tensor<12xf32>
// CHECK-NEXT:    forge.softmax %[[A]]
// CHECK:         %[[B:.*]] = forge.reshape {{.*}} -> tensor<1x12xf32>
// CHECK-NEXT:    forge.matmul %[[B]]
// CHECK:         forge.reshape {{.*}} -> tensor<12xf32>
// CHECK-NEXT:    func.return
func.func @stays(%x: tensor<4x3xf32>, %y: tensor<12x5xf32>) -> (tensor<12xf32>, tensor<1x5xf32>, tensor<12xf32>) {
  %t = forge.transpose %x [1, 0] : (tensor<4x3xf32>) -> tensor<3x4xf32, #forge.tensor<[], strides = [1, 3]>>
  %a = forge.reshape %t : (tensor<3x4xf32, #forge.tensor<[], strides = [1, 3]>>) -> tensor<12xf32>
  %s = forge.softmax %a dim 0 : (tensor<12xf32>) -> tensor<12xf32>
  %b = forge.reshape %t : (tensor<3x4xf32, #forge.tensor<[], strides = [1, 3]>>) -> tensor<1x12xf32>
  %p = forge.matmul %b, %y : (tensor<1x12xf32>, tensor<12x5xf32>) -> tensor<1x5xf32>
  %c = forge.reshape %t : (tensor<3x4xf32, #forge.tensor<[], strides = [1, 3]>>) -> tensor<12xf32>
  func.return %s, %p, %c : tensor<12xf32>, tensor<1x5xf32>, tensor<12xf32>
}
