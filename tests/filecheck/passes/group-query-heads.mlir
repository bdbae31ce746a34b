// RUN: forgec opt %s -p 'group-query-heads,cse,dce' --split-input-file | filecheck %s

// DOC: `repeat_kv` of two heads for eight.
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

// -----

// By a copy of a broadcast, by joining a head with itself, by an index.
// CHECK-LABEL: func.func @other_spellings
// CHECK:         %[[K:.*]] = forge.reshape %k : (tensor<1x2x1x9x8xf32>) -> tensor<1x2x9x8xf32>
// CHECK-NEXT:    %[[V:.*]] = forge.reshape %v : (tensor<1x2x1x9x8xf32>) -> tensor<1x2x9x8xf32>
// CHECK-NEXT:    forge.attention %q, %[[K]], %[[V]] : (tensor<1x4x9x8xf32>, tensor<1x2x9x8xf32>, tensor<1x2x9x8xf32>)
// CHECK-NEXT:    %[[L:.*]] = forge.slice %w dim 1 from 0 step 1 : (tensor<1x4x9x8xf32>) -> tensor<1x2x9x8xf32
// CHECK-NEXT:    forge.attention %q, %[[L]], %[[L]] :
// CHECK-NEXT:    forge.constant
// CHECK-NEXT:    %[[J:.*]] = forge.index %w
// CHECK-NEXT:    forge.attention %q, %[[J]], %[[J]] :
func.func @other_spellings(%q : tensor<1x4x9x8xf32>, %k : tensor<1x2x1x9x8xf32>, %v : tensor<1x2x1x9x8xf32>, %w : tensor<1x4x9x8xf32>) -> (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>) {
  %0 = forge.broadcast %k : (tensor<1x2x1x9x8xf32>) -> tensor<1x2x2x9x8xf32, #forge.tensor<[], strides = [288, 72, 0, 8, 1]>>
  %1 = forge.copy %0 : (tensor<1x2x2x9x8xf32, #forge.tensor<[], strides = [288, 72, 0, 8, 1]>>) -> tensor<1x2x2x9x8xf32>
  %2 = forge.reshape %1 : (tensor<1x2x2x9x8xf32>) -> tensor<1x4x9x8xf32>
  %3 = forge.concat %v, %v dim 2 : (tensor<1x2x1x9x8xf32>, tensor<1x2x1x9x8xf32>) -> tensor<1x2x2x9x8xf32>
  %4 = forge.reshape %3 : (tensor<1x2x2x9x8xf32>) -> tensor<1x4x9x8xf32>
  %5 = forge.attention %q, %2, %4 : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>) -> tensor<1x4x9x8xf32>
  %i = forge.constant dense<[0, 0, 1, 1]> : tensor<4xi64>
  %6 = forge.index %w at %i dims [1] : (tensor<1x4x9x8xf32>, tensor<4xi64>) -> tensor<1x4x9x8xf32>
  %7 = forge.attention %q, %6, %6 : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>) -> tensor<1x4x9x8xf32>
  %j = forge.constant dense<[0, 1, 0, 1]> : tensor<4xi64>
  %8 = forge.index %w at %j dims [1] : (tensor<1x4x9x8xf32>, tensor<4xi64>) -> tensor<1x4x9x8xf32>
  %9 = forge.attention %q, %8, %8 : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>) -> tensor<1x4x9x8xf32>
  func.return %5, %7, %9 : tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>
}

// -----

// Repeated before they were turned and rotated, as in Falcon: the rotation is made of each head once.
// CHECK-LABEL: func.func @turned_and_rotated
// CHECK:         %[[K:.*]] = forge.rope {{.*}} -> tensor<1x2x9x8xf32>
// CHECK:         forge.attention %q, %[[K]], %{{.*}} : (tensor<1x8x9x8xf32>, tensor<1x2x9x8xf32>, tensor<1x2x9x8xf32
func.func @turned_and_rotated(%q : tensor<1x8x9x8xf32>, %k : tensor<1x9x2x1x8xf32>, %v : tensor<1x9x2x1x8xf32>, %cos : tensor<9x8xf32>, %sin : tensor<9x8xf32>) -> tensor<1x8x9x8xf32> {
  %0 = forge.broadcast %k : (tensor<1x9x2x1x8xf32>) -> tensor<1x9x2x4x8xf32, #forge.tensor<[], strides = [576, 16, 8, 0, 1]>>
  %1 = forge.reshape %0 : (tensor<1x9x2x4x8xf32, #forge.tensor<[], strides = [576, 16, 8, 0, 1]>>) -> tensor<1x9x8x8xf32>
  %2 = forge.transpose %1 [0, 2, 1, 3] : (tensor<1x9x8x8xf32>) -> tensor<1x8x9x8xf32, #forge.tensor<[], strides = [576, 8, 64, 1]>>
  %3 = forge.rope %2 cos %cos sin %sin : (tensor<1x8x9x8xf32, #forge.tensor<[], strides = [576, 8, 64, 1]>>, tensor<9x8xf32>, tensor<9x8xf32>) -> tensor<1x8x9x8xf32>
  %4 = forge.broadcast %v : (tensor<1x9x2x1x8xf32>) -> tensor<1x9x2x4x8xf32, #forge.tensor<[], strides = [576, 16, 8, 0, 1]>>
  %5 = forge.reshape %4 : (tensor<1x9x2x4x8xf32, #forge.tensor<[], strides = [576, 16, 8, 0, 1]>>) -> tensor<1x9x8x8xf32>
  %6 = forge.transpose %5 [0, 2, 1, 3] : (tensor<1x9x8x8xf32>) -> tensor<1x8x9x8xf32, #forge.tensor<[], strides = [576, 8, 64, 1]>>
  %7 = forge.attention %q, %3, %6 causal : (tensor<1x8x9x8xf32>, tensor<1x8x9x8xf32>, tensor<1x8x9x8xf32, #forge.tensor<[], strides = [576, 8, 64, 1]>>) -> tensor<1x8x9x8xf32>
  func.return %7 : tensor<1x8x9x8xf32>
}

// -----

// Each head of a group is rotated by angles of its own.
// CHECK-LABEL: func.func @own_angles
// CHECK:         %[[K:.*]] = forge.rope {{.*}} -> tensor<1x8x9x8xf32>
// CHECK-NEXT:    forge.attention %q, %[[K]], %[[K]]
func.func @own_angles(%q : tensor<1x8x9x8xf32>, %k : tensor<1x2x1x9x8xf32>, %cos : tensor<8x9x8xf32>, %sin : tensor<8x9x8xf32>) -> tensor<1x8x9x8xf32> {
  %0 = forge.broadcast %k : (tensor<1x2x1x9x8xf32>) -> tensor<1x2x4x9x8xf32, #forge.tensor<[], strides = [576, 72, 0, 8, 1]>>
  %1 = forge.reshape %0 : (tensor<1x2x4x9x8xf32, #forge.tensor<[], strides = [576, 72, 0, 8, 1]>>) -> tensor<1x8x9x8xf32>
  %3 = forge.rope %1 cos %cos sin %sin : (tensor<1x8x9x8xf32>, tensor<8x9x8xf32>, tensor<8x9x8xf32>) -> tensor<1x8x9x8xf32>
  %4 = forge.attention %q, %3, %3 causal : (tensor<1x8x9x8xf32>, tensor<1x8x9x8xf32>, tensor<1x8x9x8xf32>) -> tensor<1x8x9x8xf32>
  func.return %4 : tensor<1x8x9x8xf32>
}
