// RUN: forgec opt %s -p fuse-epilogue --split-input-file | filecheck %s

// DOC: the residual is added by the kernel of the linear.
// The residual is added where the product is computed; the activation after it belongs to the next product's input.
// CHECK-LABEL: func.func @residual
// CHECK-NEXT:    %[[Y:.*]] = forge.fused "linear" (%[[A:.*]] = %x : tensor<9x8xf32>, %[[B:.*]] = %w : tensor<8x8xf32>, %[[R:.*]] = %r : tensor<9x8xf32>) {
// CHECK-NEXT:      %[[L:.*]] = forge.linear %[[A]], %[[B]]
// CHECK-NEXT:      %[[S:.*]] = forge.add %[[R]], %[[L]]
// CHECK-NEXT:      forge.yield %[[S]]
// CHECK-NEXT:    } : tensor<9x8xf32>
// CHECK-NEXT:    func.return %[[Y]]
func.func @residual(%x: tensor<9x8xf32>, %w: tensor<8x8xf32>, %r: tensor<9x8xf32>) -> tensor<9x8xf32> {
  %0 = forge.linear %x, %w : (tensor<9x8xf32>, tensor<8x8xf32>) -> tensor<9x8xf32>
  %1 = forge.add %r, %0 : (tensor<9x8xf32>, tensor<9x8xf32>) -> tensor<9x8xf32>
  func.return %1 : tensor<9x8xf32>
}

// -----

// With two producers an op joins the later one: the earlier cannot wait for it.
// CHECK-LABEL: func.func @two
// CHECK-NEXT:    %[[A:.*]] = forge.linear %x, %v
// CHECK-NEXT:    %[[Y:.*]] = forge.fused "linear"
// CHECK-NEXT:      forge.linear
// CHECK-NEXT:      forge.add
// CHECK-NEXT:      forge.yield
func.func @two(%x: tensor<9x8xf32>, %v: tensor<8x8xf32>, %w: tensor<8x8xf32>) -> tensor<9x8xf32> {
  %0 = forge.linear %x, %v : (tensor<9x8xf32>, tensor<8x8xf32>) -> tensor<9x8xf32>
  %1 = forge.linear %0, %w : (tensor<9x8xf32>, tensor<8x8xf32>) -> tensor<9x8xf32>
  %2 = forge.add %0, %1 : (tensor<9x8xf32>, tensor<9x8xf32>) -> tensor<9x8xf32>
  func.return %2 : tensor<9x8xf32>
}

// -----

// The halves of one product: slices happen in registers, and only what the unit yields is written.
// CHECK-LABEL: func.func @unit
// CHECK-NEXT:    %[[Y:.*]] = forge.fused "linear" (%{{.*}} = %x : tensor<9x8xf32>, %{{.*}} = %w : tensor<16x8xf32>) {
// CHECK-NEXT:      forge.linear
// CHECK-NEXT:      forge.slice
// CHECK-NEXT:      forge.slice
// CHECK-NEXT:      %[[G:.*]] = forge.glu
// CHECK-NEXT:      forge.yield %[[G]] : tensor<9x8xf32>
func.func @unit(%x: tensor<9x8xf32>, %w: tensor<16x8xf32>) -> tensor<9x8xf32> {
  %0 = forge.linear %x, %w : (tensor<9x8xf32>, tensor<16x8xf32>) -> tensor<9x16xf32>
  %1 = forge.slice %0 dim 1 from 0 step 1 : (tensor<9x16xf32>) -> tensor<9x8xf32, #forge.tensor<[], strides = [16, 1]>>
  %2 = forge.slice %0 dim 1 from 8 step 1 : (tensor<9x16xf32>) -> tensor<9x8xf32, #forge.tensor<[], strides = [16, 1]>>
  %3 = forge.glu %1, %2 activation "silu" : (tensor<9x8xf32, #forge.tensor<[], strides = [16, 1]>>, tensor<9x8xf32, #forge.tensor<[], strides = [16, 1]>>) -> tensor<9x8xf32>
  func.return %3 : tensor<9x8xf32>
}

// -----

// A larger result, an op with an effect in between, a value that comes back through another op: these stay.
// CHECK-LABEL: func.func @stays
// CHECK-NOT:     forge.fused
func.func @stays(%x: tensor<1x8xf32>, %w: tensor<8x8xf32>, %r: tensor<9x8xf32>) -> (tensor<9x8xf32>, tensor<1x8xf32>) {
  %0 = forge.linear %x, %w : (tensor<1x8xf32>, tensor<8x8xf32>) -> tensor<1x8xf32>
  %1 = forge.add %0, %r : (tensor<1x8xf32>, tensor<9x8xf32>) -> tensor<9x8xf32>
  %2 = forge.softmax %0 dim 1 : (tensor<1x8xf32>) -> tensor<1x8xf32>
  %3 = forge.mul %0, %2 : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
  func.return %1, %3 : tensor<9x8xf32>, tensor<1x8xf32>
}

// -----

// Nothing joins that yields nothing.
// CHECK-LABEL: func.func @empty
// CHECK-NOT:     forge.fused
// CHECK:         func.return
func.func @empty(%x: tensor<9x8xf32>, %w: tensor<4x8xf32>) -> (tensor<9x4xf32>, tensor<0x4xf32>) {
  %0 = forge.linear %x, %w : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %1 = forge.slice %0 dim 0 from 0 step 1 : (tensor<9x4xf32>) -> tensor<0x4xf32>
  %2 = forge.neg %1 : (tensor<0x4xf32>) -> tensor<0x4xf32>
  func.return %0, %2 : tensor<9x4xf32>, tensor<0x4xf32>
}

// -----

// Queries are normed and rotated where they are projected: a tile of the linear's columns holds whole heads.
// CHECK-LABEL: func.func @heads
// CHECK-NEXT:    %[[Y:.*]], %[[V:.*]] = forge.fused "linear" (%{{.*}} = %x : tensor<9x8xf32>, %{{.*}} = %w : tensor<24x8xf32>, %{{.*}} = %g : tensor<4xf32>, %{{.*}} = %cos : tensor<1x9x2xf32>, %{{.*}} = %sin : tensor<1x9x2xf32>) {
// CHECK-NEXT:      forge.linear
// CHECK-NEXT:      forge.slice
// CHECK-NEXT:      forge.reshape
// CHECK-NEXT:      forge.transpose
// CHECK-NEXT:      %[[N:.*]] = forge.rms_norm
// CHECK-NEXT:      %[[R:.*]] = forge.rope %[[N]]
// CHECK:           forge.yield
// CHECK-NOT:     forge.fused
func.func @heads(%x: tensor<9x8xf32>, %w: tensor<24x8xf32>, %g: tensor<4xf32>, %cos: tensor<1x9x2xf32>, %sin: tensor<1x9x2xf32>) -> (tensor<4x9x4xf32>, tensor<9x8xf32, #forge.tensor<[], strides = [24, 1]>>) {
  %0 = forge.linear %x, %w : (tensor<9x8xf32>, tensor<24x8xf32>) -> tensor<9x24xf32>
  %1 = forge.slice %0 dim 1 from 8 step 1 : (tensor<9x24xf32>) -> tensor<9x16xf32, #forge.tensor<[], strides = [24, 1]>>
  %2 = forge.reshape %1 : (tensor<9x16xf32, #forge.tensor<[], strides = [24, 1]>>) -> tensor<9x4x4xf32, #forge.tensor<[], strides = [24, 4, 1]>>
  %3 = forge.transpose %2 [1, 0, 2] : (tensor<9x4x4xf32, #forge.tensor<[], strides = [24, 4, 1]>>) -> tensor<4x9x4xf32, #forge.tensor<[], strides = [4, 24, 1]>>
  %4 = forge.rms_norm %3 weight %g axes 1 eps 1.0e-06 : (tensor<4x9x4xf32, #forge.tensor<[], strides = [4, 24, 1]>>, tensor<4xf32>) -> tensor<4x9x4xf32>
  %5 = forge.rope %4 cos %cos sin %sin once : (tensor<4x9x4xf32>, tensor<1x9x2xf32>, tensor<1x9x2xf32>) -> tensor<4x9x4xf32>
  %6 = forge.slice %0 dim 1 from 0 step 1 : (tensor<9x24xf32>) -> tensor<9x8xf32, #forge.tensor<[], strides = [24, 1]>>
  func.return %5, %6 : tensor<4x9x4xf32>, tensor<9x8xf32, #forge.tensor<[], strides = [24, 1]>>
}

// -----

// So are those of a dynamic number of rows, in another dtype than the linear's, by a norm with a mean and a bias.
// CHECK-LABEL: func.func @cast
// CHECK-NEXT:    %{{.*}} = forge.fused "linear"
// CHECK-NEXT:      forge.linear
// CHECK-NEXT:      forge.cast
// CHECK-NEXT:      forge.reshape
// CHECK-NEXT:      forge.layer_norm
// CHECK-NEXT:      forge.cast
// CHECK-NEXT:      forge.yield
forge.symbol @s0 "rows" min 1 max 64
func.func @cast(%x: tensor<?x8xf16, #forge.tensor<[s0]>>, %w: tensor<16x8xf16>, %g: tensor<4xf32>, %b: tensor<4xf32>) -> tensor<?x4xf16, #forge.tensor<[s0 * 4]>> {
  %0 = forge.linear %x, %w : (tensor<?x8xf16, #forge.tensor<[s0]>>, tensor<16x8xf16>) -> tensor<?x16xf16, #forge.tensor<[s0]>>
  %1 = forge.cast %0 : (tensor<?x16xf16, #forge.tensor<[s0]>>) -> tensor<?x16xf32, #forge.tensor<[s0]>>
  %2 = forge.reshape %1 : (tensor<?x16xf32, #forge.tensor<[s0]>>) -> tensor<?x4xf32, #forge.tensor<[s0 * 4]>>
  %3 = forge.layer_norm %2 weight %g bias %b axes 1 eps 1.0e-06 : (tensor<?x4xf32, #forge.tensor<[s0 * 4]>>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32, #forge.tensor<[s0 * 4]>>
  %4 = forge.cast %3 : (tensor<?x4xf32, #forge.tensor<[s0 * 4]>>) -> tensor<?x4xf16, #forge.tensor<[s0 * 4]>>
  func.return %4 : tensor<?x4xf16, #forge.tensor<[s0 * 4]>>
}

// -----

// Heads beside columns that are no whole number of heads.
// CHECK-LABEL: func.func @beside
// CHECK:         forge.fused "linear"
// CHECK:           forge.rms_norm
// CHECK:           forge.yield
func.func @beside(%x: tensor<9x8xf32>, %w: tensor<11x8xf32>) -> (tensor<9x2x4xf32>, tensor<9x3xf32, #forge.tensor<[], strides = [11, 1]>>) {
  %0 = forge.linear %x, %w : (tensor<9x8xf32>, tensor<11x8xf32>) -> tensor<9x11xf32>
  %1 = forge.slice %0 dim 1 from 0 step 1 : (tensor<9x11xf32>) -> tensor<9x8xf32, #forge.tensor<[], strides = [11, 1]>>
  %2 = forge.reshape %1 : (tensor<9x8xf32, #forge.tensor<[], strides = [11, 1]>>) -> tensor<9x2x4xf32, #forge.tensor<[], strides = [11, 4, 1]>>
  %3 = forge.rms_norm %2 axes 1 eps 1.0e-06 : (tensor<9x2x4xf32, #forge.tensor<[], strides = [11, 4, 1]>>) -> tensor<9x2x4xf32>
  %4 = forge.slice %0 dim 1 from 8 step 1 : (tensor<9x11xf32>) -> tensor<9x3xf32, #forge.tensor<[], strides = [11, 1]>>
  func.return %3, %4 : tensor<9x2x4xf32>, tensor<9x3xf32, #forge.tensor<[], strides = [11, 1]>>
}

// -----

// A norm over more than 256 columns stays: no tile holds its rows.
// CHECK-LABEL: func.func @wide
// CHECK-NOT:     forge.fused
func.func @wide(%x: tensor<9x8xf32>, %w: tensor<320x8xf32>) -> tensor<9x320xf32> {
  %0 = forge.linear %x, %w : (tensor<9x8xf32>, tensor<320x8xf32>) -> tensor<9x320xf32>
  %1 = forge.rms_norm %0 axes 1 eps 1.0e-06 : (tensor<9x320xf32>) -> tensor<9x320xf32>
  func.return %1 : tensor<9x320xf32>
}

// -----

// A norm down the linear's columns stays, and so do one of rows that begin between tiles, one over two dimensions and
// one of rows that are parts of two of the linear's.
// CHECK-LABEL: func.func @across
// CHECK-NOT:     forge.fused
func.func @across(%x: tensor<4x8xf32>, %w: tensor<6x8xf32>, %v: tensor<9x8xf32>) -> (tensor<6x4xf32>, tensor<4x4xf32>, tensor<2x2x6xf32>, tensor<3x12xf32>) {
  %0 = forge.linear %x, %w : (tensor<4x8xf32>, tensor<6x8xf32>) -> tensor<4x6xf32>
  %1 = forge.transpose %0 [1, 0] : (tensor<4x6xf32>) -> tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>
  %2 = forge.rms_norm %1 axes 1 eps 1.0e-06 : (tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>) -> tensor<6x4xf32>
  %3 = forge.slice %0 dim 1 from 2 step 1 : (tensor<4x6xf32>) -> tensor<4x4xf32, #forge.tensor<[], strides = [6, 1]>>
  %4 = forge.rms_norm %3 axes 1 eps 1.0e-06 : (tensor<4x4xf32, #forge.tensor<[], strides = [6, 1]>>) -> tensor<4x4xf32>
  %5 = forge.reshape %0 : (tensor<4x6xf32>) -> tensor<2x2x6xf32>
  %6 = forge.rms_norm %5 axes 2 eps 1.0e-06 : (tensor<2x2x6xf32>) -> tensor<2x2x6xf32>
  %7 = forge.linear %x, %v : (tensor<4x8xf32>, tensor<9x8xf32>) -> tensor<4x9xf32>
  %8 = forge.reshape %7 : (tensor<4x9xf32>) -> tensor<3x12xf32>
  %9 = forge.rms_norm %8 axes 1 eps 1.0e-06 : (tensor<3x12xf32>) -> tensor<3x12xf32>
  func.return %2, %4, %6, %9 : tensor<6x4xf32>, tensor<4x4xf32>, tensor<2x2x6xf32>, tensor<3x12xf32>
}

// -----

// Rows of 96 and of 64 columns share tiles of 192; those of 160 would ask for 960.
// CHECK-LABEL: func.func @lengths
// CHECK:         forge.fused "linear"
// CHECK:           forge.rms_norm {{.*}} -> tensor<9x96xf32>
// CHECK:           forge.rms_norm {{.*}} -> tensor<9x64xf32>
// CHECK-NOT:       forge.rms_norm
// CHECK:           forge.yield
// CHECK:         forge.rms_norm {{.*}} -> tensor<9x160xf32>
func.func @lengths(%x: tensor<9x8xf32>, %w: tensor<480x8xf32>) -> (tensor<9x96xf32>, tensor<9x64xf32>, tensor<9x160xf32>) {
  %0 = forge.linear %x, %w : (tensor<9x8xf32>, tensor<480x8xf32>) -> tensor<9x480xf32>
  %1 = forge.slice %0 dim 1 from 0 step 1 : (tensor<9x480xf32>) -> tensor<9x96xf32, #forge.tensor<[], strides = [480, 1]>>
  %2 = forge.rms_norm %1 axes 1 eps 1.0e-06 : (tensor<9x96xf32, #forge.tensor<[], strides = [480, 1]>>) -> tensor<9x96xf32>
  %3 = forge.slice %0 dim 1 from 128 step 1 : (tensor<9x480xf32>) -> tensor<9x64xf32, #forge.tensor<[], strides = [480, 1]>>
  %4 = forge.rms_norm %3 axes 1 eps 1.0e-06 : (tensor<9x64xf32, #forge.tensor<[], strides = [480, 1]>>) -> tensor<9x64xf32>
  %5 = forge.slice %0 dim 1 from 320 step 1 : (tensor<9x480xf32>) -> tensor<9x160xf32, #forge.tensor<[], strides = [480, 1]>>
  %6 = forge.rms_norm %5 axes 1 eps 1.0e-06 : (tensor<9x160xf32, #forge.tensor<[], strides = [480, 1]>>) -> tensor<9x160xf32>
  func.return %2, %4, %6 : tensor<9x96xf32>, tensor<9x64xf32>, tensor<9x160xf32>
}

// -----

// A norm stays for the kernel of another that reads it (fuse-elementwise), and for that of a concatenation; one of a
// product's rows stays as well.
// CHECK-LABEL: func.func @again
// CHECK-NOT:     forge.fused
func.func @again(%x: tensor<9x8xf32>, %w: tensor<4x8xf32>, %p: tensor<3x4xf32>, %y: tensor<8x4xf32>) -> (tensor<9x4xf32>, tensor<12x4xf32>, tensor<9x4xf32>) {
  %0 = forge.linear %x, %w : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %1 = forge.rms_norm %0 axes 1 eps 1.0e-06 : (tensor<9x4xf32>) -> tensor<9x4xf32>
  %2 = forge.layer_norm %1 axes 1 eps 1.0e-06 : (tensor<9x4xf32>) -> tensor<9x4xf32>
  %3 = forge.rms_norm %0 axes 1 eps 1.0e-05 : (tensor<9x4xf32>) -> tensor<9x4xf32>
  %4 = forge.concat %p, %3 dim 0 : (tensor<3x4xf32>, tensor<9x4xf32>) -> tensor<12x4xf32>
  %5 = forge.matmul %x, %y : (tensor<9x8xf32>, tensor<8x4xf32>) -> tensor<9x4xf32>
  %6 = forge.rms_norm %5 axes 1 eps 1.0e-06 : (tensor<9x4xf32>) -> tensor<9x4xf32>
  func.return %2, %4, %6 : tensor<9x4xf32>, tensor<12x4xf32>, tensor<9x4xf32>
}
