// RUN: forgec opt %s -p 'constant-fold' --split-input-file | filecheck %s

// A number that only a call knows is no constant, though its shape is.
// CHECK-LABEL: func.func @unknown
// CHECK-NEXT:    forge.iota from s0 step 1
// CHECK-NEXT:    forge.reshape
// CHECK-NEXT:    forge.aten "aten::arange.start_step"(expr<s0>
// CHECK-NEXT:    func.return
forge.symbol @s0 "rows" min 3
func.func @unknown(%x : tensor<?xf32, #forge.tensor<[s0]>>) -> (tensor<i64>, tensor<2xi64>) {
  %0 = forge.iota from s0 step 1 : tensor<1xi64>
  %1 = forge.reshape %0 : (tensor<1xi64>) -> tensor<i64>
  %2 = forge.aten "aten::arange.start_step"(expr<s0>, expr<s0 + 2>, 1) : () -> tensor<2xi64>
  func.return %1, %2 : tensor<i64>, tensor<2xi64>
}

// -----

// A literal is row-major, so what has other strides is a rearrangement of one.
// CHECK-LABEL: func.func @strided
// CHECK:         %[[C:.*]] = forge.constant dense<[0, 1, 2, 3, 4, 5]> : tensor<6xi64>
// CHECK-NEXT:    %[[R:.*]] = forge.reshape %[[C]]
// CHECK-NEXT:    %[[T:.*]] = forge.transpose %[[R]] [1, 0]
// CHECK-NEXT:    func.return %[[T]]
func.func @strided() -> tensor<3x2xi64, #forge.tensor<[], strides = [1, 3]>> {
  %0 = forge.iota from 0 step 1 : tensor<6xi64>
  %1 = forge.reshape %0 : (tensor<6xi64>) -> tensor<2x3xi64>
  %2 = forge.transpose %1 [1, 0] : (tensor<2x3xi64>) -> tensor<3x2xi64, #forge.tensor<[], strides = [1, 3]>>
  func.return %2 : tensor<3x2xi64, #forge.tensor<[], strides = [1, 3]>>
}
