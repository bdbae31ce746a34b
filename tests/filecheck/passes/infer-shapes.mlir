// RUN: forgec opt %s -p 'infer-shapes' --disable-verify --split-input-file | filecheck %s

// DOC: the types below an argument that was made static.
// A function whose argument was made static by hand: everything below follows.
// CHECK-LABEL: func.func @follows
// CHECK-SAME:    -> tensor<4x3xf32>
// CHECK-NEXT:    forge.add %x, %y : (tensor<4x1xf32>, tensor<3xf32>) -> tensor<4x3xf32>
// CHECK-NEXT:    forge.neg %{{.*}} : (tensor<4x3xf32>) -> tensor<4x3xf32>
func.func @follows(%x : tensor<4x1xf32>, %y : tensor<3xf32>) -> tensor<?x3xf32, #forge.tensor<[s0]>> {
  %0 = forge.add %x, %y : (tensor<4x1xf32>, tensor<3xf32>) -> tensor<?x3xf32, #forge.tensor<[s0]>>
  %1 = forge.neg %0 : (tensor<?x3xf32, #forge.tensor<[s0]>>) -> tensor<?x3xf32, #forge.tensor<[s0]>>
  func.return %1 : tensor<?x3xf32, #forge.tensor<[s0]>>
}

// -----

// Types that already agree keep their strides.
// CHECK-LABEL: func.func @stays
// CHECK-NEXT:    forge.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>
func.func @stays(%x : tensor<2x3xf32>) -> tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>> {
  %0 = forge.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>
  func.return %0 : tensor<2x3xf32, #forge.tensor<[], strides = [1, 2]>>
}
