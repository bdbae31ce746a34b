// RUN: forgec opt %s -p fuse-indexing --split-input-file | filecheck %s

// DOC: two kernels that read parts of one value.
// What a kernel reads through rearrangements becomes its indexing; the slice of a shared value is in both kernels.
// CHECK-LABEL: func.func @reads
// CHECK-NEXT:    %s = forge.fused "softmax" (%{{.*}} = %x : tensor<9x64xf32>) {
// CHECK-NEXT:      forge.slice
// CHECK-NEXT:      forge.reshape
// CHECK-NEXT:      forge.transpose
// CHECK-NEXT:      forge.softmax
// CHECK-NEXT:      forge.yield
// CHECK-NEXT:    } : tensor<2x9x16xf32>
// CHECK-NEXT:    %n = forge.fused "neg" (%{{.*}} = %x : tensor<9x64xf32>) {
// CHECK-NEXT:      forge.slice
// CHECK-NEXT:      forge.neg
// CHECK-NEXT:      forge.yield
// CHECK-NEXT:    } : tensor<9x32xf32>
// CHECK-NEXT:    func.return %s, %n
func.func @reads(%x: tensor<9x64xf32>) -> (tensor<2x9x16xf32>, tensor<9x32xf32>) {
  %p = forge.slice %x dim 1 from 32 step 1 : (tensor<9x64xf32>) -> tensor<9x32xf32, #forge.tensor<[], strides = [64, 1]>>
  %h = forge.reshape %p : (tensor<9x32xf32, #forge.tensor<[], strides = [64, 1]>>) -> tensor<9x2x16xf32, #forge.tensor<[], strides = [64, 16, 1]>>
  %t = forge.transpose %h [1, 0, 2] : (tensor<9x2x16xf32, #forge.tensor<[], strides = [64, 16, 1]>>) -> tensor<2x9x16xf32, #forge.tensor<[], strides = [16, 64, 1]>>
  %s = forge.softmax %t dim 2 : (tensor<2x9x16xf32, #forge.tensor<[], strides = [16, 64, 1]>>) -> tensor<2x9x16xf32>
  %n = forge.neg %p : (tensor<9x32xf32, #forge.tensor<[], strides = [64, 1]>>) -> tensor<9x32xf32>
  func.return %s, %n : tensor<2x9x16xf32>, tensor<9x32xf32>
}

// -----

// A kernel of several ops gets more in its region; a result that leaves through a reshape is written in that shape.
// CHECK-LABEL: func.func @writes
// CHECK-NEXT:    %r = forge.fused "linear" (%{{.*}} = %x : tensor<2x9x8xf32>, %{{.*}} = %w : tensor<8x4xf32>) {
// CHECK-NEXT:      forge.reshape {{.*}} -> tensor<18x8xf32>
// CHECK-NEXT:      forge.transpose {{.*}} [1, 0]
// CHECK-NEXT:      forge.linear
// CHECK-NEXT:      forge.silu
// CHECK-NEXT:      forge.reshape {{.*}} -> tensor<2x9x4xf32>
// CHECK-NEXT:      forge.yield
// CHECK-NEXT:    } : tensor<2x9x4xf32>
// CHECK-NEXT:    func.return %r
func.func @writes(%x: tensor<2x9x8xf32>, %w: tensor<8x4xf32>) -> tensor<2x9x4xf32> {
  %f = forge.reshape %x : (tensor<2x9x8xf32>) -> tensor<18x8xf32>
  %t = forge.transpose %w [1, 0] : (tensor<8x4xf32>) -> tensor<4x8xf32, #forge.tensor<[], strides = [1, 4]>>
  %y = forge.fused "linear" (%a = %f : tensor<18x8xf32>, %b = %t : tensor<4x8xf32, #forge.tensor<[], strides = [1, 4]>>) {
    %0 = forge.linear %a, %b : (tensor<18x8xf32>, tensor<4x8xf32, #forge.tensor<[], strides = [1, 4]>>) -> tensor<18x4xf32>
    %1 = forge.silu %0 : (tensor<18x4xf32>) -> tensor<18x4xf32>
    forge.yield %1 : tensor<18x4xf32>
  } : tensor<18x4xf32>
  %r = forge.reshape %y : (tensor<18x4xf32>) -> tensor<2x9x4xf32>
  func.return %r : tensor<2x9x4xf32>
}

// -----

// What is no kernel takes the rearranged value as it is: an operator of ATen, and a result beside which the whole leaves.
// CHECK-LABEL: func.func @stays
// CHECK-NEXT:    %t = forge.transpose %x [1, 0]
// CHECK-NEXT:    forge.aten "aten::logcumsumexp"(%t, 0)
// CHECK-NEXT:    %n = forge.neg %x
// CHECK-NEXT:    %u = forge.transpose %n [1, 0]
// CHECK-NEXT:    func.return
func.func @stays(%x: tensor<4x6xf32>) -> (tensor<6x4xf32>, tensor<4x6xf32>, tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>) {
  %t = forge.transpose %x [1, 0] : (tensor<4x6xf32>) -> tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>
  %a = forge.aten "aten::logcumsumexp"(%t, 0) : (tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>) -> tensor<6x4xf32>
  %n = forge.neg %x : (tensor<4x6xf32>) -> tensor<4x6xf32>
  %u = forge.transpose %n [1, 0] : (tensor<4x6xf32>) -> tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>
  func.return %a, %n, %u : tensor<6x4xf32>, tensor<4x6xf32>, tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>
}
