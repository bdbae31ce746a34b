// RUN: forgec opt %s -p fuse-indexing --remarks=missed --verify-diagnostics

func.func @permuted_heads(%x: tensor<2x3x8xf32>) -> tensor<2x3x8xf32> {
  %i = forge.constant dense<[0, 2, 1]> : tensor<3xi64>
  // expected-remark@+1 {{FORGE-O002: this index is constant, but elements are gathered}}
  %0 = forge.index %x at %i dims [1] : (tensor<2x3x8xf32>, tensor<3xi64>) -> tensor<2x3x8xf32>
  func.return %0 : tensor<2x3x8xf32>
}
