// RUN: forgec opt %s -p 'canonicalize' --split-input-file | filecheck %s

// Each of these yields an operand, bit by bit.
// CHECK-LABEL: func.func @neutral
// CHECK-NEXT:    func.return %x, %x, %x, %i, %b, %x, %x, %x
func.func @neutral(%x : tensor<4xf32>, %i : tensor<4xi64>, %b : tensor<4xi1>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xi64>, tensor<4xi1>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
  %0 = forge.div %x, 1 : (tensor<4xf32>) -> tensor<4xf32>
  %1 = forge.pow %x, 1.0 : (tensor<4xf32>) -> tensor<4xf32>
  %2 = forge.sub %x, 0 : (tensor<4xf32>) -> tensor<4xf32>
  %3 = forge.add %i, 0 : (tensor<4xi64>) -> tensor<4xi64>
  %4 = forge.logical_not %b : (tensor<4xi1>) -> tensor<4xi1>
  %5 = forge.logical_not %4 : (tensor<4xi1>) -> tensor<4xi1>
  %6 = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32>
  %7 = forge.neg %6 : (tensor<4xf32>) -> tensor<4xf32>
  %8 = forge.concat %x dim 0 : (tensor<4xf32>) -> tensor<4xf32>
  %9 = forge.where %b, %x, %x : (tensor<4xi1>, tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return %0, %1, %2, %3, %5, %7, %8, %9 : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xi64>, tensor<4xi1>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
}

// -----

// These change bits or types: -0.0 + 0, x - -0.0 for -0.0, a quotient of integers, a truth value of a number, a broadcast.
// CHECK-LABEL: func.func @stays
// CHECK-NEXT:    forge.add %x, 0 :
// CHECK-NEXT:    forge.sub %x, -0.0 :
// CHECK-NEXT:    forge.div %i, 1 :
// CHECK-NEXT:    forge.mul %i, 1.0 :
// CHECK-NEXT:    forge.logical_not %x
// CHECK-NEXT:    forge.logical_not
// CHECK-NEXT:    forge.where %c, %x, %x
// CHECK-NEXT:    forge.mul %x, %i
// CHECK-NEXT:    func.return
func.func @stays(%x : tensor<4xf32>, %i : tensor<4xi64>, %c : tensor<2x4xi1>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xi1>, tensor<2x4xf32>, tensor<4xf32>) {
  %0 = forge.add %x, 0 : (tensor<4xf32>) -> tensor<4xf32>
  %1 = forge.sub %x, -0.0 : (tensor<4xf32>) -> tensor<4xf32>
  %2 = forge.div %i, 1 : (tensor<4xi64>) -> tensor<4xf32>
  %3 = forge.mul %i, 1.0 : (tensor<4xi64>) -> tensor<4xf32>
  %4 = forge.logical_not %x : (tensor<4xf32>) -> tensor<4xi1>
  %5 = forge.logical_not %4 : (tensor<4xi1>) -> tensor<4xi1>
  %6 = forge.where %c, %x, %x : (tensor<2x4xi1>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %7 = forge.mul %x, %i : (tensor<4xf32>, tensor<4xi64>) -> tensor<4xf32>
  func.return %0, %1, %2, %3, %5, %6, %7 : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xi1>, tensor<2x4xf32>, tensor<4xf32>
}
