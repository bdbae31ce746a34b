// RUN: forgec opt %s -p inline-kernels | filecheck %s

// DOC: a kernel with two results.
// CHECK-LABEL: func.func @forward
// CHECK-NEXT:    %[[L:.*]] = forge.linear %x, %w
// CHECK-NEXT:    %[[S:.*]] = forge.silu %[[L]]
// CHECK-NEXT:    %[[N:.*]] = forge.neg %[[L]]
// CHECK-NEXT:    func.return %[[S]], %[[N]]
func.func @forward(%x: tensor<9x8xf32>, %w: tensor<4x8xf32>) -> (tensor<9x4xf32>, tensor<9x4xf32>) {
  %y, %z = forge.fused "linear" (%a = %x : tensor<9x8xf32>, %b = %w : tensor<4x8xf32>) {
    %0 = forge.linear %a, %b : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
    %1 = forge.silu %0 : (tensor<9x4xf32>) -> tensor<9x4xf32>
    %2 = forge.neg %0 : (tensor<9x4xf32>) -> tensor<9x4xf32>
    forge.yield %1, %2 : tensor<9x4xf32>, tensor<9x4xf32>
  } : tensor<9x4xf32>, tensor<9x4xf32>
  func.return %y, %z : tensor<9x4xf32>, tensor<9x4xf32>
}
