// RUN: forgec opt %s --split-input-file --verify-diagnostics

plan.entry @main inputs (operand<0>) parameters ("x") in "{\22tuple\22:[]}" out "\22*\22" {
  %x = plan.input 0 "x" inout : tensor<4xf32>
  // expected-error@+1 {{takes tensors, then extents}}
  plan.launch "kernel::k"(4, %x, grid = [4]) writes [0] from "t" : (tensor<4xf32>) -> ()
  plan.return () : () -> ()
}

// -----

plan.entry @main inputs (operand<0>) parameters ("x") in "{\22tuple\22:[]}" out "\22*\22" {
  %x = plan.input 0 "x" inout : tensor<4xf32>
  // expected-error@+1 {{takes tensors, then extents}}
  plan.launch "kernel::k"(%x, 2.5, grid = [4]) writes [0] from "t" : (tensor<4xf32>) -> ()
  plan.return () : () -> ()
}

// -----

plan.entry @main inputs (operand<0>) parameters ("x") in "{\22tuple\22:[]}" out "\22*\22" {
  %x = plan.input 0 "x" inout : tensor<4xf32>
  // expected-error@+1 {{takes tensors, then extents}}
  plan.launch "kernel::k"([%x], grid = [4]) writes [0] from "t" : (tensor<4xf32>) -> ()
  plan.return () : () -> ()
}

// -----

plan.entry @main inputs (operand<0>) parameters ("x") in "{\22tuple\22:[]}" out "\22*\22" {
  %x = plan.input 0 "x" inout : tensor<4xf32>
  // expected-error@+1 {{takes one keyword argument, grid}}
  plan.launch "kernel::k"(%x) writes [0] from "t" : (tensor<4xf32>) -> ()
  plan.return () : () -> ()
}

// -----

plan.entry @main inputs (operand<0>) parameters ("x") in "{\22tuple\22:[]}" out "\22*\22" {
  %x = plan.input 0 "x" inout : tensor<4xf32>
  // expected-error@+1 {{the grid of kernel::k is a list of extents}}
  plan.launch "kernel::k"(%x, grid = 4) writes [0] from "t" : (tensor<4xf32>) -> ()
  plan.return () : () -> ()
}

// -----

plan.entry @main inputs (operand<0>) parameters ("x") in "{\22tuple\22:[]}" out "\22*\22" {
  %x = plan.input 0 "x" inout : tensor<4xf32>
  // expected-error@+1 {{names no kernel}}
  plan.launch "kernel::k.out"(%x, grid = [4]) writes [0] from "t" : (tensor<4xf32>) -> ()
  plan.return () : () -> ()
}

// -----

plan.entry @main inputs (operand<0>) parameters ("x") in "{\22tuple\22:[]}" out "\22*\22" {
  %x = plan.input 0 "x" inout : tensor<4xf32>
  // expected-error@+1 {{a launch without effect}}
  plan.launch "kernel::k"(%x, grid = [4]) writes [] from "t" : (tensor<4xf32>) -> ()
  plan.return () : () -> ()
}

// -----

plan.entry @main inputs (operand<0>) parameters ("x") in "{\22tuple\22:[]}" out "\22*\22" {
  %x = plan.input 0 "x" inout : tensor<4xf32>
  // expected-error@+1 {{returns nothing}}
  %r = plan.launch "kernel::k"(%x, grid = [4]) writes [0] from "t" : (tensor<4xf32>) -> tensor<4xf32>
  plan.return () : () -> ()
}
