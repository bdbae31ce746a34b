// RUN: forgec opt %s -p 'fuse-softmax,dce' --split-input-file | filecheck %s

// DOC: exponentials over their sum, the greatest element subtracted first.
// CHECK-LABEL: func.func @divided
// CHECK-NEXT:    %{{.*}} = forge.softmax %x dim 1 : (tensor<4x8xf32>) -> tensor<4x8xf32>
// CHECK-NEXT:    func.return
func.func @divided(%x : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.amax %x over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %1 = forge.sub %x, %0 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  %2 = forge.exp %1 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %3 = forge.sum %2 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %4 = forge.div %2, %3 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  func.return %4 : tensor<4x8xf32>
}

// -----

// CHECK-LABEL: func.func @logarithm
// CHECK-NEXT:    %{{.*}} = forge.softmax %x dim 0 :
// CHECK-NEXT:    func.return
func.func @logarithm(%x : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.log_softmax %x dim 0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.exp %0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %1 : tensor<4x8xf32>
}

// -----

// Without the greatest element, large elements overflow.
// CHECK-LABEL: func.func @not_shifted
// CHECK-NOT:     forge.softmax
func.func @not_shifted(%x : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.exp %x : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.sum %0 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %2 = forge.div %0, %1 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  func.return %2 : tensor<4x8xf32>
}

// -----

// The sum is along the other dimension.
// CHECK-LABEL: func.func @other_dimension
// CHECK-NOT:     forge.softmax
func.func @other_dimension(%x : tensor<4x4xf32>) -> tensor<4x4xf32> {
  %0 = forge.amax %x over [1] keepdim : (tensor<4x4xf32>) -> tensor<4x1xf32>
  %1 = forge.sub %x, %0 : (tensor<4x4xf32>, tensor<4x1xf32>) -> tensor<4x4xf32>
  %2 = forge.exp %1 : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %3 = forge.sum %2 over [0] keepdim : (tensor<4x4xf32>) -> tensor<1x4xf32>
  %4 = forge.div %2, %3 : (tensor<4x4xf32>, tensor<1x4xf32>) -> tensor<4x4xf32>
  func.return %4 : tensor<4x4xf32>
}

// -----

// What a mask leaves of a softmax, over its sum.
// CHECK-LABEL: func.func @renormalised
// CHECK:         %[[SHUT:.*]] = forge.eq %{{.*}}, 0
// CHECK-NEXT:    %[[X:.*]] = forge.masked_fill %x, %[[SHUT]] with -inf
// CHECK-NEXT:    forge.softmax %[[X]] dim 1
// CHECK-NEXT:    func.return
func.func @renormalised(%x : tensor<4x8xf32>, %m : tensor<8xi1>) -> tensor<4x8xf32> {
  %0 = forge.softmax %x dim 1 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %b = forge.cast %m : (tensor<8xi1>) -> tensor<8xf32>
  %1 = forge.mul %0, %b : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  %2 = forge.sum %1 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %3 = forge.div %1, %2 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  func.return %3 : tensor<4x8xf32>
}

// -----

// The division after the product.
// CHECK-LABEL: func.func @divided_late
// CHECK-NEXT:    %[[P:.*]] = forge.softmax %x dim 1
// CHECK-NEXT:    forge.matmul %[[P]], %v
// CHECK-NEXT:    func.return
func.func @divided_late(%x : tensor<4x8xf32>, %v : tensor<8x3xf32>) -> tensor<4x3xf32> {
  %0 = forge.amax %x over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %1 = forge.sub %x, %0 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  %2 = forge.exp %1 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %3 = forge.sum %2 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %4 = forge.matmul %2, %v : (tensor<4x8xf32>, tensor<8x3xf32>) -> tensor<4x3xf32>
  %5 = forge.div %4, %3 : (tensor<4x3xf32>, tensor<4x1xf32>) -> tensor<4x3xf32>
  func.return %5 : tensor<4x3xf32>
}

// -----

// Factors of which nobody knows that they are 0 or 1; a number is added to the sum; the sum is that of all weights.
// CHECK-LABEL: func.func @other_sums
// CHECK-COUNT-1: forge.softmax
// CHECK-NOT:     forge.softmax
// CHECK-NOT:     forge.masked_fill %x
func.func @other_sums(%x : tensor<4x8xf32>, %w : tensor<8xf32>, %m : tensor<4x8xi1>) -> (tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32>) {
  %0 = forge.softmax %x dim 1 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.mul %0, %w : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  %2 = forge.sum %1 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %3 = forge.div %1, %2 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  %4 = forge.masked_fill %0, %m with 0.0 : (tensor<4x8xf32>, tensor<4x8xi1>) -> tensor<4x8xf32>
  %5 = forge.sum %4 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %6 = forge.add %5, 0.001 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %7 = forge.div %4, %6 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  %8 = forge.sum %0 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %9 = forge.div %4, %8 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  func.return %3, %7, %9 : tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32>
}
