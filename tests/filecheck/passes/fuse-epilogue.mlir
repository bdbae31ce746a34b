// RUN: forgec opt %s -p fuse-epilogue --split-input-file | filecheck %s

// DOC: the residual is added by the kernel of the linear.
// The residual is added where the product is computed; the activation after it belongs to the next product's input.
// CHECK-LABEL: func.func @residual
// CHECK-NEXT:    %[[Y:.*]] = forge.fused "linear" (%[[A:.*]] = %x : tensor<9x8xf32>, %[[B:.*]] = %w : tensor<8x8xf32>, %[[R:.*]] = %r : tensor<9x8xf32>) {
// CHECK-NEXT:      %[[L:.*]] = forge.linear %[[A]], %[[B]]
// CHECK-NEXT:      %[[S:.*]] = forge.add %[[R]], %[[L]]
// CHECK-NEXT:      forge.yield %[[S]]
// CHECK-NEXT:    } : tensor<9x8xf32>
// CHECK-NEXT:    func.return %[[Y]]
func.func @residual(%x: tensor<9x8xf32>, %w: tensor<8x8xf32>, %r: tensor<9x8xf32>) -> tensor<9x8xf32> {
  %0 = forge.linear %x, %w : (tensor<9x8xf32>, tensor<8x8xf32>) -> tensor<9x8xf32>
  %1 = forge.add %r, %0 : (tensor<9x8xf32>, tensor<9x8xf32>) -> tensor<9x8xf32>
  func.return %1 : tensor<9x8xf32>
}

// -----

// With two producers an op joins the later one: the earlier cannot wait for it.
// CHECK-LABEL: func.func @two
// CHECK-NEXT:    %[[A:.*]] = forge.linear %x, %v
// CHECK-NEXT:    %[[Y:.*]] = forge.fused "linear"
// CHECK-NEXT:      forge.linear
// CHECK-NEXT:      forge.add
// CHECK-NEXT:      forge.yield
func.func @two(%x: tensor<9x8xf32>, %v: tensor<8x8xf32>, %w: tensor<8x8xf32>) -> tensor<9x8xf32> {
  %0 = forge.linear %x, %v : (tensor<9x8xf32>, tensor<8x8xf32>) -> tensor<9x8xf32>
  %1 = forge.linear %0, %w : (tensor<9x8xf32>, tensor<8x8xf32>) -> tensor<9x8xf32>
  %2 = forge.add %0, %1 : (tensor<9x8xf32>, tensor<9x8xf32>) -> tensor<9x8xf32>
  func.return %2 : tensor<9x8xf32>
}

// -----

// The halves of one product: slices happen in registers, and only what the unit yields is written.
// CHECK-LABEL: func.func @unit
// CHECK-NEXT:    %[[Y:.*]] = forge.fused "linear" (%{{.*}} = %x : tensor<9x8xf32>, %{{.*}} = %w : tensor<16x8xf32>) {
// CHECK-NEXT:      forge.linear
// CHECK-NEXT:      forge.slice
// CHECK-NEXT:      forge.slice
// CHECK-NEXT:      %[[G:.*]] = forge.glu
// CHECK-NEXT:      forge.yield %[[G]] : tensor<9x8xf32>
func.func @unit(%x: tensor<9x8xf32>, %w: tensor<16x8xf32>) -> tensor<9x8xf32> {
  %0 = forge.linear %x, %w : (tensor<9x8xf32>, tensor<16x8xf32>) -> tensor<9x16xf32>
  %1 = forge.slice %0 dim 1 from 0 step 1 : (tensor<9x16xf32>) -> tensor<9x8xf32, #forge.tensor<[], strides = [16, 1]>>
  %2 = forge.slice %0 dim 1 from 8 step 1 : (tensor<9x16xf32>) -> tensor<9x8xf32, #forge.tensor<[], strides = [16, 1]>>
  %3 = forge.glu %1, %2 activation "silu" : (tensor<9x8xf32, #forge.tensor<[], strides = [16, 1]>>, tensor<9x8xf32, #forge.tensor<[], strides = [16, 1]>>) -> tensor<9x8xf32>
  func.return %3 : tensor<9x8xf32>
}

// -----

// A larger result, an op with an effect in between, a value that comes back through another op: these stay.
// CHECK-LABEL: func.func @stays
// CHECK-NOT:     forge.fused
func.func @stays(%x: tensor<1x8xf32>, %w: tensor<8x8xf32>, %r: tensor<9x8xf32>) -> (tensor<9x8xf32>, tensor<1x8xf32>) {
  %0 = forge.linear %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
  %1 = forge.add %0, %r : (tensor<1x8xf32>, tensor<9x8xf32>) -> tensor<9x8xf32>
  %2 = forge.softmax %0 dim 1 : (tensor<1x8xf32>) -> tensor<1x8xf32>
  %3 = forge.mul %0, %2 : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
  func.return %1, %3 : tensor<9x8xf32>, tensor<1x8xf32>
}

// -----

// Nothing joins that yields nothing.
// CHECK-LABEL: func.func @empty
// CHECK-NOT:     forge.fused
// CHECK:         func.return
func.func @empty(%x: tensor<9x8xf32>, %w: tensor<4x8xf32>) -> (tensor<9x4xf32>, tensor<0x4xf32>) {
  %0 = forge.linear %x, %w : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %1 = forge.slice %0 dim 0 from 0 step 1 : (tensor<9x4xf32>) -> tensor<0x4xf32>
  %2 = forge.neg %1 : (tensor<0x4xf32>) -> tensor<0x4xf32>
  func.return %0, %2 : tensor<9x4xf32>, tensor<0x4xf32>
}
