// RUN: forgec opt %s | filecheck %s

// The generic form means the same, defaults of properties included; optional operands are told apart by their segments.

func.func @f(%x: tensor<4x8xf32>, %b: tensor<8xf32>) {
%0 = "forge.layer_norm"(%x, %b) <{axes = #builtin.int<1>, eps = #forge.scalar<1.0e-05>,
    operandSegmentSizes = array<i32: 1, 0, 1>}> : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
%1 = "forge.mul"(%0) <{scalar = #forge.scalar<-0.0>}> : (tensor<4x8xf32>) -> tensor<4x8xf32>
%2 = "forge.sum"(%1) <{dims = #forge.ints<[0, 1]>}> : (tensor<4x8xf32>) -> tensor<f32>
%3 = "forge.slice"(%x) <{dim = #builtin.int<0>, start = #forge.extent<s0 - 1>, step = #forge.extent<1>}>
    : (tensor<4x8xf32>) -> tensor<1x8xf32>
%4 = "forge.aten"(%x) <{callee = "aten::topk", args = #forge.args<(operand<0>, 2, dim = -1)>}>
    : (tensor<4x8xf32>) -> tensor<4x2xf32>
  func.return
}

// CHECK:      %0 = forge.layer_norm %x bias %b axes 1 eps 1.0e-05 :
// CHECK-NEXT: %1 = forge.mul %0, -0.0 :
// CHECK-NEXT: %2 = forge.sum %1 over [0, 1] :
// CHECK-NEXT: %3 = forge.slice %x dim 0 from s0 - 1 step 1 :
// CHECK-NEXT: %4 = forge.aten "aten::topk"(%x, 2, dim = -1) :
