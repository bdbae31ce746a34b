// RUN: forgec opt %s -p 'constant-fold{max-bytes=64},dce' --split-input-file | filecheck %s

// DOC: positions, doubled.
// CHECK-LABEL: func.func @folds
// CHECK-NEXT:    %[[C:.*]] = forge.constant dense<[0, 2, 4]> : tensor<3xi64>
// CHECK-NEXT:    func.return %[[C]]
func.func @folds() -> tensor<3xi64> {
  %0 = forge.iota from 0 step 1 : tensor<3xi64>
  %1 = forge.mul %0, 2 : (tensor<3xi64>) -> tensor<3xi64>
  func.return %1 : tensor<3xi64>
}

// -----

// Nothing to do: an argument, a result over the limit, a parameter, a draw of random numbers, memory that nobody wrote.
// CHECK-LABEL: func.func @stays
// CHECK-NEXT:    forge.neg
// CHECK-NEXT:    forge.full
// CHECK-NEXT:    forge.param_ref
// CHECK-NEXT:    forge.aten "aten::rand"
// CHECK-NEXT:    forge.aten "aten::empty.memory_format"
// CHECK-NEXT:    func.return
forge.param @w : tensor<2xf32>
func.func @stays(%x : tensor<2xf32>) -> (tensor<2xf32>, tensor<100xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) {
  %0 = forge.neg %x : (tensor<2xf32>) -> tensor<2xf32>
  %1 = forge.full 1.0 : tensor<100xf32>
  %2 = forge.param_ref @w : tensor<2xf32>
  %3 = forge.aten "aten::rand"([2]) random : () -> tensor<2xf32>
  %4 = forge.aten "aten::empty.memory_format"([2]) : () -> tensor<2xf32>
  func.return %0, %1, %2, %3, %4 : tensor<2xf32>, tensor<100xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>
}
