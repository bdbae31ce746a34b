// RUN: forgec opt %s -p 'lower-to-plan' --split-input-file | filecheck %s

// ATen's softmax writes row-major results only: what the caller gets is laid out as its type says.
// CHECK-LABEL: plan.entry @row_major
// CHECK:         %[[B:.*]] = plan.buffer bytes 24 : tensor<2x3xf32>
// CHECK-NEXT:    plan.launch "aten::_softmax.out"(%x, 1, false, out = %[[B]])
// CHECK-NEXT:    %[[O:.*]] = plan.output : tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>
// CHECK:         plan.launch "aten::copy_"(%[[O]], %[[B]])
func.func @row_major(%x : tensor<2x3xf32>) -> tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>> {
  %0 = forge.softmax %x dim 1 : (tensor<2x3xf32>) -> tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>
  func.return %0 : tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>
}

// -----

// Pointwise results are stored as their type says, if that leaves no gaps.
// CHECK-LABEL: plan.entry @as_asked
// CHECK:         plan.output : tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>
// CHECK:         plan.output : tensor<2x3xf32>
func.func @as_asked(%x : tensor<2x3xf32>) -> (tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>, tensor<2x3xf32, #forge.tensor<[], strides = [8, 1]>>) {
  %0 = forge.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>
  %1 = forge.exp %x : (tensor<2x3xf32>) -> tensor<2x3xf32, #forge.tensor<[], strides = [8, 1]>>
  func.return %0, %1 : tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>, tensor<2x3xf32, #forge.tensor<[], strides = [8, 1]>>
}

// -----

// A number where ATen takes none.
// CHECK-LABEL: plan.entry @numbers
// CHECK:         "aten::clamp_min.out"(%x, 0.5
// CHECK:         "aten::clamp_max.out"(%x, 2
// CHECK:         "aten::ne.Scalar_out"(%x, 0
// CHECK:         "aten::fill_.Scalar"({{.*}}, true)
func.func @numbers(%x : tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xi1>, tensor<4xi1>) {
  %0 = forge.maximum %x, 0.5 : (tensor<4xf32>) -> tensor<4xf32>
  %1 = forge.minimum %x, 2 : (tensor<4xf32>) -> tensor<4xf32>
  %2 = forge.logical_and %x, 1 : (tensor<4xf32>) -> tensor<4xi1>
  %3 = forge.logical_or %x, 1 : (tensor<4xf32>) -> tensor<4xi1>
  func.return %0, %1, %2, %3 : tensor<4xf32>, tensor<4xf32>, tensor<4xi1>, tensor<4xi1>
}

// -----

// The caller gets one tensor for a value that is returned twice, and a view of it for a view.
// CHECK-LABEL: plan.entry @returned_twice
// CHECK:         %[[O:.*]] = plan.output : tensor<2x3xf32>
// CHECK:         %[[V:.*]] = plan.view %[[O]] offset 0 : (tensor<2x3xf32>) -> tensor<6xf32>
// CHECK-NEXT:    plan.return (%[[O]], %[[O]], %[[V]], %x)
func.func @returned_twice(%x : tensor<2x3xf32>) -> (tensor<2x3xf32>, tensor<2x3xf32>, tensor<6xf32>, tensor<2x3xf32>) {
  %0 = forge.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %1 = forge.reshape %0 : (tensor<2x3xf32>) -> tensor<6xf32>
  func.return %0, %0, %1, %x : tensor<2x3xf32>, tensor<2x3xf32>, tensor<6xf32>, tensor<2x3xf32>
}
