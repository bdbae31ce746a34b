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
