// RUN: forgec opt %s -p 'fuse-glu,dce' --split-input-file | filecheck %s

// CHECK-LABEL: func.func @halves
// CHECK-NEXT:    %[[G:.*]] = forge.slice %x dim 1 from 0
// CHECK-NEXT:    %[[U:.*]] = forge.slice %x dim 1 from 8
// CHECK-NEXT:    forge.glu %[[G]], %[[U]] activation "silu" :
func.func @halves(%x : tensor<4x16xf32>) -> tensor<4x8xf32> {
  %0 = forge.slice %x dim 1 from 0 step 1 : (tensor<4x16xf32>) -> tensor<4x8xf32, #forge.tensor<[], strides = [16, 1]>>
  %1 = forge.slice %x dim 1 from 8 step 1 : (tensor<4x16xf32>) -> tensor<4x8xf32, #forge.tensor<[], strides = [16, 1]>>
  %2 = forge.silu %0 : (tensor<4x8xf32, #forge.tensor<[], strides = [16, 1]>>) -> tensor<4x8xf32>
  %3 = forge.mul %2, %1 : (tensor<4x8xf32>, tensor<4x8xf32, #forge.tensor<[], strides = [16, 1]>>) -> tensor<4x8xf32>
  func.return %3 : tensor<4x8xf32>
}

// -----

// DOC: a GEGLU whose gate and up are two linears.
// CHECK-LABEL: func.func @linears
// CHECK-NEXT:    %[[G:.*]] = forge.linear %x, %wg
// CHECK-NEXT:    %[[U:.*]] = forge.linear %x, %wu
// CHECK-NEXT:    forge.glu %[[G]], %[[U]] activation "gelu_tanh" :
func.func @linears(%x : tensor<4x16xf32>, %wg : tensor<8x16xf32>, %wu : tensor<8x16xf32>) -> tensor<4x8xf32> {
  %0 = forge.linear %x, %wg : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %1 = forge.linear %x, %wu : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %2 = forge.gelu %0 approximate "tanh" : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %3 = forge.mul %1, %2 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %3 : tensor<4x8xf32>
}

// -----

// As in GPT-OSS: interleaved, clamped, and 1 added to up.
// CHECK-LABEL: func.func @clamped
// CHECK-NEXT:    %[[G:.*]] = forge.slice %x dim 1 from 0 step 2
// CHECK-NEXT:    %[[U:.*]] = forge.slice %x dim 1 from 1 step 2
// CHECK-NEXT:    forge.glu %[[G]], %[[U]] activation "silu" alpha 1.702 limit 7.0 up_offset 1 :
func.func @clamped(%x : tensor<4x16xf32>) -> tensor<4x8xf32> {
  %0 = forge.slice %x dim 1 from 0 step 2 : (tensor<4x16xf32>) -> tensor<4x8xf32, #forge.tensor<[], strides = [16, 2]>>
  %1 = forge.slice %x dim 1 from 1 step 2 : (tensor<4x16xf32>) -> tensor<4x8xf32, #forge.tensor<[], strides = [16, 2]>>
  %2 = forge.clamp %0 upper 7.0 : (tensor<4x8xf32, #forge.tensor<[], strides = [16, 2]>>) -> tensor<4x8xf32>
  %3 = forge.clamp %1 lower -7.0 upper 7.0 : (tensor<4x8xf32, #forge.tensor<[], strides = [16, 2]>>) -> tensor<4x8xf32>
  %4 = forge.swish %2 beta 1.702 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %5 = forge.add %3, 1 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %6 = forge.mul %5, %4 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %6 : tensor<4x8xf32>
}

// -----

// Gate and up come from different values.
// CHECK-LABEL: func.func @other_inputs
// CHECK-NOT:     forge.glu
// CHECK:         func.return
func.func @other_inputs(%x : tensor<4x16xf32>, %y : tensor<4x16xf32>, %wg : tensor<8x16xf32>, %wu : tensor<8x16xf32>) -> tensor<4x8xf32> {
  %0 = forge.linear %x, %wg : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %1 = forge.linear %y, %wu : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %2 = forge.silu %0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %3 = forge.mul %2, %1 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %3 : tensor<4x8xf32>
}

// -----

// The activated gate is read elsewhere, too.
// CHECK-LABEL: func.func @gate_returned
// CHECK-NOT:     forge.glu
// CHECK:         func.return
func.func @gate_returned(%x : tensor<4x16xf32>, %wg : tensor<8x16xf32>, %wu : tensor<8x16xf32>) -> (tensor<4x8xf32>, tensor<4x8xf32>) {
  %0 = forge.linear %x, %wg : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %1 = forge.linear %x, %wu : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %2 = forge.relu %0 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %3 = forge.mul %2, %1 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %2, %3 : tensor<4x8xf32>, tensor<4x8xf32>
}
