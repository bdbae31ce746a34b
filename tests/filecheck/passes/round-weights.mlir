// RUN: forgec opt %s -p 'round-weights{to=int8}' --split-input-file | filecheck %s --check-prefixes=INT8
// RUN: forgec opt %s -p 'round-weights{to=int4}' --split-input-file | filecheck %s --check-prefixes=INT4
// RUN: forgec opt %s -p 'round-weights{to=bf16}' --split-input-file | filecheck %s --check-prefixes=BF16

// DOC: with `to=int8`, numbers and scales in the place of a weight.
// A linear takes the numbers as they are stored; its scales are one for each row, or for each group of 32 along it.
// INT8:       forge.param @w.int8.scales : tensor<8x1xf32> = {
// INT8:       forge.param @w.int8 : tensor<8x64xi8> = {
// INT8:         forge.quantize %{{.*}}, %{{.*}} compute "f32" lower -127 upper 127
// INT8:       func.func @linear
// INT8:         %[[S:.*]] = forge.param_ref @w.int8.scales
// INT8:         %[[W:.*]] = forge.param_ref @w.int8 :
// INT8-NEXT:    forge.linear %x, %[[W]] scales %[[S]] compute "f32"
// INT4:       forge.param @w.int4.scales : tensor<8x2xbf16> = {
// INT4:       forge.param @w.int4.zeros : tensor<8x2xui8> = {
// INT4:       forge.param @w.int4 : tensor<8x8xi32> = {
// INT4:       func.func @linear
// INT4:         forge.linear %x, %{{.*}} scales %{{.*}} zeros %{{.*}} compute "f32" packing "u4"
// BF16:       forge.param @w.bf16 : tensor<8x64xbf16> = {
// BF16:       func.func @linear
// BF16:         forge.linear %x, %{{.*}} compute "f32" : (tensor<5x64xf32>, tensor<8x64xbf16>) -> tensor<5x8xf32>
builtin.module {
  forge.param @w : tensor<8x64xf32>
  func.func @linear(%x : tensor<5x64xf32>) -> tensor<5x8xf32> {
    %0 = forge.param_ref @w : tensor<8x64xf32>
    %1 = forge.linear %x, %0 : (tensor<5x64xf32>, tensor<8x64xf32>) -> tensor<5x8xf32>
    func.return %1 : tensor<5x8xf32>
  }
}

// -----

// A tied weight is one; of the embedding only the rows that are looked up are dequantised. K is no multiple of 32: groups
// of 20.
// INT8-LABEL: func.func @tied
// INT8:         forge.fused "embedding"
// INT8:           %[[ROWS:.*]] = forge.embedding %{{.*}} : (tensor<8x20xi8>, tensor<3xi64>) -> tensor<3x20xi8>
// INT8-NEXT:      forge.dequantize %[[ROWS]] scales
// INT8:         forge.linear
// INT4-LABEL: func.func @tied
// INT4:           forge.embedding %{{.*}} : (tensor<8x10xui8>, tensor<3xi64>) -> tensor<3x10xui8>
// INT4-NEXT:      forge.dequantize {{.*}} scales {{.*}} zeros {{.*}} packing "u4" : (tensor<3x10xui8>, tensor<3x1xbf16>, tensor<3x1xui8>) -> tensor<3x20xf32>
// BF16-LABEL: func.func @tied
builtin.module {
  forge.param @w : tensor<8x20xf32>
  func.func @tied(%i : tensor<3xi64>) -> tensor<3x8xf32> {
    %0 = forge.param_ref @w : tensor<8x20xf32>
    %1 = forge.embedding %0, %i : (tensor<8x20xf32>, tensor<3xi64>) -> tensor<3x20xf32>
    %2 = forge.linear %1, %0 : (tensor<3x20xf32>, tensor<8x20xf32>) -> tensor<3x8xf32>
    func.return %2 : tensor<3x8xf32>
  }
}

// -----

// Rows of an odd number have no pairs: 8 bits. What something else reads too stays as it is.
// INT4-LABEL: func.func @mixed
// INT4:         forge.linear %x, %{{.*}} scales %{{.*}} compute "f32" : (tensor<5x9xf32>, tensor<8x9xi8>, tensor<8x1xf32>)
// INT4:         forge.linear %x, %{{.*}} : (tensor<5x9xf32>, tensor<8x9xf32>) -> tensor<5x8xf32>
builtin.module {
  forge.param @w : tensor<8x9xf32>
  forge.param @v : tensor<8x9xf32>
  func.func @mixed(%x : tensor<5x9xf32>) -> (tensor<5x8xf32>, tensor<5x8xf32>, tensor<8x9xf32>) {
    %0 = forge.param_ref @w : tensor<8x9xf32>
    %1 = forge.linear %x, %0 : (tensor<5x9xf32>, tensor<8x9xf32>) -> tensor<5x8xf32>
    %2 = forge.param_ref @v : tensor<8x9xf32>
    %3 = forge.linear %x, %2 : (tensor<5x9xf32>, tensor<8x9xf32>) -> tensor<5x8xf32>
    %4 = forge.exp %2 : (tensor<8x9xf32>) -> tensor<8x9xf32>
    func.return %1, %3, %4 : tensor<5x8xf32>, tensor<5x8xf32>, tensor<8x9xf32>
  }
}
