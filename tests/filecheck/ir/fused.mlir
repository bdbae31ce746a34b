// RUN: forgec opt %s | filecheck %s
// RUN: forgec opt %s | forgec opt | filecheck %s
// RUN: forgec opt %s -p decompose | filecheck %s --check-prefix SPLIT
// RUN: forgec opt %s -p dce | filecheck %s --check-prefix DCE

// A parameter that is computed from others, and ops that run as one kernel.

// CHECK:      forge.param @q : tensor<64x8xf32>
// CHECK:      forge.param @qk : tensor<96x8xf32> = {
// CHECK-NEXT:   %[[Q:.*]] = forge.param_ref @q : tensor<64x8xf32>
// CHECK-NEXT:   %[[K:.*]] = forge.param_ref @k : tensor<32x8xf32>
// CHECK-NEXT:   %[[QK:.*]] = forge.concat %[[Q]], %[[K]] dim 0
// CHECK-NEXT:   forge.yield %[[QK]] : tensor<96x8xf32>
// DCE-NOT:    @unread
forge.param @q : tensor<64x8xf32>
forge.param @k : tensor<32x8xf32>
forge.param @unread_source : tensor<8xf32>
forge.param @unread : tensor<8xf32> = {
  %a = forge.param_ref @unread_source : tensor<8xf32>
  %b = forge.neg %a : (tensor<8xf32>) -> tensor<8xf32>
  forge.yield %b : tensor<8xf32>
}
forge.param @qk : tensor<96x8xf32> = {
  %c = forge.param_ref @q : tensor<64x8xf32>
  %d = forge.param_ref @k : tensor<32x8xf32>
  %e = forge.concat %c, %d dim 0 : (tensor<64x8xf32>, tensor<32x8xf32>) -> tensor<96x8xf32>
  forge.yield %e : tensor<96x8xf32>
}
func.func @forward(%x: tensor<9x8xf32>, %r: tensor<9x96xf32>) -> tensor<9x96xf32> {
  // CHECK: %[[W:.*]] = forge.param_ref @qk
  // CHECK-NEXT: %[[Y:.*]] = forge.fused "linear" (%[[A:.*]] = %x : tensor<9x8xf32>, %[[B:.*]] = %[[W]] : tensor<96x8xf32>, %[[C:.*]] = %r : tensor<9x96xf32>) {
  // CHECK-NEXT: %[[L:.*]] = forge.linear %[[A]], %[[B]]
  // CHECK-NEXT: %[[S:.*]] = forge.add %[[C]], %[[L]]
  // CHECK-NEXT: forge.yield %[[S]] : tensor<9x96xf32>
  // CHECK-NEXT: } : tensor<9x96xf32>
  // CHECK-NEXT: func.return %[[Y]]
  // SPLIT:      %[[L:.*]] = forge.linear %x, %
  // SPLIT-NEXT: %[[S:.*]] = forge.add %r, %[[L]]
  // SPLIT-NEXT: func.return %[[S]]
  %w = forge.param_ref @qk : tensor<96x8xf32>
  %y = forge.fused "linear" (%a = %x : tensor<9x8xf32>, %b = %w : tensor<96x8xf32>, %c = %r : tensor<9x96xf32>) {
    %0 = forge.linear %a, %b : (tensor<9x8xf32>, tensor<96x8xf32>) -> tensor<9x96xf32>
    %1 = forge.add %c, %0 : (tensor<9x96xf32>, tensor<9x96xf32>) -> tensor<9x96xf32>
    forge.yield %1 : tensor<9x96xf32>
  } : tensor<9x96xf32>
  func.return %y : tensor<9x96xf32>
}
