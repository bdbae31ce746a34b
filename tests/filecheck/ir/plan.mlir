// RUN: forgec opt %s | filecheck %s
// RUN: forgec opt %s | forgec opt - | filecheck %s
// RUN: forgec opt %s | forgec opt - -p 'allocate-buffers' | filecheck %s --check-prefix=AGAIN

// Every register kind and kind of argument reads back as it was printed; allocating what is allocated changes nothing.
// CHECK-LABEL: plan.entry @main inputs (operand<0>, 3, operand<1>) parameters ("x", "n") in "{\22tuple\22:[]}" out "\22*\22" arena 64 peak 88 {
// CHECK-NEXT:    %x = plan.input 0 "x" : tensor<2x3xf32>
// CHECK-NEXT:    %y = plan.input 1 "y" inout : tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>
// CHECK-NEXT:    %w = plan.param "layers.0.weight" : tensor<3x3xf32>
// CHECK-NEXT:    %c = plan.constant dense<[0, 2]> : tensor<2xi64> : tensor<2xi64>
// CHECK-NEXT:    %s = plan.state "cache" zeros : tensor<2x3xf32>
// CHECK-NEXT:    %b = plan.buffer bytes 24 at 0 live [0, 2] : tensor<2x3xf32>
// CHECK-NEXT:    plan.launch "aten::mm.out"(%x, %w, out = %b) writes [2] from "forge.matmul"
// CHECK-NEXT:    %v = plan.view %b offset 1 : (tensor<2x3xf32>) -> tensor<2xf32, #forge.tensor<[], strides = [3]>>
// CHECK-NEXT:    plan.launch "aten::index_put_"(%s, [none, %c], %v, true) writes [0] from "forge.index_put"
// CHECK-NEXT:    plan.launch "aten::add.out"(%y, -0.0, alpha = 1, out = %y) writes [0] from "forge.add"
// CHECK-NEXT:    %r = plan.launch "aten::to.dtype"(%y, dtype.bf16, memory_format = memory_format.contiguous_format) writes [] from "t"
// CHECK-NEXT:    %o = plan.output : tensor<f32>
// CHECK-NEXT:    plan.launch "aten::sum.IntList_out"(%y, [0, 1], false, dtype = dtype.f32, out = %o) writes [1] from "t"
// CHECK-NEXT:    plan.return (%o, none, "text", 2.5)

// AGAIN: arena 64 peak
// AGAIN: plan.buffer bytes 24 at 0 live [0, 2]
plan.entry @main inputs (operand<0>, 3, operand<1>) parameters ("x", "n") in "{\22tuple\22:[]}" out "\22*\22" arena 64 peak 88 {
  %x = plan.input 0 "x" : tensor<2x3xf32>
  %y = plan.input 1 "y" inout : tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>
  %w = plan.param "layers.0.weight" : tensor<3x3xf32>
  %c = plan.constant dense<[0, 2]> : tensor<2xi64> : tensor<2xi64>
  %s = plan.state "cache" zeros : tensor<2x3xf32>
  %b = plan.buffer bytes 24 at 0 live [0, 2] : tensor<2x3xf32>
  plan.launch "aten::mm.out"(%x, %w, out = %b) writes [2] from "forge.matmul" : (tensor<2x3xf32>, tensor<3x3xf32>, tensor<2x3xf32>) -> ()
  %v = plan.view %b offset 1 : (tensor<2x3xf32>) -> tensor<2xf32, #forge.tensor<[], strides = [3]>>
  plan.launch "aten::index_put_"(%s, [none, %c], %v, true) writes [0] from "forge.index_put" : (tensor<2x3xf32>, tensor<2xi64>, tensor<2xf32, #forge.tensor<[], strides = [3]>>) -> ()
  plan.launch "aten::add.out"(%y, -0.0, alpha = 1, out = %y) writes [0] from "forge.add" : (tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>) -> ()
  %r = plan.launch "aten::to.dtype"(%y, dtype.bf16, memory_format = memory_format.contiguous_format) writes [] from "t" : (tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>) -> tensor<2x3xbf16>
  %o = plan.output : tensor<f32>
  plan.launch "aten::sum.IntList_out"(%y, [0, 1], false, dtype = dtype.f32, out = %o) writes [1] from "t" : (tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>, tensor<f32>) -> ()
  plan.return (%o, none, "text", 2.5) : (tensor<f32>) -> ()
}
