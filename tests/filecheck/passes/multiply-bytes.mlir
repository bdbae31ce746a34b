// RUN: forgec opt %s -p 'multiply-bytes' --split-input-file | filecheck %s

// DOC: the sums of the weight's rows are a parameter, and the zero point times them is taken off the integer product.
// CHECK:       forge.param @w.sums : tensor<32xi32> = {
// CHECK:         forge.sum %{{.*}} over [1] : (tensor<32x64xi32>) -> tensor<32xi32>
// CHECK-LABEL: func.func @linear
// CHECK-NOT:     forge.dequantize
// CHECK:         forge.fused "linear"
// CHECK:           %[[P:.*]] = forge.byte_linear %{{.*}}, %{{.*}} : (tensor<9x64xi8>, tensor<32x64xi8>) -> tensor<9x32xi32>
// CHECK-NEXT:      %[[Z:.*]] = forge.mul %{{.*}}, -3 : (tensor<32xi32>) -> tensor<32xi32>
// CHECK-NEXT:      %[[D:.*]] = forge.sub %[[P]], %[[Z]]
// CHECK-NEXT:      %[[F:.*]] = forge.cast %[[D]] : (tensor<9x32xi32>) -> tensor<9x32xf32>
// CHECK-NEXT:      %[[S:.*]] = forge.mul %[[F]], 0.5
// CHECK:           %[[T:.*]] = forge.mul %[[S]], %{{.*}} : (tensor<9x32xf32>, tensor<32xf32>) -> tensor<9x32xf32>
// CHECK-NEXT:      forge.add %[[T]], %{{.*}}
builtin.module {
  forge.param @w : tensor<32x64xi8>
  forge.param @t : tensor<32x1xf32>
  forge.param @b : tensor<32xf32>
  func.func @linear(%q : tensor<9x64xi8>) -> tensor<9x32xf32> {
    %w = forge.param_ref @w : tensor<32x64xi8>
    %t = forge.param_ref @t : tensor<32x1xf32>
    %b = forge.param_ref @b : tensor<32xf32>
    %s = forge.constant dense<0.5> : tensor<f64>
    %z = forge.constant dense<-3> : tensor<i64>
    %x = forge.dequantize %q scales %s zeros %z compute "f32" : (tensor<9x64xi8>, tensor<f64>, tensor<i64>) -> tensor<9x64xf32>
    %y = forge.linear %x, %w bias %b scales %t compute "f32" : (tensor<9x64xf32>, tensor<32x64xi8>, tensor<32xf32>, tensor<32x1xf32>) -> tensor<9x32xf32>
    func.return %y : tensor<9x32xf32>
  }
}

// -----

// Without zero points no sums are needed, so the weight may be anything; scales may be one for each row.
// CHECK-LABEL: func.func @rows
// CHECK-NOT:     sums
// CHECK:           forge.byte_linear
// CHECK-NEXT:      forge.cast
// CHECK-NEXT:      forge.mul %{{.*}}, %{{.*}} : (tensor<9x32xf32>, tensor<9x1xf32>) -> tensor<9x32xf32>
// CHECK-NOT:     forge.dequantize
builtin.module {
  func.func @rows(%q : tensor<9x64xi8>, %w : tensor<32x64xi8>, %s : tensor<9x1xf32>) -> tensor<9x32xf32> {
    %x = forge.dequantize %q scales %s compute "f32" : (tensor<9x64xi8>, tensor<9x1xf32>) -> tensor<9x64xf32>
    %y = forge.linear %x, %w compute "f32" : (tensor<9x64xf32>, tensor<32x64xi8>) -> tensor<9x32xf32>
    func.return %y : tensor<9x32xf32>
  }
}

// -----

// Unsigned bytes become signed ones, each less by 128, and so does the zero point; another reader keeps the floats.
// CHECK-LABEL: func.func @unsigned
// CHECK:         %[[X:.*]] = forge.dequantize %q
// CHECK:         forge.fused "bitwise_xor"
// CHECK:         forge.byte_linear
// CHECK-NEXT:    forge.mul %{{.*}}, 2 : (tensor<32xi32>) -> tensor<32xi32>
// CHECK:         func.return %{{.*}}, %[[X]]
builtin.module {
  forge.param @w : tensor<32x64xi8>
  func.func @unsigned(%q : tensor<9x64xui8>) -> (tensor<9x32xf32>, tensor<9x64xf32>) {
    %w = forge.param_ref @w : tensor<32x64xi8>
    %s = forge.constant dense<0.5> : tensor<f64>
    %z = forge.constant dense<130> : tensor<i64>
    %x = forge.dequantize %q scales %s zeros %z compute "f32" : (tensor<9x64xui8>, tensor<f64>, tensor<i64>) -> tensor<9x64xf32>
    %y = forge.linear %x, %w compute "f32" : (tensor<9x64xf32>, tensor<32x64xi8>) -> tensor<9x32xf32>
    func.return %y, %x : tensor<9x32xf32>, tensor<9x64xf32>
  }
}

// -----

// Left alone: scales for groups along the sum, zero points of the weight, sums that need a weight that is no parameter,
// scales for the columns of the input, zero points that wrap in 8 bits.
// CHECK-LABEL: func.func @others
// CHECK-NOT:     byte_linear
builtin.module {
  func.func @others(%q : tensor<9x64xi8>, %w : tensor<32x64xi8>, %g : tensor<32x4xf32>, %t : tensor<32x1xf32>, %z : tensor<32x1xi8>, %c : tensor<1x64xf32>, %r : tensor<9x1xi8>)
      -> (tensor<9x32xf32>, tensor<9x32xf32>, tensor<9x32xf32>, tensor<9x32xf32>, tensor<9x32xf32>) {
    %s = forge.constant dense<0.5> : tensor<f64>
    %three = forge.constant dense<3> : tensor<i64>
    %x = forge.dequantize %q scales %s compute "f32" : (tensor<9x64xi8>, tensor<f64>) -> tensor<9x64xf32>
    %0 = forge.linear %x, %w scales %g compute "f32" : (tensor<9x64xf32>, tensor<32x64xi8>, tensor<32x4xf32>) -> tensor<9x32xf32>
    %1 = forge.linear %x, %w scales %t zeros %z compute "f32" : (tensor<9x64xf32>, tensor<32x64xi8>, tensor<32x1xf32>, tensor<32x1xi8>) -> tensor<9x32xf32>
    %x2 = forge.dequantize %q scales %s zeros %three compute "f32" : (tensor<9x64xi8>, tensor<f64>, tensor<i64>) -> tensor<9x64xf32>
    %2 = forge.linear %x2, %w scales %t compute "f32" : (tensor<9x64xf32>, tensor<32x64xi8>, tensor<32x1xf32>) -> tensor<9x32xf32>
    %x3 = forge.dequantize %q scales %c compute "f32" : (tensor<9x64xi8>, tensor<1x64xf32>) -> tensor<9x64xf32>
    %3 = forge.linear %x3, %w scales %t compute "f32" : (tensor<9x64xf32>, tensor<32x64xi8>, tensor<32x1xf32>) -> tensor<9x32xf32>
    %x4 = forge.dequantize %q scales %s zeros %r compute "i8" : (tensor<9x64xi8>, tensor<f64>, tensor<9x1xi8>) -> tensor<9x64xf32>
    %4 = forge.linear %x4, %w scales %t compute "f32" : (tensor<9x64xf32>, tensor<32x64xi8>, tensor<32x1xf32>) -> tensor<9x32xf32>
    func.return %0, %1, %2, %3, %4 : tensor<9x32xf32>, tensor<9x32xf32>, tensor<9x32xf32>, tensor<9x32xf32>, tensor<9x32xf32>
  }
}
