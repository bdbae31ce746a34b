// RUN: forgec opt %s -p 'lower-to-tile{without=f8e4m3fn,f8e5m2}' --remarks=missed --split-input-file 2>&1 | filecheck %s

// A target may have no tiles of a dtype: what reads or makes such values stays.
// CHECK-LABEL: func.func @narrow
// CHECK: forge.cast
func.func @narrow(%x: tensor<2x3xf32>) -> tensor<2x3xf8E5M2> {
  %y = forge.cast %x : (tensor<2x3xf32>) -> tensor<2x3xf8E5M2>
  func.return %y : tensor<2x3xf8E5M2>
}

// -----

// Of a group the other ops become kernels of their own.
// CHECK-LABEL: func.func @group
// CHECK: forge.cast
// CHECK: tile.launch @mul
func.func @group(%x: tensor<2x3xf8E4M3FN>, %f: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %y = forge.fused "elementwise" (%a = %x : tensor<2x3xf8E4M3FN>, %b = %f : tensor<2x3xf32>) {
    %0 = forge.cast %a : (tensor<2x3xf8E4M3FN>) -> tensor<2x3xf32>
    %1 = forge.mul %0, %b : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
    forge.yield %1 : tensor<2x3xf32>
  } : tensor<2x3xf32>
  func.return %y : tensor<2x3xf32>
}

// -----

// CHECK-LABEL: func.func @others
// CHECK: tile.launch @cast
func.func @others(%x: tensor<2x3xf32>) -> tensor<2x3xf16> {
  %y = forge.cast %x : (tensor<2x3xf32>) -> tensor<2x3xf16>
  func.return %y : tensor<2x3xf16>
}

// CHECK: {{.*}}forge.cast has no kernel: the target has no tiles of f8e5m2
// CHECK: {{.*}}forge.cast has no kernel: the target has no tiles of f8e4m3fn
