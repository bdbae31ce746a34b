// RUN: forgec opt %s -p 'infer-shapes' --disable-verify --split-input-file --verify-diagnostics

func.func @broadcast(%x : tensor<4xf32>, %y : tensor<3xf32>) -> tensor<4xf32> {
  // expected-error@+1 {{FORGE-I002: forge.add: extents 4 and 3 do not broadcast}}
  %0 = forge.add %x, %y : (tensor<4xf32>, tensor<3xf32>) -> tensor<4xf32>
  func.return %0 : tensor<4xf32>
}

// -----

func.func @fine(%x : tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32>
  func.return %0 : tensor<4xf32>
}
