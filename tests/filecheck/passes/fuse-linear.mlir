// RUN: forgec opt %s -p 'fuse-linear,dce' --split-input-file | filecheck %s

// DOC: `x @ w.T`, as Falcon's linears are written.
// CHECK-LABEL: func.func @turned
// CHECK-NEXT:    %w = forge.param_ref
// CHECK-NEXT:    %y = forge.linear %x, %w : (tensor<2x9x64xf32>, tensor<32x64xf32>) -> tensor<2x9x32xf32>
// CHECK-NEXT:    func.return %y
forge.param @w : tensor<32x64xf32>
func.func @turned(%x: tensor<2x9x64xf32>) -> tensor<2x9x32xf32> {
  %w = forge.param_ref @w : tensor<32x64xf32>
  %t = forge.transpose %w [1, 0] : (tensor<32x64xf32>) -> tensor<64x32xf32, #forge.tensor<[], strides = [1, 64]>>
  %y = forge.matmul %x, %t : (tensor<2x9x64xf32>, tensor<64x32xf32, #forge.tensor<[], strides = [1, 64]>>) -> tensor<2x9x32xf32>
  func.return %y : tensor<2x9x32xf32>
}

// -----

// A weight stored as [in, out]: the linear takes its transpose, which is the same memory. The number of rows may be dynamic.
// CHECK-LABEL: func.func @as_stored
// CHECK-NEXT:    %w = forge.param_ref
// CHECK-NEXT:    %[[T:.*]] = forge.transpose %w [1, 0] : (tensor<64x32xf32>) -> tensor<32x64xf32, #forge.tensor<[], strides = [1, 32]>>
// CHECK-NEXT:    %y = forge.linear %x, %[[T]] : {{.*}} -> tensor<?x32xf32, #forge.tensor<[s0]>>
forge.symbol @s0 "rows" min 1 max 64
forge.param @w : tensor<64x32xf32>
func.func @as_stored(%x: tensor<?x64xf32, #forge.tensor<[s0]>>) -> tensor<?x32xf32, #forge.tensor<[s0]>> {
  %w = forge.param_ref @w : tensor<64x32xf32>
  %y = forge.matmul %x, %w : (tensor<?x64xf32, #forge.tensor<[s0]>>, tensor<64x32xf32>) -> tensor<?x32xf32, #forge.tensor<[s0]>>
  func.return %y : tensor<?x32xf32, #forge.tensor<[s0]>>
}

// -----

// In a layer to which all calls pass parameters; one that is computed of a parameter; a constant; a stack of one, spread over the batch.
// CHECK-LABEL: func.func private @layer
// CHECK-COUNT-4: forge.linear
// CHECK-NOT:     forge.matmul
// CHECK:         func.return
forge.param @w : tensor<8x8xf32>
func.func @forward(%x: tensor<2x9x8xf32>) -> tensor<2x9x8xf32> {
  %w = forge.param_ref @w : tensor<8x8xf32>
  %y = func.call @layer(%x, %w) : (tensor<2x9x8xf32>, tensor<8x8xf32>) -> tensor<2x9x8xf32>
  func.return %y : tensor<2x9x8xf32>
}
func.func private @layer(%x: tensor<2x9x8xf32>, %w: tensor<8x8xf32>) -> tensor<2x9x8xf32> attributes {forge.layer} {
  %0 = forge.matmul %x, %w : (tensor<2x9x8xf32>, tensor<8x8xf32>) -> tensor<2x9x8xf32>
  %1 = forge.mul %w, 0.5 : (tensor<8x8xf32>) -> tensor<8x8xf32>
  %2 = forge.matmul %0, %1 : (tensor<2x9x8xf32>, tensor<8x8xf32>) -> tensor<2x9x8xf32>
  %c = forge.constant dense<1.0> : tensor<8x8xf32>
  %3 = forge.matmul %2, %c : (tensor<2x9x8xf32>, tensor<8x8xf32>) -> tensor<2x9x8xf32>
  %4 = forge.broadcast %w : (tensor<8x8xf32>) -> tensor<2x8x8xf32, #forge.tensor<[], strides = [0, 8, 1]>>
  %5 = forge.matmul %3, %4 : (tensor<2x9x8xf32>, tensor<2x8x8xf32, #forge.tensor<[], strides = [0, 8, 1]>>) -> tensor<2x9x8xf32>
  func.return %5 : tensor<2x9x8xf32>
}

// -----

// The weight on the left of a transpose: `w @ x.T` is the transpose of a linear.
// CHECK-LABEL: func.func @left
// CHECK-NEXT:    %w = forge.param_ref
// CHECK-NEXT:    %[[Y:.*]] = forge.linear %x, %w : (tensor<9x64xf32>, tensor<32x64xf32>) -> tensor<9x32xf32>
// CHECK-NEXT:    %y = forge.transpose %[[Y]] [1, 0]
// CHECK-NEXT:    forge.neg %y
forge.param @w : tensor<32x64xf32>
func.func @left(%x: tensor<9x64xf32>) -> tensor<32x9xf32> {
  %w = forge.param_ref @w : tensor<32x64xf32>
  %t = forge.transpose %x [1, 0] : (tensor<9x64xf32>) -> tensor<64x9xf32, #forge.tensor<[], strides = [1, 64]>>
  %y = forge.matmul %w, %t : (tensor<32x64xf32>, tensor<64x9xf32, #forge.tensor<[], strides = [1, 64]>>) -> tensor<32x9xf32>
  %n = forge.neg %y : (tensor<32x9xf32>) -> tensor<32x9xf32>
  func.return %n : tensor<32x9xf32>
}

// -----

// `torch.addmm` with a residual and factors; what is multiplied by 0 is not read.
// CHECK-LABEL: func.func @addmm
// CHECK-NEXT:    %w = forge.param_ref
// CHECK-NEXT:    %[[T:.*]] = forge.transpose %w [1, 0]
// CHECK-NEXT:    %[[Y:.*]] = forge.linear %x, %[[T]]
// CHECK-NEXT:    %[[M:.*]] = forge.mul %[[Y]], 2
// CHECK-NEXT:    %y = forge.add %r, %[[M]]
// CHECK-NEXT:    %[[U:.*]] = forge.transpose %w [1, 0]
// CHECK-NEXT:    %z = forge.linear %y, %[[U]]
// CHECK-NEXT:    func.return %z
forge.param @w : tensor<64x64xf32>
func.func @addmm(%x: tensor<9x64xf32>, %r: tensor<9x64xf32>) -> tensor<9x64xf32> {
  %w = forge.param_ref @w : tensor<64x64xf32>
  %y = forge.aten "aten::addmm"(%r, %x, %w, alpha = 2) : (tensor<9x64xf32>, tensor<9x64xf32>, tensor<64x64xf32>) -> tensor<9x64xf32>
  %z = forge.aten "aten::addmm"(%r, %y, %w, beta = 0) : (tensor<9x64xf32>, tensor<9x64xf32>, tensor<64x64xf32>) -> tensor<9x64xf32>
  func.return %z : tensor<9x64xf32>
}

// -----

// Products of two activations, integers, and outer products, which sum nothing.
// CHECK-LABEL: func.func @no_weights
// CHECK-COUNT-3: forge.matmul
forge.param @w : tensor<1x8xf32>
forge.param @n : tensor<8x8xi64>
func.func @no_weights(%x: tensor<9x8xf32>, %y: tensor<8x9xf32>, %z: tensor<9x1xf32>, %i: tensor<9x8xi64>) -> (tensor<9x9xf32>, tensor<9x8xf32>, tensor<9x8xi64>) {
  %w = forge.param_ref @w : tensor<1x8xf32>
  %n = forge.param_ref @n : tensor<8x8xi64>
  %0 = forge.matmul %x, %y : (tensor<9x8xf32>, tensor<8x9xf32>) -> tensor<9x9xf32>
  %1 = forge.matmul %z, %w : (tensor<9x1xf32>, tensor<1x8xf32>) -> tensor<9x8xf32>
  %2 = forge.matmul %i, %n : (tensor<9x8xi64>, tensor<8x8xi64>) -> tensor<9x8xi64>
  func.return %0, %1, %2 : tensor<9x9xf32>, tensor<9x8xf32>, tensor<9x8xi64>
}
