// RUN: forgec opt %s -p fuse-linear --split-input-file --remarks=missed --verify-diagnostics

forge.param @experts : tensor<4x64x32xf32>
func.func @stack(%x: tensor<4x9x64xf32>) -> tensor<4x9x32xf32> {
  %w = forge.param_ref @experts : tensor<4x64x32xf32>
  // expected-remark@+1 {{FORGE-O002: this product with a weight is no linear}}
  %y = forge.matmul %x, %w : (tensor<4x9x64xf32>, tensor<4x64x32xf32>) -> tensor<4x9x32xf32>
  func.return %y : tensor<4x9x32xf32>
}

// -----

forge.param @w : tensor<32x64xf32>
func.func @left_of_columns(%x: tensor<64x9xf32>) -> tensor<32x9xf32> {
  %w = forge.param_ref @w : tensor<32x64xf32>
  // expected-remark@+1 {{FORGE-O002: this product with a weight is no linear}}
  %y = forge.matmul %w, %x : (tensor<32x64xf32>, tensor<64x9xf32>) -> tensor<32x9xf32>
  func.return %y : tensor<32x9xf32>
}

// -----

forge.param @w : tensor<64x64xbf16>
func.func @rounds_once(%x: tensor<9x64xbf16>, %r: tensor<9x64xbf16>) -> tensor<9x64xbf16> {
  %w = forge.param_ref @w : tensor<64x64xbf16>
  // expected-remark@+1 {{FORGE-O002: this product with a sum is not looked into}}
  %y = forge.aten "aten::addmm"(%r, %x, %w) : (tensor<9x64xbf16>, tensor<9x64xbf16>, tensor<64x64xbf16>) -> tensor<9x64xbf16>
  func.return %y : tensor<9x64xbf16>
}

// -----

// A vector; and two calls, one of which passes no parameter.
forge.param @v : tensor<64xf32>
forge.param @w : tensor<8x8xf32>
func.func @vector(%x: tensor<9x64xf32>, %y: tensor<9x8xf32>, %z: tensor<8x8xf32>) -> (tensor<9xf32>, tensor<9x8xf32>) {
  %v = forge.param_ref @v : tensor<64xf32>
  %w = forge.param_ref @w : tensor<8x8xf32>
  // expected-remark@+1 {{FORGE-O002: this product with a weight is no linear}}
  %0 = forge.matmul %x, %v : (tensor<9x64xf32>, tensor<64xf32>) -> tensor<9xf32>
  %1 = func.call @layer(%y, %w) : (tensor<9x8xf32>, tensor<8x8xf32>) -> tensor<9x8xf32>
  %2 = func.call @layer(%1, %z) : (tensor<9x8xf32>, tensor<8x8xf32>) -> tensor<9x8xf32>
  func.return %0, %2 : tensor<9xf32>, tensor<9x8xf32>
}
func.func private @layer(%x: tensor<9x8xf32>, %w: tensor<8x8xf32>) -> tensor<9x8xf32> attributes {forge.layer} {
  %0 = forge.matmul %x, %w : (tensor<9x8xf32>, tensor<8x8xf32>) -> tensor<9x8xf32>
  func.return %0 : tensor<9x8xf32>
}
