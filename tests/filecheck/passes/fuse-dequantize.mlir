// RUN: forgec opt %s -p 'fuse-dequantize,dce' --split-input-file | filecheck %s

// DOC: a weight of 8 bits with a scale for each row.
// CHECK-LABEL: func.func @rows
// CHECK-NEXT:    forge.linear %x, %w bias %b scales %s compute "f32" : (tensor<9x64xf32>, tensor<32x64xi8>, tensor<32xf32>, tensor<32x1xf32>) -> tensor<9x32xf32>
// CHECK-NEXT:    func.return
func.func @rows(%x : tensor<9x64xf32>, %w : tensor<32x64xi8>, %s : tensor<32x1xf32>, %b : tensor<32xf32>) -> tensor<9x32xf32> {
  %0 = forge.cast %w : (tensor<32x64xi8>) -> tensor<32x64xf32>
  %1 = forge.mul %0, %s : (tensor<32x64xf32>, tensor<32x1xf32>) -> tensor<32x64xf32>
  %2 = forge.linear %x, %1 bias %b : (tensor<9x64xf32>, tensor<32x64xf32>, tensor<32xf32>) -> tensor<9x32xf32>
  func.return %2 : tensor<9x32xf32>
}

// -----

// A weight that is stored transposed stays so.
// CHECK-LABEL: func.func @turned
// CHECK-NEXT:    %[[W:.*]] = forge.transpose %w [1, 0] : (tensor<64x32xui8>) -> tensor<32x64xui8, #forge.tensor<[], strides = [1, 32]>>
// CHECK-NEXT:    %[[S:.*]] = forge.reshape %s : (tensor<32xf32>) -> tensor<32x1xf32>
// CHECK-NEXT:    %[[Z:.*]] = forge.reshape %z : (tensor<32xui8>) -> tensor<32x1xui8>
// CHECK-NEXT:    forge.linear %x, %[[W]] scales %[[S]] zeros %[[Z]] compute "f32"
func.func @turned(%x : tensor<9x64xf32>, %w : tensor<64x32xui8>, %s : tensor<32xf32>, %z : tensor<32xui8>) -> tensor<9x32xf32> {
  %0 = forge.cast %w : (tensor<64x32xui8>) -> tensor<64x32xf32>
  %1 = forge.cast %z : (tensor<32xui8>) -> tensor<32xf32>
  %2 = forge.sub %0, %1 : (tensor<64x32xf32>, tensor<32xf32>) -> tensor<64x32xf32>
  %3 = forge.mul %2, %s : (tensor<64x32xf32>, tensor<32xf32>) -> tensor<64x32xf32>
  %4 = forge.matmul %x, %3 : (tensor<9x64xf32>, tensor<64x32xf32>) -> tensor<9x32xf32>
  func.return %4 : tensor<9x32xf32>
}

// -----

// CHECK-LABEL: func.func @packed_groups
// CHECK-NEXT:    %[[Z:.*]] = forge.full 8 : tensor<i64>
// CHECK-NEXT:    forge.linear %x, %w scales %s zeros %[[Z]] compute "bf16" packing "u4" : (tensor<9x64xbf16>, tensor<32x32xui8>, tensor<32x4xbf16>, tensor<i64>) -> tensor<9x32xbf16>
func.func @packed_groups(%x : tensor<9x64xbf16>, %w : tensor<32x32xui8>, %s : tensor<32x4xbf16>) -> tensor<9x32xbf16> {
  %low = forge.bitwise_and %w, 15 : (tensor<32x32xui8>) -> tensor<32x32xui8>
  %high = forge.shift_right %w, 4 : (tensor<32x32xui8>) -> tensor<32x32xui8>
  %0 = forge.reshape %low : (tensor<32x32xui8>) -> tensor<32x32x1xui8>
  %1 = forge.reshape %high : (tensor<32x32xui8>) -> tensor<32x32x1xui8>
  %2 = forge.concat %0, %1 dim 2 : (tensor<32x32x1xui8>, tensor<32x32x1xui8>) -> tensor<32x32x2xui8>
  %3 = forge.reshape %2 : (tensor<32x32x2xui8>) -> tensor<32x4x16xui8>
  %4 = forge.cast %3 : (tensor<32x4x16xui8>) -> tensor<32x4x16xbf16>
  %5 = forge.sub %4, 8 : (tensor<32x4x16xbf16>) -> tensor<32x4x16xbf16>
  %6 = forge.reshape %s : (tensor<32x4xbf16>) -> tensor<32x4x1xbf16>
  %7 = forge.mul %5, %6 : (tensor<32x4x16xbf16>, tensor<32x4x1xbf16>) -> tensor<32x4x16xbf16>
  %8 = forge.reshape %7 : (tensor<32x4x16xbf16>) -> tensor<32x64xbf16>
  %9 = forge.linear %x, %8 : (tensor<9x64xbf16>, tensor<32x64xbf16>) -> tensor<9x32xbf16>
  func.return %9 : tensor<9x32xbf16>
}

// -----

// The quantised activation stays, in front of a linear whose weight is quantised too.
// CHECK-LABEL: func.func @qdq
// CHECK:         %[[Q:.*]] = forge.quantize %x, %{{.*}} zeros %{{.*}} compute "f32"
// CHECK-NEXT:    %[[D:.*]] = forge.dequantize %[[Q]] scales %{{.*}} zeros %{{.*}} compute "f32"
// CHECK-NEXT:    forge.linear %[[D]], %w scales %sw compute "i8"
func.func @qdq(%x : tensor<9x64xf32>, %w : tensor<32x64xi8>, %sw : tensor<32x1xf32>) -> tensor<9x32xf32> {
  %s = forge.full 0.05 : tensor<f64>
  %z = forge.full 3 : tensor<i64>
  %0 = forge.quantize %x, %s zeros %z compute "f32" reciprocal : (tensor<9x64xf32>, tensor<f64>, tensor<i64>) -> tensor<9x64xi8>
  %1 = forge.dequantize %0 scales %s zeros %z compute "f32" : (tensor<9x64xi8>, tensor<f64>, tensor<i64>) -> tensor<9x64xf32>
  %2 = forge.dequantize %w scales %sw compute "i8" : (tensor<32x64xi8>, tensor<32x1xf32>) -> tensor<32x64xf32>
  %3 = forge.linear %1, %2 : (tensor<9x64xf32>, tensor<32x64xf32>) -> tensor<9x32xf32>
  func.return %3 : tensor<9x32xf32>
}

// -----

// Scales that multiply the result, in whatever shape they broadcast.
// CHECK-LABEL: func.func @after_the_sum
// CHECK-NEXT:    %[[S:.*]] = forge.reshape %s : (tensor<1x32xf32>) -> tensor<32x1xf32>
// CHECK-NEXT:    %[[L:.*]] = forge.linear %x, %w scales %[[S]] compute "f32" scale_result : (tensor<9x64xf32>, tensor<32x64xi8>, tensor<32x1xf32>) -> tensor<9x32xf32>
// CHECK-NEXT:    forge.add %[[L]], %b
func.func @after_the_sum(%x : tensor<9x64xf32>, %w : tensor<32x64xi8>, %s : tensor<1x32xf32>, %b : tensor<32xf32>) -> tensor<9x32xf32> {
  %0 = forge.cast %w : (tensor<32x64xi8>) -> tensor<32x64xf32>
  %1 = forge.linear %x, %0 : (tensor<9x64xf32>, tensor<32x64xf32>) -> tensor<9x32xf32>
  %2 = forge.mul %1, %s : (tensor<9x32xf32>, tensor<1x32xf32>) -> tensor<9x32xf32>
  %3 = forge.add %2, %b : (tensor<9x32xf32>, tensor<32xf32>) -> tensor<9x32xf32>
  func.return %3 : tensor<9x32xf32>
}

// -----

// What multiplies the result is not one number for each of its columns.
// CHECK-LABEL: func.func @not_of_rows
// CHECK-NEXT:    %[[L:.*]] = forge.linear %x, %w compute "f32" :
// CHECK-NEXT:    forge.mul %[[L]], %s
func.func @not_of_rows(%x : tensor<9x64xf32>, %w : tensor<32x64xi8>, %s : tensor<9x1xf32>) -> tensor<9x32xf32> {
  %0 = forge.cast %w : (tensor<32x64xi8>) -> tensor<32x64xf32>
  %1 = forge.linear %x, %0 : (tensor<9x64xf32>, tensor<32x64xf32>) -> tensor<9x32xf32>
  %2 = forge.mul %1, %s : (tensor<9x32xf32>, tensor<9x1xf32>) -> tensor<9x32xf32>
  func.return %2 : tensor<9x32xf32>
}

// -----

// Each number has a scale of its own within its group: no blocks.
// CHECK-LABEL: func.func @within_groups
// CHECK-NOT:     compute
// CHECK:         func.return
func.func @within_groups(%x : tensor<9x64xf32>, %w : tensor<32x64xi8>, %s : tensor<16xf32>) -> tensor<9x32xf32> {
  %0 = forge.reshape %w : (tensor<32x64xi8>) -> tensor<32x4x16xi8>
  %1 = forge.mul %0, %s : (tensor<32x4x16xi8>, tensor<16xf32>) -> tensor<32x4x16xf32>
  %2 = forge.reshape %1 : (tensor<32x4x16xf32>) -> tensor<32x64xf32>
  %3 = forge.linear %x, %2 : (tensor<9x64xf32>, tensor<32x64xf32>) -> tensor<9x32xf32>
  func.return %3 : tensor<9x32xf32>
}

// -----

// A cast that rounds between the difference and the product is kept: the model lost something there.
// CHECK-LABEL: func.func @rounded_difference
// CHECK-NOT:     compute
// CHECK:         func.return
func.func @rounded_difference(%x : tensor<9x64xf32>, %w : tensor<32x64xui8>, %z : tensor<32x1xf32>, %s : tensor<32x1xf32>) -> tensor<9x32xf32> {
  %0 = forge.cast %w : (tensor<32x64xui8>) -> tensor<32x64xf32>
  %1 = forge.sub %0, %z : (tensor<32x64xf32>, tensor<32x1xf32>) -> tensor<32x64xf32>
  %2 = forge.cast %1 : (tensor<32x64xf32>) -> tensor<32x64xbf16>
  %3 = forge.mul %2, %s : (tensor<32x64xbf16>, tensor<32x1xf32>) -> tensor<32x64xf32>
  %4 = forge.linear %x, %3 : (tensor<9x64xf32>, tensor<32x64xf32>) -> tensor<9x32xf32>
  func.return %4 : tensor<9x32xf32>
}

// -----

// Floats are no quantised numbers, and neither are products of two matrices of 8 bits whose sum is an integer.
// CHECK-LABEL: func.func @others
// CHECK-NEXT:    forge.mul %w, %s
// CHECK-NEXT:    forge.linear
// CHECK-NEXT:    forge.matmul %a, %b
func.func @others(%x : tensor<9x64xf32>, %w : tensor<32x64xf32>, %s : tensor<32x1xf32>, %a : tensor<4x8xi8>, %b : tensor<8x4xi8>) -> (tensor<9x32xf32>, tensor<4x4xi8>) {
  %0 = forge.mul %w, %s : (tensor<32x64xf32>, tensor<32x1xf32>) -> tensor<32x64xf32>
  %1 = forge.linear %x, %0 : (tensor<9x64xf32>, tensor<32x64xf32>) -> tensor<9x32xf32>
  %2 = forge.matmul %a, %b : (tensor<4x8xi8>, tensor<8x4xi8>) -> tensor<4x4xi8>
  func.return %1, %2 : tensor<9x32xf32>, tensor<4x4xi8>
}
