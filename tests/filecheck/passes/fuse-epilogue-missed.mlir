// RUN: forgec opt %s -p fuse-epilogue --split-input-file --remarks=missed --verify-diagnostics

func.func @between_tiles(%x: tensor<4x8xf32>, %w: tensor<6x8xf32>) -> tensor<4x4xf32> {
  %0 = forge.linear %x, %w : (tensor<4x8xf32>, tensor<6x8xf32>) -> tensor<4x6xf32>
  %1 = forge.slice %0 dim 1 from 2 step 1 : (tensor<4x6xf32>) -> tensor<4x4xf32, #forge.tensor<[], strides = [6, 1]>>
  // expected-remark@+1 {{FORGE-O002: this norm is a kernel of its own}}
  %2 = forge.rms_norm %1 axes 1 eps 1.0e-06 : (tensor<4x4xf32, #forge.tensor<[], strides = [6, 1]>>) -> tensor<4x4xf32>
  func.return %2 : tensor<4x4xf32>
}

// -----

func.func @lengths(%x: tensor<9x8xf32>, %w: tensor<480x8xf32>) -> (tensor<9x96xf32>, tensor<9x160xf32>) {
  %0 = forge.linear %x, %w : (tensor<9x8xf32>, tensor<480x8xf32>) -> tensor<9x480xf32>
  %1 = forge.slice %0 dim 1 from 0 step 1 : (tensor<9x480xf32>) -> tensor<9x96xf32, #forge.tensor<[], strides = [480, 1]>>
  %2 = forge.rms_norm %1 axes 1 eps 1.0e-06 : (tensor<9x96xf32, #forge.tensor<[], strides = [480, 1]>>) -> tensor<9x96xf32>
  %3 = forge.slice %0 dim 1 from 320 step 1 : (tensor<9x480xf32>) -> tensor<9x160xf32, #forge.tensor<[], strides = [480, 1]>>
  // expected-remark@+1 {{FORGE-O002: this norm is a kernel of its own}}
  %4 = forge.rms_norm %3 axes 1 eps 1.0e-06 : (tensor<9x160xf32, #forge.tensor<[], strides = [480, 1]>>) -> tensor<9x160xf32>
  func.return %2, %4 : tensor<9x96xf32>, tensor<9x160xf32>
}
