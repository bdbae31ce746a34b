// RUN: forgec opt %s | filecheck %s

// A cache of one entry: each version of the state is consumed once, the last one is returned.

func.func @forward(%cache: !forge.state<tensor<1x4x8xf32>>, %k: tensor<1x1x8xf32>)
    -> (tensor<1x4x8xf32>, !forge.state<tensor<1x4x8xf32>>) {
  %old = forge.state_read %cache : (!forge.state<tensor<1x4x8xf32>>) -> tensor<1x4x8xf32>
  %new = forge.insert_slice %k into %old dim 1 from 2 step 1 :
      (tensor<1x1x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %next = forge.state_write %cache, %new :
      (!forge.state<tensor<1x4x8xf32>>, tensor<1x4x8xf32>) -> !forge.state<tensor<1x4x8xf32>>
  func.return %new, %next : tensor<1x4x8xf32>, !forge.state<tensor<1x4x8xf32>>
}

// CHECK:      %old = forge.state_read %cache : (!forge.state<tensor<1x4x8xf32>>) -> tensor<1x4x8xf32>
// CHECK-NEXT: %new = forge.insert_slice %k into %old dim 1 from 2 step 1 :
// CHECK-NEXT: %next = forge.state_write %cache, %new :
// CHECK-NEXT: func.return %new, %next : tensor<1x4x8xf32>, !forge.state<tensor<1x4x8xf32>>
