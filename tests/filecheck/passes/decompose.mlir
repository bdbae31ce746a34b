// RUN: forgec opt %s -p 'decompose' --split-input-file | filecheck %s

// DOC: a gated unit for a backend that has no kernel for it.
// CHECK-LABEL: func.func @gated
// CHECK-NEXT:    %[[S:.*]] = forge.silu %g
// CHECK-NEXT:    %[[M:.*]] = forge.mul %[[S]], %u
// CHECK-NEXT:    func.return %[[M]]
func.func @gated(%g : tensor<4x8xf32>, %u : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.glu %g, %u activation "silu" : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %0 : tensor<4x8xf32>
}

// -----

// ATen has these whole.
// CHECK-LABEL: func.func @stays
// CHECK-NEXT:    forge.attention
// CHECK-NEXT:    forge.linear
// CHECK-NEXT:    func.return
func.func @stays(%q : tensor<1x2x4x8xf32>, %w : tensor<3x8xf32>) -> tensor<1x2x4x3xf32> {
  %0 = forge.attention %q, %q, %q causal : (tensor<1x2x4x8xf32>, tensor<1x2x4x8xf32>, tensor<1x2x4x8xf32>) -> tensor<1x2x4x8xf32>
  %1 = forge.linear %0, %w : (tensor<1x2x4x8xf32>, tensor<3x8xf32>) -> tensor<1x2x4x3xf32>
  func.return %1 : tensor<1x2x4x3xf32>
}

// -----

// A modifier that SDPA does not have is not dropped: attention is written out.
// CHECK-LABEL: func.func @capped
// CHECK-NOT:     forge.attention
// CHECK:         forge.tanh
// CHECK:         forge.softmax
func.func @capped(%q : tensor<1x2x4x8xf32>) -> tensor<1x2x4x8xf32> {
  %0 = forge.attention %q, %q, %q causal softcap 30.0 : (tensor<1x2x4x8xf32>, tensor<1x2x4x8xf32>, tensor<1x2x4x8xf32>) -> tensor<1x2x4x8xf32>
  func.return %0 : tensor<1x2x4x8xf32>
}
