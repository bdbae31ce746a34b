// RUN: forgec opt %s -p 'group-query-heads,dce' --split-input-file | filecheck %s

// CHECK-LABEL: func.func @repeated
// CHECK-NEXT:    %[[K:.*]] = forge.reshape %k : (tensor<1x2x1x9x8xf32>) -> tensor<1x2x9x8xf32>
// CHECK-NEXT:    %[[V:.*]] = forge.reshape %v : (tensor<1x2x1x9x8xf32>) -> tensor<1x2x9x8xf32>
// CHECK-NEXT:    forge.attention %q, %[[K]], %[[V]] causal
func.func @repeated(%q : tensor<1x8x9x8xf32>, %k : tensor<1x2x1x9x8xf32>, %v : tensor<1x2x1x9x8xf32>) -> tensor<1x8x9x8xf32> {
  %0 = forge.broadcast %k : (tensor<1x2x1x9x8xf32>) -> tensor<1x2x4x9x8xf32, #forge.tensor<[], strides = [576, 72, 0, 8, 1]>>
  %1 = forge.reshape %0 : (tensor<1x2x4x9x8xf32, #forge.tensor<[], strides = [576, 72, 0, 8, 1]>>) -> tensor<1x8x9x8xf32>
  %2 = forge.broadcast %v : (tensor<1x2x1x9x8xf32>) -> tensor<1x2x4x9x8xf32, #forge.tensor<[], strides = [576, 72, 0, 8, 1]>>
  %3 = forge.reshape %2 : (tensor<1x2x4x9x8xf32, #forge.tensor<[], strides = [576, 72, 0, 8, 1]>>) -> tensor<1x8x9x8xf32>
  %4 = forge.attention %q, %1, %3 causal : (tensor<1x8x9x8xf32>, tensor<1x8x9x8xf32>, tensor<1x8x9x8xf32>) -> tensor<1x8x9x8xf32>
  func.return %4 : tensor<1x8x9x8xf32>
}

// -----

// Only the key is repeated: the value has heads of its own.
// CHECK-LABEL: func.func @stays
// CHECK-NEXT:    forge.broadcast
// CHECK-NEXT:    %[[K:.*]] = forge.reshape
// CHECK-NEXT:    forge.attention %q, %[[K]], %v
func.func @stays(%q : tensor<1x8x9x8xf32>, %k : tensor<1x2x1x9x8xf32>, %v : tensor<1x8x9x8xf32>) -> tensor<1x8x9x8xf32> {
  %0 = forge.broadcast %k : (tensor<1x2x1x9x8xf32>) -> tensor<1x2x4x9x8xf32, #forge.tensor<[], strides = [576, 72, 0, 8, 1]>>
  %1 = forge.reshape %0 : (tensor<1x2x4x9x8xf32, #forge.tensor<[], strides = [576, 72, 0, 8, 1]>>) -> tensor<1x8x9x8xf32>
  %2 = forge.attention %q, %1, %v : (tensor<1x8x9x8xf32>, tensor<1x8x9x8xf32>, tensor<1x8x9x8xf32>) -> tensor<1x8x9x8xf32>
  func.return %2 : tensor<1x8x9x8xf32>
}
