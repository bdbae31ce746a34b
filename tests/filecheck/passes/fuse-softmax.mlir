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
