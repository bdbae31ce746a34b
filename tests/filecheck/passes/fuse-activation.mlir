// RUN: forgec opt %s -p 'fuse-activation,dce' --split-input-file | filecheck %s

// DOC: the quick GELU of CLIP.
// CHECK-LABEL: func.func @quick
// CHECK-NEXT:    %{{.*}} = forge.swish %x beta 1.702 : (tensor<4x8xf32>) -> tensor<4x8xf32>
// CHECK-NEXT:    func.return
func.func @quick(%x : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.mul %x, 1.702 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.sigmoid %0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %2 = forge.mul %x, %1 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %2 : tensor<4x8xf32>
}

// -----

// CHECK-LABEL: func.func @polynomial
// CHECK-NEXT:    %{{.*}} = forge.gelu %x approximate "tanh" :
// CHECK-NEXT:    func.return
func.func @polynomial(%x : tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>> {
  %0 = forge.mul %x, 0.5 : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  %1 = forge.pow %x, 3.0 : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  %2 = forge.mul %1, 0.044715 : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  %3 = forge.add %x, %2 : (tensor<?x8xf32, #forge.tensor<[s0]>>, tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  %4 = forge.mul %3, 0.7978845608028654 : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  %5 = forge.tanh %4 : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  %6 = forge.add %5, 1.0 : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  %7 = forge.mul %0, %6 : (tensor<?x8xf32, #forge.tensor<[s0]>>, tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  func.return %7 : tensor<?x8xf32, #forge.tensor<[s0]>>
}

// -----

// CHECK-LABEL: func.func @by_erf
// CHECK-NEXT:    %{{.*}} = forge.gelu %x approximate "none" :
// CHECK-NEXT:    func.return
func.func @by_erf(%x : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.div %x, 1.4142135623730951 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.erf %0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %2 = forge.add %1, 1.0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %3 = forge.mul %x, %2 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %4 = forge.mul %3, 0.5 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %4 : tensor<4x8xf32>
}

// -----

// CHECK-LABEL: func.func @mish
// CHECK-NEXT:    %{{.*}} = forge.mish %x :
// CHECK-NEXT:    func.return
func.func @mish(%x : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.softplus %x beta 1 threshold 20 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.tanh %0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %2 = forge.mul %x, %1 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %2 : tensor<4x8xf32>
}

// -----

// CHECK-LABEL: func.func @another_coefficient
// CHECK:         forge.tanh
func.func @another_coefficient(%x : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.pow %x, 3 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.mul %0, 0.0447 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %2 = forge.add %x, %1 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %3 = forge.mul %2, 0.7978845608028654 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %4 = forge.tanh %3 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %5 = forge.add %4, 1.0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %6 = forge.mul %5, 0.5 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %7 = forge.mul %6, %x : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %7 : tensor<4x8xf32>
}

// -----

// The sigmoid is read elsewhere, too.
// CHECK-LABEL: func.func @used_twice
// CHECK-NEXT:    forge.sigmoid
// CHECK-NEXT:    forge.mul
func.func @used_twice(%x : tensor<4x8xf32>) -> (tensor<4x8xf32>, tensor<4x8xf32>) {
  %0 = forge.sigmoid %x : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.mul %x, %0 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %0, %1 : tensor<4x8xf32>, tensor<4x8xf32>
}

// -----

// CHECK-LABEL: func.func @by_erfc
// CHECK-NEXT:    %{{.*}} = forge.gelu %x approximate "none" :
// CHECK-NEXT:    func.return
func.func @by_erfc(%x : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.neg %x : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.mul %0, 0.7071067811865476 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %2 = forge.erfc %1 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %3 = forge.mul %x, 0.5 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %4 = forge.mul %3, %2 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %4 : tensor<4x8xf32>
}

// -----

// CHECK-LABEL: func.func @logistic
// CHECK-NEXT:    %{{.*}} = forge.silu %x :
// CHECK-NEXT:    func.return
func.func @logistic(%x : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.neg %x : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.exp %0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %2 = forge.add %1, 1.0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %3 = forge.reciprocal %2 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %4 = forge.mul %x, %3 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %4 : tensor<4x8xf32>
}

// -----

// CHECK-LABEL: func.func @another_sum
// CHECK-NOT:     forge.sigmoid
func.func @another_sum(%x : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.neg %x : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.exp %0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %2 = forge.add %1, 2.0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %3 = forge.reciprocal %2 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %3 : tensor<4x8xf32>
}
