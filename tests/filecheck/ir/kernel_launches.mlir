// RUN: forgec opt %s | filecheck %s
// RUN: forgec opt %s | forgec opt - | filecheck %s
// RUN: forgec opt %s -p 'allocate-buffers' | filecheck %s --check-prefix=ALLOCATED

// Launches of native kernels: tensors, then extents; the grid by name. Buffers live as in any other launch.
// CHECK-LABEL: plan.entry @main
// CHECK: plan.launch "kernel::scale_3f9a"(%x, %b, expr<s0>, 4, grid = [expr<s0>, expr<s0 * 4 + 1>]) writes [1] from "forge.mul"
// CHECK-NEXT: %o = plan.output : tensor<?x4xf32, #forge.tensor<[s0]>>
// CHECK-NEXT: plan.launch "kernel::copy"(%b, %o, grid = []) writes [1] from "forge.copy"
// CHECK-NEXT: plan.launch "kernel::twice"(%o, %o, grid = [4]) writes [0] from "forge.add"

// ALLOCATED: plan.buffer bytes s0 * 16 live [0, 2]
forge.symbol @s0 "seq" min 1 max 64
plan.entry @main inputs (operand<0>) parameters ("x") in "{\22tuple\22:[]}" out "\22*\22" {
  %x = plan.input 0 "x" : tensor<?x4xf32, #forge.tensor<[s0]>>
  %b = plan.buffer bytes s0 * 16 : tensor<?x4xf32, #forge.tensor<[s0]>>
  plan.launch "kernel::scale_3f9a"(%x, %b, expr<s0>, 4, grid = [expr<s0>, expr<s0 * 4 + 1>]) writes [1] from "forge.mul" : (tensor<?x4xf32, #forge.tensor<[s0]>>, tensor<?x4xf32, #forge.tensor<[s0]>>) -> ()
  %o = plan.output : tensor<?x4xf32, #forge.tensor<[s0]>>
  plan.launch "kernel::copy"(%b, %o, grid = []) writes [1] from "forge.copy" : (tensor<?x4xf32, #forge.tensor<[s0]>>, tensor<?x4xf32, #forge.tensor<[s0]>>) -> ()
  plan.launch "kernel::twice"(%o, %o, grid = [4]) writes [0] from "forge.add" : (tensor<?x4xf32, #forge.tensor<[s0]>>) -> ()
  plan.return (%o) : (tensor<?x4xf32, #forge.tensor<[s0]>>) -> ()
}
