// RUN: forgec opt %s -p 'canonicalize' --split-input-file | filecheck %s

// DOC: ops that yield their operand, and two reshapes in a row.
// CHECK-LABEL: func.func @identities
// CHECK-NEXT:    %[[R:.*]] = forge.reshape %x : (tensor<2x3xf32>) -> tensor<3x2xf32>
// CHECK-NEXT:    func.return %[[R]]
func.func @identities(%x : tensor<2x3xf32>) -> tensor<3x2xf32> {
  %0 = forge.reshape %x : (tensor<2x3xf32>) -> tensor<6xf32>
  %1 = forge.reshape %0 : (tensor<6xf32>) -> tensor<3x2xf32>
  %2 = forge.mul %1, 1.0 : (tensor<3x2xf32>) -> tensor<3x2xf32>
  %3 = forge.cast %2 : (tensor<3x2xf32>) -> tensor<3x2xf32>
  %4 = forge.copy %3 : (tensor<3x2xf32>) -> tensor<3x2xf32>
  %5 = forge.slice %4 dim 0 from 0 step 1 : (tensor<3x2xf32>) -> tensor<3x2xf32>
  %6 = forge.sub %5, 0.0 : (tensor<3x2xf32>) -> tensor<3x2xf32>
  func.return %6 : tensor<3x2xf32>
}

// -----

// CHECK-LABEL: func.func @transposes
// CHECK-NEXT:    %[[T:.*]] = forge.transpose %x [2, 0, 1]
// CHECK-NEXT:    func.return %[[T]], %x
func.func @transposes(%x : tensor<2x3x4xf32>) -> (tensor<4x2x3xf32>, tensor<2x3x4xf32>) {
  %0 = forge.transpose %x [1, 2, 0] : (tensor<2x3x4xf32>) -> tensor<3x4x2xf32>
  %1 = forge.transpose %0 [1, 2, 0] : (tensor<3x4x2xf32>) -> tensor<4x2x3xf32>
  %2 = forge.transpose %1 [1, 2, 0] : (tensor<4x2x3xf32>) -> tensor<2x3x4xf32>
  func.return %1, %2 : tensor<4x2x3xf32>, tensor<2x3x4xf32>
}

// -----

// Not exact, or not the same: x + 0.0 (for -0.0), a slice with another start, a copy into another layout, a reshape of a view
// that would become a copy.
// CHECK-LABEL: func.func @stays
// CHECK-NEXT:    forge.add %x, 0.0
// CHECK-NEXT:    forge.slice
// CHECK-NEXT:    forge.copy
// CHECK-NEXT:    forge.transpose
// CHECK-NEXT:    forge.reshape
// CHECK-NEXT:    forge.reshape
// CHECK-NEXT:    func.return
func.func @stays(%x : tensor<2x3xf32>) -> (tensor<2x3xf32>, tensor<1x3xf32>, tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>, tensor<2x3xf32>) {
  %0 = forge.add %x, 0.0 : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %1 = forge.slice %x dim 0 from 1 step 1 : (tensor<2x3xf32>) -> tensor<1x3xf32>
  %2 = forge.copy %x : (tensor<2x3xf32>) -> tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>
  %3 = forge.transpose %x [1, 0] : (tensor<2x3xf32>) -> tensor<3x2xf32, #forge.tensor<[], strides = [1, 3]>>
  %4 = forge.reshape %3 : (tensor<3x2xf32, #forge.tensor<[], strides = [1, 3]>>) -> tensor<6xf32>
  %5 = forge.reshape %4 : (tensor<6xf32>) -> tensor<2x3xf32>
  func.return %0, %1, %2, %5 : tensor<2x3xf32>, tensor<1x3xf32>, tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>, tensor<2x3xf32>
}
