// RUN: forgec opt %s -p 'allocate-buffers' --split-input-file | filecheck %s

// DOC: two buffers that are never alive together share bytes.
// %a and %c never live at one time and share bytes; %b lives with both. Offsets are multiples of 64.
// CHECK-LABEL: plan.entry @shared
// CHECK-SAME:    arena 128
// CHECK:         plan.buffer bytes 24 at {{0|64}} live [0, 2]
// CHECK:         plan.buffer bytes 24 at {{0|64}} live [1, 4]
// CHECK:         plan.buffer bytes 24 at {{0|64}} live [2, 4]
plan.entry @shared inputs (operand<0>) parameters () in "{\22tuple\22:[{\22tuple\22:[\22*\22]},{\22dict\22:[]}]}" out "\22*\22" {
  %x = plan.input 0 "x" : tensor<2x3xf32>
  %a = plan.buffer bytes 24 : tensor<2x3xf32>
  plan.launch "aten::neg.out"(%x, out = %a) writes [1] from "t" : (tensor<2x3xf32>, tensor<2x3xf32>) -> ()
  %b = plan.buffer bytes 24 : tensor<2x3xf32>
  plan.launch "aten::exp.out"(%a, out = %b) writes [1] from "t" : (tensor<2x3xf32>, tensor<2x3xf32>) -> ()
  %c = plan.buffer bytes 24 : tensor<2x3xf32>
  plan.launch "aten::cos.out"(%b, out = %c) writes [1] from "t" : (tensor<2x3xf32>, tensor<2x3xf32>) -> ()
  %o = plan.output : tensor<2x3xf32>
  plan.launch "aten::add.out"(%b, %c, out = %o) writes [2] from "t" : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>) -> ()
  plan.return (%o) : (tensor<2x3xf32>) -> ()
}

// -----

// A use through a view counts, and a register that nobody uses goes with its views; inputs and states stay.
// CHECK-LABEL: plan.entry @views
// CHECK-NEXT:    plan.input 0 "x"
// CHECK-NEXT:    plan.state "s" zeros
// CHECK-NEXT:    plan.buffer bytes 24 at 0 live [0, 2]
// CHECK-NEXT:    plan.launch
// CHECK-NEXT:    plan.output
// CHECK-NEXT:    plan.view
// CHECK-NEXT:    plan.launch
// CHECK-NEXT:    plan.return
plan.entry @views inputs (operand<0>) parameters () in "{\22tuple\22:[{\22tuple\22:[\22*\22]},{\22dict\22:[]}]}" out "\22*\22" {
  %x = plan.input 0 "x" : tensor<2x3xf32>
  %s = plan.state "s" zeros : tensor<4xf32>
  %unused = plan.param "w" : tensor<6xf32>
  %w = plan.view %unused offset 0 : (tensor<6xf32>) -> tensor<2x3xf32>
  %a = plan.buffer bytes 24 : tensor<2x3xf32>
  plan.launch "aten::neg.out"(%x, out = %a) writes [1] from "t" : (tensor<2x3xf32>, tensor<2x3xf32>) -> ()
  %o = plan.output : tensor<6xf32>
  %v = plan.view %a offset 0 : (tensor<2x3xf32>) -> tensor<6xf32>
  plan.launch "aten::neg.out"(%v, out = %o) writes [1] from "t" : (tensor<6xf32>, tensor<6xf32>) -> ()
  plan.return (%o) : (tensor<6xf32>) -> ()
}

// -----

// The peak: no arena, 400 bytes of an operator's own result beside 400 of the output.
// CHECK-LABEL: plan.entry @peak
// CHECK-SAME:    arena 0 peak 800
plan.entry @peak inputs (operand<0>) parameters () in "{\22tuple\22:[{\22tuple\22:[\22*\22]},{\22dict\22:[]}]}" out "\22*\22" {
  %x = plan.input 0 "x" : tensor<100xf32>
  %r = plan.launch "aten::relu"(%x) writes [] from "t" : (tensor<100xf32>) -> tensor<100xf32>
  %o = plan.output : tensor<100xf32>
  plan.launch "aten::neg.out"(%r, out = %o) writes [1] from "t" : (tensor<100xf32>, tensor<100xf32>) -> ()
  plan.return (%o) : (tensor<100xf32>) -> ()
}

// -----

// Nothing to allocate, nothing to drop.
// CHECK-LABEL: plan.entry @nothing
// CHECK-NEXT:    plan.input 0 "x"
// CHECK-NEXT:    plan.return (%x)
plan.entry @nothing inputs (operand<0>) parameters () in "{\22tuple\22:[{\22tuple\22:[\22*\22]},{\22dict\22:[]}]}" out "\22*\22" {
  %x = plan.input 0 "x" : tensor<4xf32>
  plan.return (%x) : (tensor<4xf32>) -> ()
}
