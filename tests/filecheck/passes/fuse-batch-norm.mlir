// RUN: forgec opt %s -p 'fuse-batch-norm,dce' --split-input-file | filecheck %s

// DOC: a batch norm with frozen statistics, as the DETR family spells it.
// CHECK-LABEL: func.func @frozen
// CHECK-NEXT:    %[[M:.*]] = forge.reshape %m
// CHECK-NEXT:    %[[V:.*]] = forge.reshape %v
// CHECK-NEXT:    %[[W:.*]] = forge.reshape %w
// CHECK-NEXT:    forge.batch_norm %x, %[[M]], %[[V]] weight %[[W]] bias %b eps 1.0e-05 :
// CHECK-NEXT:    func.return
func.func @frozen(%x : tensor<2x4x9xf32>, %w : tensor<1x4x1xf32>, %b : tensor<4xf32>, %m : tensor<1x4x1xf32>, %v : tensor<1x4x1xf32>) -> tensor<2x4x9xf32> {
  %0 = forge.add %v, 1.0e-05 : (tensor<1x4x1xf32>) -> tensor<1x4x1xf32>
  %1 = forge.rsqrt %0 : (tensor<1x4x1xf32>) -> tensor<1x4x1xf32>
  %2 = forge.mul %w, %1 : (tensor<1x4x1xf32>, tensor<1x4x1xf32>) -> tensor<1x4x1xf32>
  %3 = forge.mul %m, %2 : (tensor<1x4x1xf32>, tensor<1x4x1xf32>) -> tensor<1x4x1xf32>
  %4 = forge.reshape %b : (tensor<4xf32>) -> tensor<1x4x1xf32>
  %5 = forge.sub %4, %3 : (tensor<1x4x1xf32>, tensor<1x4x1xf32>) -> tensor<1x4x1xf32>
  %6 = forge.mul %x, %2 : (tensor<2x4x9xf32>, tensor<1x4x1xf32>) -> tensor<2x4x9xf32>
  %7 = forge.add %6, %5 : (tensor<2x4x9xf32>, tensor<1x4x1xf32>) -> tensor<2x4x9xf32>
  func.return %7 : tensor<2x4x9xf32>
}

// -----

// The mean is added to the bias.
// CHECK-LABEL: func.func @added
// CHECK-NOT:     forge.batch_norm
// CHECK:         func.return
func.func @added(%x : tensor<2x4x9xf32>, %w : tensor<4x1xf32>, %b : tensor<4x1xf32>, %m : tensor<4x1xf32>, %v : tensor<4x1xf32>) -> tensor<2x4x9xf32> {
  %0 = forge.add %v, 1.0e-05 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %1 = forge.rsqrt %0 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %2 = forge.mul %w, %1 : (tensor<4x1xf32>, tensor<4x1xf32>) -> tensor<4x1xf32>
  %3 = forge.mul %m, %2 : (tensor<4x1xf32>, tensor<4x1xf32>) -> tensor<4x1xf32>
  %4 = forge.add %b, %3 : (tensor<4x1xf32>, tensor<4x1xf32>) -> tensor<4x1xf32>
  %5 = forge.mul %x, %2 : (tensor<2x4x9xf32>, tensor<4x1xf32>) -> tensor<2x4x9xf32>
  %6 = forge.add %5, %4 : (tensor<2x4x9xf32>, tensor<4x1xf32>) -> tensor<2x4x9xf32>
  func.return %6 : tensor<2x4x9xf32>
}
