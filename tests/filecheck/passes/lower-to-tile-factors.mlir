// RUN: forgec opt %s -p 'lower-to-tile{panel=32 factors="bf16"},round-factors' --split-input-file | filecheck %s

// A weight that is only multiplied with is stored in bfloat16, as the product rounds it; its transpose too.
// CHECK:       forge.param @w.panels : tensor<2x16x32xbf16> = {
// CHECK:         forge.cast {{.*}} : (tensor<2x16x32xf32>) -> tensor<2x16x32xbf16>
// CHECK:       forge.param @v.panels : tensor<1x64x32xbf16> = {
// CHECK:       tile.kernel {{.*}}: !tile.block<tensor<2x16x32xbf16>>
// CHECK-NOT:     arith.extf
// CHECK:         tile.dot {{.*}} precision "bf16"
builtin.module {
  forge.param @w : tensor<64x16xf32>
  forge.param @v : tensor<64x32xf32>
  func.func @linear(%x : tensor<5x16xf32>) -> tensor<5x32xf32> {
    %0 = forge.param_ref @w : tensor<64x16xf32>
    %1 = forge.linear %x, %0 : (tensor<5x16xf32>, tensor<64x16xf32>) -> tensor<5x64xf32>
    %2 = forge.param_ref @v : tensor<64x32xf32>
    %4 = forge.fused "linear" (%a = %1 : tensor<5x64xf32>, %b = %2 : tensor<64x32xf32>) {
      %t = forge.transpose %b [1, 0] : (tensor<64x32xf32>) -> tensor<32x64xf32>
      %l = forge.linear %a, %t : (tensor<5x64xf32>, tensor<32x64xf32>) -> tensor<5x32xf32>
      forge.yield %l : tensor<5x32xf32>
    } : tensor<5x32xf32>
    func.return %4 : tensor<5x32xf32>
  }
}

// -----

// What an embedding reads as well stays float32 for it, and is rounded in the product's kernel. Scales stay too.
// CHECK:       forge.param @w.panels : tensor<2x16x32xf32> = {
// CHECK-NOT:   bf16> = {
// CHECK:       arith.truncf {{.*}} : tensor<?x32xf32
builtin.module {
  forge.param @w : tensor<64x16xf32>
  forge.param @q : tensor<64x16xi8>
  forge.param @s : tensor<64x4xf32>
  func.func @linear(%x : tensor<5x16xf32>, %i : tensor<3xi64>) -> (tensor<5x64xf32>, tensor<3x16xf32>, tensor<5x64xf32>) {
    %0 = forge.param_ref @w : tensor<64x16xf32>
    %1 = forge.linear %x, %0 : (tensor<5x16xf32>, tensor<64x16xf32>) -> tensor<5x64xf32>
    %2 = forge.embedding %0, %i : (tensor<64x16xf32>, tensor<3xi64>) -> tensor<3x16xf32>
    %3 = forge.param_ref @q : tensor<64x16xi8>
    %4 = forge.param_ref @s : tensor<64x4xf32>
    %5 = forge.linear %x, %3 scales %4 compute "f32" : (tensor<5x16xf32>, tensor<64x16xi8>, tensor<64x4xf32>) -> tensor<5x64xf32>
    func.return %1, %2, %5 : tensor<5x64xf32>, tensor<3x16xf32>, tensor<5x64xf32>
  }
}
