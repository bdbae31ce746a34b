// RUN: forgec opt %s -p 'dce' --split-input-file | filecheck %s

// DOC: unused ops, and the parameter that only they read.
// CHECK:      forge.param @used
// CHECK-NOT:  forge.param @unused
// CHECK-LABEL: func.func @forward
// CHECK-NEXT:    %{{.*}} = forge.param_ref @used
// CHECK-NEXT:    func.return
forge.param @used : tensor<4xf32>
forge.param @unused : tensor<4xf32>
func.func @forward(%x : tensor<4xf32>) -> tensor<4xf32> {
  %w = forge.param_ref @used : tensor<4xf32>
  %v = forge.param_ref @unused : tensor<4xf32>
  %0 = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32>
  %1 = forge.add %0, %v : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return %w : tensor<4xf32>
}

// -----

// Nothing to remove: writes of state and draws of random numbers stay, used or not.
// CHECK-LABEL: func.func @effects
// CHECK-NEXT:    forge.aten "aten::rand"
// CHECK-NEXT:    forge.state_write
// CHECK-NEXT:    func.return
func.func @effects(%x : tensor<4xf32>, %s : !forge.state<tensor<4xf32>>) -> !forge.state<tensor<4xf32>> {
  %r = forge.aten "aten::rand"([4]) random : () -> tensor<4xf32>
  %t = forge.state_write %s, %x : (!forge.state<tensor<4xf32>>, tensor<4xf32>) -> !forge.state<tensor<4xf32>>
  func.return %t : !forge.state<tensor<4xf32>>
}
