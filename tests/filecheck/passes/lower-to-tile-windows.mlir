// RUN: forgec opt %s -p 'lower-to-tile{panel=32}' --split-input-file | filecheck %s

// The image is copied with its channels last and zeros around it. For each of the three rows of a window there is one
// product, along 3 places of 4 channels; the weight is read in panels.
// CHECK:       forge.param @w.windows : tensor<1x40x36xf32> = {
// CHECK:         forge.transpose %{{.*}} [0, 2, 3, 1]
// CHECK:       forge.param @w.windows.panels : tensor<2x36x32xf32> = {
// CHECK:       func.func @convolution
// CHECK:         %[[I:.*]] = tile.launch @channels_last_{{.*}}(%x) {{.*}} -> tensor<1x1x8x9x4xf32>
// CHECK:         tile.launch @convolution_{{.*}}(%{{.*}}, %[[I]]) {{.*}} : (tensor<2x36x32xf32>, tensor<1x1x8x9x4xf32>) -> tensor<1x40x6x7xf32>
// CHECK:       tile.kernel @convolution
// CHECK:         scf.for
// CHECK:           tile.load {{.*}} : !tile.block<tensor<7x12xf32, #forge.tensor<[], strides = [4, 1]>>>
// CHECK:           tile.dot
builtin.module {
  forge.param @w : tensor<40x4x3x3xf32>
  func.func @convolution(%x : tensor<1x4x6x7xf32>) -> tensor<1x40x6x7xf32> {
    %0 = forge.param_ref @w : tensor<40x4x3x3xf32>
    %1 = forge.convolution %x, %0 strides [1, 1] padding [1, 1] dilation [1, 1] groups 1 : (tensor<1x4x6x7xf32>, tensor<40x4x3x3xf32>) -> tensor<1x40x6x7xf32>
    func.return %1 : tensor<1x40x6x7xf32>
  }
}

// -----

// A depthwise convolution reads a copy with its padding: no condition is left.
// CHECK-LABEL: func.func @depthwise
// CHECK:         %[[P:.*]] = tile.launch @pad_{{.*}}(%x) {{.*}} -> tensor<1x4x12xf32>
// CHECK:         tile.launch @convolution_{{.*}}(%{{.*}}, %[[P]])
// CHECK:       tile.kernel @convolution
// CHECK-NOT:     tile.gather
// CHECK:         math.fma
builtin.module {
  forge.param @w : tensor<4x1x3xf32>
  func.func @depthwise(%x : tensor<1x4x10xf32>) -> tensor<1x4x10xf32> {
    %0 = forge.param_ref @w : tensor<4x1x3xf32>
    %1 = forge.convolution %x, %0 strides [1] padding [1] dilation [1] groups 4 : (tensor<1x4x10xf32>, tensor<4x1x3xf32>) -> tensor<1x4x10xf32>
    func.return %1 : tensor<1x4x10xf32>
  }
}

// -----

// Few channels of a result, and weights that are inputs: as they are.
// CHECK-LABEL: func.func @others
// CHECK-NOT:     channels_last
// CHECK:         func.return
builtin.module {
  forge.param @w : tensor<8x4x3xf32>
  func.func @others(%x : tensor<1x4x10xf32>, %v : tensor<32x4x3xf32>) -> (tensor<1x8x8xf32>, tensor<1x32x8xf32>) {
    %0 = forge.param_ref @w : tensor<8x4x3xf32>
    %1 = forge.convolution %x, %0 strides [1] padding [0] dilation [1] groups 1 : (tensor<1x4x10xf32>, tensor<8x4x3xf32>) -> tensor<1x8x8xf32>
    %2 = forge.convolution %x, %v strides [1] padding [0] dilation [1] groups 1 : (tensor<1x4x10xf32>, tensor<32x4x3xf32>) -> tensor<1x32x8xf32>
    func.return %1, %2 : tensor<1x8x8xf32>, tensor<1x32x8xf32>
  }
}
