// RUN: forgec opt %s | filecheck %s

// The beginning of a Llama block as captured: one op per source op, dynamic extents by name, weights by reference.

forge.symbol @s0 "seq" min 1 max 2048
forge.param @norm.weight : tensor<64xf32>
forge.param @q.weight : tensor<64x64xf32>
func.func @forward(%x: tensor<1x?x64xf32, #forge.tensor<[s0]>>) -> tensor<1x4x?x16xf32, #forge.tensor<[s0]>> {
  %norm = forge.param_ref @norm.weight : tensor<64xf32>
  %weight = forge.param_ref @q.weight : tensor<64x64xf32>
  %h = forge.rms_norm %x weight %norm axes 1 eps 1.0e-05 :
      (tensor<1x?x64xf32, #forge.tensor<[s0]>>, tensor<64xf32>) -> tensor<1x?x64xf32, #forge.tensor<[s0]>>
  %q = forge.linear %h, %weight :
      (tensor<1x?x64xf32, #forge.tensor<[s0]>>, tensor<64x64xf32>) -> tensor<1x?x64xf32, #forge.tensor<[s0]>>
  %heads = forge.reshape %q :
      (tensor<1x?x64xf32, #forge.tensor<[s0]>>) -> tensor<1x?x4x16xf32, #forge.tensor<[s0]>>
  %t = forge.transpose %heads [0, 2, 1, 3] : (tensor<1x?x4x16xf32, #forge.tensor<[s0]>>)
      -> tensor<1x4x?x16xf32, #forge.tensor<[s0], strides = [s0 * 64, 16, 64, 1]>>
  %a = forge.attention %t, %t, %t causal scale 0.25 :
      (tensor<1x4x?x16xf32, #forge.tensor<[s0], strides = [s0 * 64, 16, 64, 1]>>,
       tensor<1x4x?x16xf32, #forge.tensor<[s0], strides = [s0 * 64, 16, 64, 1]>>,
       tensor<1x4x?x16xf32, #forge.tensor<[s0], strides = [s0 * 64, 16, 64, 1]>>)
      -> tensor<1x4x?x16xf32, #forge.tensor<[s0]>>
  func.return %a : tensor<1x4x?x16xf32, #forge.tensor<[s0]>>
}

// CHECK:      forge.symbol @s0 "seq" min 1 max 2048
// CHECK-NEXT: forge.param @norm.weight : tensor<64xf32>
// CHECK-NEXT: forge.param @q.weight : tensor<64x64xf32>
// CHECK-NEXT: func.func @forward(%x: tensor<1x?x64xf32, #forge.tensor<[s0]>>)
// CHECK-NEXT:   %norm = forge.param_ref @norm.weight : tensor<64xf32>
// CHECK-NEXT:   %weight = forge.param_ref @q.weight : tensor<64x64xf32>
// CHECK-NEXT:   %h = forge.rms_norm %x weight %norm axes 1 eps 1.0e-05 :
// CHECK-NEXT:   %q = forge.linear %h, %weight :
// CHECK-NEXT:   %heads = forge.reshape %q :
// CHECK-NEXT:   %t = forge.transpose %heads [0, 2, 1, 3] :
// CHECK-SAME:      strides = [s0 * 64, 16, 64, 1]>>
// CHECK-NEXT:   %a = forge.attention %t, %t, %t scale 0.25 causal :
// CHECK-NEXT:   func.return %a
