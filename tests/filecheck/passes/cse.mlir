// RUN: forgec opt %s -p 'cse' --split-input-file | filecheck %s

// DOC: one cosine instead of two.
// CHECK-LABEL: func.func @equal
// CHECK-NEXT:    %[[C:.*]] = forge.cos %x
// CHECK-NEXT:    %{{.*}} = forge.add %[[C]], %[[C]]
// CHECK-NEXT:    func.return
func.func @equal(%x : tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32>
  %1 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32>
  %2 = forge.add %0, %1 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return %2 : tensor<4xf32>
}

// -----

// Numbers that only look equal are different: 1, 1.0 and true; 0.0 and -0.0. Random draws are never one.
// CHECK-LABEL: func.func @different
// CHECK-NEXT:    forge.add %x, 1 :
// CHECK-NEXT:    forge.add %x, 1.0 :
// CHECK-NEXT:    forge.add %x, 0.0 :
// CHECK-NEXT:    forge.add %x, -0.0 :
// CHECK-NEXT:    forge.aten "aten::rand"
// CHECK-NEXT:    forge.aten "aten::rand"
// CHECK-NEXT:    func.return
func.func @different(%x : tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
  %0 = forge.add %x, 1 : (tensor<4xf32>) -> tensor<4xf32>
  %1 = forge.add %x, 1.0 : (tensor<4xf32>) -> tensor<4xf32>
  %2 = forge.add %x, 0.0 : (tensor<4xf32>) -> tensor<4xf32>
  %3 = forge.add %x, -0.0 : (tensor<4xf32>) -> tensor<4xf32>
  %4 = forge.aten "aten::rand"([4]) random : () -> tensor<4xf32>
  %5 = forge.aten "aten::rand"([4]) random : () -> tensor<4xf32>
  func.return %0, %1, %2, %3, %4, %5 : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
}

// -----

// A kernel sees nothing but its arguments: what stands before it does not replace what it computes.
// CHECK-LABEL: func.func @kernel
// CHECK-NEXT:    forge.full 2.0
// CHECK-NEXT:    forge.fused
// CHECK-NEXT:      %[[TWO:.*]] = forge.full 2.0
// CHECK-NEXT:      forge.mul %{{.*}}, %[[TWO]]
// CHECK-NEXT:      forge.add %{{.*}}, %[[TWO]]
// CHECK-NEXT:      forge.yield
func.func @kernel(%x : tensor<4xf32>) -> (tensor<4xf32>, tensor<f32>) {
  %two = forge.full 2.0 : tensor<f32>
  %0 = forge.fused "mul" (%a = %x : tensor<4xf32>) {
    %1 = forge.full 2.0 : tensor<f32>
    %2 = forge.mul %a, %1 : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    %3 = forge.full 2.0 : tensor<f32>
    %4 = forge.add %2, %3 : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    forge.yield %4 : tensor<4xf32>
  } : tensor<4xf32>
  func.return %0, %two : tensor<4xf32>, tensor<f32>
}
