// RUN: forgec opt %s -p assign-layout --split-input-file | filecheck %s

// DOC: attention that writes its heads beside one another.
// The copy is gone: attention writes its result so that heads lie beside one another.
// CHECK-LABEL: func.func @heads
// CHECK-NEXT:    %o = forge.attention %q, %k, %v causal : {{.*}} -> tensor<2x4x9x16xf32, #forge.tensor<[], strides = [576, 16, 64, 1]>>
// CHECK-NEXT:    %t = forge.transpose %o [0, 2, 1, 3] : {{.*}} -> tensor<2x9x4x16xf32>
// CHECK-NEXT:    %r = forge.reshape %t : (tensor<2x9x4x16xf32>) -> tensor<2x9x64xf32>
// CHECK-NEXT:    forge.neg %r
func.func @heads(%q: tensor<2x4x9x16xf32>, %k: tensor<2x4x9x16xf32>, %v: tensor<2x4x9x16xf32>) -> tensor<2x9x64xf32> {
  %o = forge.attention %q, %k, %v causal : (tensor<2x4x9x16xf32>, tensor<2x4x9x16xf32>, tensor<2x4x9x16xf32>) -> tensor<2x4x9x16xf32>
  %t = forge.transpose %o [0, 2, 1, 3] : (tensor<2x4x9x16xf32>) -> tensor<2x9x4x16xf32, #forge.tensor<[], strides = [576, 16, 144, 1]>>
  %c = forge.copy %t : (tensor<2x9x4x16xf32, #forge.tensor<[], strides = [576, 16, 144, 1]>>) -> tensor<2x9x4x16xf32>
  %r = forge.reshape %c : (tensor<2x9x4x16xf32>) -> tensor<2x9x64xf32>
  %n = forge.neg %r : (tensor<2x9x64xf32>) -> tensor<2x9x64xf32>
  func.return %n : tensor<2x9x64xf32>
}

// -----

// A reshape that would copy asks for a layout as well; extents may be dynamic.
// CHECK-LABEL: func.func @reshape
// CHECK-NEXT:    %o = forge.mul %a, %b : {{.*}} -> tensor<4x?x16xf32, #forge.tensor<[s0], strides = [16, 64, 1]>>
// CHECK-NEXT:    %t = forge.transpose %o [1, 0, 2] : {{.*}} -> tensor<?x4x16xf32, #forge.tensor<[s0]>>
// CHECK-NEXT:    %r = forge.reshape %t
forge.symbol @s0 "rows" min 1 max 64
func.func @reshape(%a: tensor<4x?x16xf32, #forge.tensor<[s0]>>, %b: tensor<4x?x16xf32, #forge.tensor<[s0]>>) -> tensor<?x64xf32, #forge.tensor<[s0]>> {
  %o = forge.mul %a, %b : (tensor<4x?x16xf32, #forge.tensor<[s0]>>, tensor<4x?x16xf32, #forge.tensor<[s0]>>) -> tensor<4x?x16xf32, #forge.tensor<[s0]>>
  %t = forge.transpose %o [1, 0, 2] : (tensor<4x?x16xf32, #forge.tensor<[s0]>>) -> tensor<?x4x16xf32, #forge.tensor<[s0], strides = [16, s0 * 16, 1]>>
  %r = forge.reshape %t : (tensor<?x4x16xf32, #forge.tensor<[s0], strides = [16, s0 * 16, 1]>>) -> tensor<?x64xf32, #forge.tensor<[s0]>>
  func.return %r : tensor<?x64xf32, #forge.tensor<[s0]>>
}

// -----

// Nothing changes: the value is returned as it lies; it is an argument; another reshape of it would need a copy then.
// CHECK-LABEL: func.func @kept
// CHECK:         %a = forge.neg %x : (tensor<4x6xf32>) -> tensor<4x6xf32>
// CHECK:         forge.copy
// CHECK:         forge.copy
// CHECK:         %b = forge.exp %x : (tensor<4x6xf32>) -> tensor<4x6xf32>
// CHECK:         forge.copy
// CHECK:         forge.reshape %b
func.func @kept(%x: tensor<4x6xf32>) -> (tensor<4x6xf32>, tensor<6x4xf32>, tensor<6x4xf32>, tensor<6x4xf32>, tensor<24xf32>) {
  %a = forge.neg %x : (tensor<4x6xf32>) -> tensor<4x6xf32>
  %t = forge.transpose %a [1, 0] : (tensor<4x6xf32>) -> tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>
  %c = forge.copy %t : (tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>) -> tensor<6x4xf32>
  %u = forge.transpose %x [1, 0] : (tensor<4x6xf32>) -> tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>
  %d = forge.copy %u : (tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>) -> tensor<6x4xf32>
  %b = forge.exp %x : (tensor<4x6xf32>) -> tensor<4x6xf32>
  %v = forge.transpose %b [1, 0] : (tensor<4x6xf32>) -> tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>
  %e = forge.copy %v : (tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>) -> tensor<6x4xf32>
  %f = forge.reshape %b : (tensor<4x6xf32>) -> tensor<24xf32>
  func.return %a, %c, %d, %e, %f : tensor<4x6xf32>, tensor<6x4xf32>, tensor<6x4xf32>, tensor<6x4xf32>, tensor<24xf32>
}

// -----

// What takes the value as it lies gets it so: the operator of ATen, and the function's result through a view.
// CHECK-LABEL: func.func @passed
// CHECK:         %a = forge.neg %x : (tensor<4x6xf32>) -> tensor<4x6xf32>
// CHECK:         forge.copy
func.func @passed(%x: tensor<4x6xf32>) -> (tensor<6x4xf32>, tensor<2x2x6xf32>) {
  %a = forge.neg %x : (tensor<4x6xf32>) -> tensor<4x6xf32>
  %t = forge.transpose %a [1, 0] : (tensor<4x6xf32>) -> tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>
  %c = forge.copy %t : (tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>) -> tensor<6x4xf32>
  %r = forge.reshape %a : (tensor<4x6xf32>) -> tensor<2x2x6xf32>
  func.return %c, %r : tensor<6x4xf32>, tensor<2x2x6xf32>
}

// -----

// Heads are read out of packed queries, keys and values as they lie. A matrix whose rows have gaps is copied all the same.
// CHECK-LABEL: func.func @packed
// CHECK-NEXT:    %t = forge.transpose %x [1, 0, 2]
// CHECK-NEXT:    %q = forge.slice %t dim 0 from 0 step 1
// CHECK-NEXT:    forge.softmax %q
// CHECK:         forge.copy
// CHECK-NEXT:    forge.neg
func.func @packed(%x: tensor<9x3x8xf32>) -> (tensor<1x9x8xf32>, tensor<8x3x9xf32>) {
  %t = forge.transpose %x [1, 0, 2] : (tensor<9x3x8xf32>) -> tensor<3x9x8xf32, #forge.tensor<[], strides = [8, 24, 1]>>
  %c = forge.copy %t : (tensor<3x9x8xf32, #forge.tensor<[], strides = [8, 24, 1]>>) -> tensor<3x9x8xf32>
  %q = forge.slice %c dim 0 from 0 step 1 : (tensor<3x9x8xf32>) -> tensor<1x9x8xf32>
  %s = forge.softmax %q dim 2 : (tensor<1x9x8xf32>) -> tensor<1x9x8xf32>
  %u = forge.transpose %x [2, 1, 0] : (tensor<9x3x8xf32>) -> tensor<8x3x9xf32, #forge.tensor<[], strides = [1, 8, 24]>>
  %d = forge.copy %u : (tensor<8x3x9xf32, #forge.tensor<[], strides = [1, 8, 24]>>) -> tensor<8x3x9xf32>
  %n = forge.neg %d : (tensor<8x3x9xf32>) -> tensor<8x3x9xf32>
  func.return %s, %n : tensor<1x9x8xf32>, tensor<8x3x9xf32>
}
