// RUN: forgec opt %s -p merge-linears --split-input-file | filecheck %s

// CHECK:      forge.param @"layers.0.wq+wk.weight" : tensor<12x8xf32> = {
// CHECK-NEXT:   %[[Q:.*]] = forge.param_ref @layers.0.wq.weight
// CHECK-NEXT:   %[[K:.*]] = forge.param_ref @layers.0.wk.weight
// CHECK-NEXT:   %[[C:.*]] = forge.concat %[[Q]], %[[K]] dim 0
// CHECK-NEXT:   forge.yield %[[C]] : tensor<12x8xf32>
// CHECK:      forge.param @layers.0.wq.bias_ : tensor<12xf32> = {
// CHECK-NEXT:   %[[B:.*]] = forge.param_ref @layers.0.wq.bias
// CHECK-NEXT:   %[[Z:.*]] = forge.full 0.0 : tensor<4xf32>
// CHECK-NEXT:   forge.concat %[[B]], %[[Z]] dim 0
// CHECK-LABEL: func.func @forward
// CHECK:        %[[L:.*]] = forge.linear %x, %{{.*}} bias %{{.*}} -> tensor<9x12xf32>
// CHECK-NEXT:   %q = forge.slice %[[L]] dim 1 from 0 step 1 : (tensor<9x12xf32>) -> tensor<9x8xf32, #forge.tensor<[], strides = [12, 1]>>
// CHECK-NEXT:   forge.reshape %q : {{.*}} -> tensor<9x2x4xf32, #forge.tensor<[], strides = [12, 4, 1]>>
// CHECK:        %k = forge.slice %[[L]] dim 1 from 8 step 1 : (tensor<9x12xf32>) -> tensor<9x4xf32, #forge.tensor<[], strides = [12, 1]>>
// CHECK-NEXT:   forge.silu
forge.param @layers.0.wq.weight : tensor<8x8xf32>
forge.param @layers.0.wq.bias : tensor<8xf32>
forge.param @layers.0.wk.weight : tensor<4x8xf32>
func.func @forward(%x: tensor<9x8xf32>) -> (tensor<9x2x4xf32>, tensor<9x4xf32>) {
  %wq = forge.param_ref @layers.0.wq.weight : tensor<8x8xf32>
  %bq = forge.param_ref @layers.0.wq.bias : tensor<8xf32>
  %wk = forge.param_ref @layers.0.wk.weight : tensor<4x8xf32>
  %q = forge.linear %x, %wq bias %bq : (tensor<9x8xf32>, tensor<8x8xf32>, tensor<8xf32>) -> tensor<9x8xf32>
  %h = forge.reshape %q : (tensor<9x8xf32>) -> tensor<9x2x4xf32>
  %n = forge.neg %h : (tensor<9x2x4xf32>) -> tensor<9x2x4xf32>
  %k = forge.linear %x, %wk : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %s = forge.silu %k : (tensor<9x4xf32>) -> tensor<9x4xf32>
  func.return %n, %s : tensor<9x2x4xf32>, tensor<9x4xf32>
}

// -----

// Results that leave the function keep their layout; a weight that something else reads stays on its own.
// CHECK-LABEL: func.func @forward
// CHECK-NEXT:    %w0 = forge.param_ref @w0
// CHECK-NEXT:    %w1 = forge.param_ref @w1
// CHECK-NEXT:    forge.linear %x, %w0
// CHECK-NEXT:    forge.linear %x, %w1
// CHECK-NEXT:    forge.neg %w1
forge.param @w0 : tensor<4x8xf32>
forge.param @w1 : tensor<4x8xf32>
func.func @forward(%x: tensor<9x8xf32>) -> (tensor<9x4xf32>, tensor<9x4xf32>, tensor<4x8xf32>) {
  %w0 = forge.param_ref @w0 : tensor<4x8xf32>
  %w1 = forge.param_ref @w1 : tensor<4x8xf32>
  %a = forge.linear %x, %w0 : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %b = forge.linear %x, %w1 : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %c = forge.neg %w1 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %a, %b, %c : tensor<9x4xf32>, tensor<9x4xf32>, tensor<4x8xf32>
}

// -----

// What is returned gets a copy in the layout that the caller sees.
// CHECK-LABEL: func.func @returned
// CHECK:         %[[A:.*]] = forge.slice
// CHECK-NEXT:    %[[C:.*]] = forge.copy %[[A]] : (tensor<9x4xf32, #forge.tensor<[], strides = [8, 1]>>) -> tensor<9x4xf32>
// CHECK:         func.return %[[C]]
forge.param @w0 : tensor<4x8xf32>
forge.param @w1 : tensor<4x8xf32>
func.func @returned(%x: tensor<9x8xf32>) -> (tensor<9x4xf32>, tensor<9x4xf32>) {
  %w0 = forge.param_ref @w0 : tensor<4x8xf32>
  %w1 = forge.param_ref @w1 : tensor<4x8xf32>
  %a = forge.linear %x, %w0 : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %b = forge.linear %x, %w1 : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %d = forge.neg %b : (tensor<9x4xf32>) -> tensor<9x4xf32>
  func.return %a, %d : tensor<9x4xf32>, tensor<9x4xf32>
}

// -----

// A kernel's operand keeps its layout, by a copy.
// CHECK-LABEL: func.func @into_kernel
// CHECK:         %[[A:.*]] = forge.slice
// CHECK-NEXT:    %[[C:.*]] = forge.copy %[[A]] : (tensor<9x4xf32, #forge.tensor<[], strides = [8, 1]>>) -> tensor<9x4xf32>
// CHECK:         forge.fused "neg" (%{{.*}} = %[[C]] : tensor<9x4xf32>)
forge.param @w0 : tensor<4x8xf32>
forge.param @w1 : tensor<4x8xf32>
func.func @into_kernel(%x: tensor<9x8xf32>) -> (tensor<9x4xf32>, tensor<9x4xf32>) {
  %w0 = forge.param_ref @w0 : tensor<4x8xf32>
  %w1 = forge.param_ref @w1 : tensor<4x8xf32>
  %a = forge.linear %x, %w0 : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %b = forge.linear %x, %w1 : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %c = forge.fused "neg" (%i = %a : tensor<9x4xf32>) {
    %0 = forge.neg %i : (tensor<9x4xf32>) -> tensor<9x4xf32>
    %1 = forge.cos %0 : (tensor<9x4xf32>) -> tensor<9x4xf32>
    forge.yield %1 : tensor<9x4xf32>
  } : tensor<9x4xf32>
  %d = forge.neg %b : (tensor<9x4xf32>) -> tensor<9x4xf32>
  func.return %c, %d : tensor<9x4xf32>, tensor<9x4xf32>
}
