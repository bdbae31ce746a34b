// RUN: forgec opt %s -p 'fuse-norm,dce' --split-input-file | filecheck %s

// DOC: an RMS norm with its weight.
// CHECK-LABEL: func.func @products
// CHECK-NEXT:    %{{.*}} = forge.rms_norm %x weight %w axes 1 eps 1.0e-06 : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
// CHECK-NEXT:    func.return
func.func @products(%x : tensor<4x8xf32>, %w : tensor<8xf32>) -> tensor<4x8xf32> {
  %0 = forge.mul %x, %x : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.mean %0 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %2 = forge.add %1, 1.0e-06 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %3 = forge.rsqrt %2 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %4 = forge.mul %x, %3 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  %5 = forge.mul %w, %4 : (tensor<8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %5 : tensor<4x8xf32>
}

// -----

// The weight is multiplied after the cast back, as in Llama: in half precision the product is rounded apart.
// CHECK-LABEL: func.func @weight_after_the_cast
// CHECK-NEXT:    %{{.*}} = forge.rms_norm %x weight %w axes 1 eps 1.0e-06 rounding "normalized" :
// CHECK-NEXT:    func.return
func.func @weight_after_the_cast(%x : tensor<?x8xbf16, #forge.tensor<[s0]>>, %w : tensor<8xbf16>) -> tensor<?x8xbf16, #forge.tensor<[s0]>> {
  %0 = forge.cast %x : (tensor<?x8xbf16, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  %1 = forge.pow %0, 2 : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  %2 = forge.mean %1 over [1] keepdim : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x1xf32, #forge.tensor<[s0]>>
  %3 = forge.add %2, 1.0e-06 : (tensor<?x1xf32, #forge.tensor<[s0]>>) -> tensor<?x1xf32, #forge.tensor<[s0]>>
  %4 = forge.rsqrt %3 : (tensor<?x1xf32, #forge.tensor<[s0]>>) -> tensor<?x1xf32, #forge.tensor<[s0]>>
  %5 = forge.mul %0, %4 : (tensor<?x8xf32, #forge.tensor<[s0]>>, tensor<?x1xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  %6 = forge.cast %5 : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xbf16, #forge.tensor<[s0]>>
  %7 = forge.mul %w, %6 : (tensor<8xbf16>, tensor<?x8xbf16, #forge.tensor<[s0]>>) -> tensor<?x8xbf16, #forge.tensor<[s0]>>
  func.return %7 : tensor<?x8xbf16, #forge.tensor<[s0]>>
}

// -----

// As in Gemma: the weight is stored as its difference from 1, and applied before the cast back.
// CHECK-LABEL: func.func @one_plus_weight
// CHECK-NEXT:    %{{.*}} = forge.rms_norm %x weight %w axes 1 eps 1.0e-06 weight_offset 1.0 : (tensor<4x8xbf16>, tensor<8xbf16>)
// CHECK-NEXT:    func.return
func.func @one_plus_weight(%x : tensor<4x8xbf16>, %w : tensor<8xbf16>) -> tensor<4x8xbf16> {
  %0 = forge.cast %x : (tensor<4x8xbf16>) -> tensor<4x8xf32>
  %1 = forge.pow %0, 2 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %2 = forge.mean %1 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %3 = forge.add %2, 1.0e-06 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %4 = forge.pow %3, -0.5 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %5 = forge.mul %0, %4 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  %6 = forge.cast %w : (tensor<8xbf16>) -> tensor<8xf32>
  %7 = forge.add %6, 1.0 : (tensor<8xf32>) -> tensor<8xf32>
  %8 = forge.mul %5, %7 : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  %9 = forge.cast %8 : (tensor<4x8xf32>) -> tensor<4x8xbf16>
  func.return %9 : tensor<4x8xbf16>
}

// -----

// The scale is rounded before it is applied.
// CHECK-LABEL: func.func @rounded_scale
// CHECK-NEXT:    %{{.*}} = forge.rms_norm %x axes 1 eps 0.0 rounding "scale" :
// CHECK-NEXT:    func.return
func.func @rounded_scale(%x : tensor<4x8xf16>) -> tensor<4x8xf16> {
  %0 = forge.cast %x : (tensor<4x8xf16>) -> tensor<4x8xf32>
  %1 = forge.pow %0, 2 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %2 = forge.mean %1 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %3 = forge.rsqrt %2 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %4 = forge.cast %3 : (tensor<4x1xf32>) -> tensor<4x1xf16>
  %5 = forge.mul %x, %4 : (tensor<4x8xf16>, tensor<4x1xf16>) -> tensor<4x8xf16>
  func.return %5 : tensor<4x8xf16>
}

// -----

// CHECK-LABEL: func.func @layer_norm
// CHECK-NEXT:    %{{.*}} = forge.layer_norm %x weight %w bias %b axes 1 eps 1.0e-05 :
// CHECK-NEXT:    func.return
func.func @layer_norm(%x : tensor<4x8xf32>, %w : tensor<8xf32>, %b : tensor<8xf32>) -> tensor<4x8xf32> {
  %0 = forge.mean %x over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %1 = forge.sub %x, %0 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  %2 = forge.pow %1, 2 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %3 = forge.mean %2 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %4 = forge.add %3, 1.0e-05 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %5 = forge.sqrt %4 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %6 = forge.div %1, %5 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  %7 = forge.mul %w, %6 : (tensor<8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %8 = forge.add %7, %b : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  func.return %8 : tensor<4x8xf32>
}

// -----

// Channels that are first: a norm between transposes, which are views.
// CHECK-LABEL: func.func @channels_first
// CHECK-NEXT:    %[[T:.*]] = forge.transpose %x [0, 2, 1] :
// CHECK-NEXT:    %[[N:.*]] = forge.rms_norm %[[T]] axes 1 eps 1.0e-05 :
// CHECK-NEXT:    %[[R:.*]] = forge.transpose %[[N]] [0, 2, 1] : {{.*}} -> tensor<2x8x5xf32, #forge.tensor<[], strides = [40, 1, 8]>>
// CHECK-NEXT:    %[[A:.*]] = forge.reshape %[[R]]
// CHECK-NEXT:    forge.exp %[[A]]
// CHECK-NEXT:    func.return
func.func @channels_first(%x : tensor<2x8x5xf32>) -> tensor<2x40xf32> {
  %0 = forge.pow %x, 2 : (tensor<2x8x5xf32>) -> tensor<2x8x5xf32>
  %1 = forge.mean %0 over [1] keepdim : (tensor<2x8x5xf32>) -> tensor<2x1x5xf32>
  %2 = forge.add %1, 1.0e-05 : (tensor<2x1x5xf32>) -> tensor<2x1x5xf32>
  %3 = forge.rsqrt %2 : (tensor<2x1x5xf32>) -> tensor<2x1x5xf32>
  %4 = forge.mul %3, %x : (tensor<2x1x5xf32>, tensor<2x8x5xf32>) -> tensor<2x8x5xf32>
  %5 = forge.reshape %4 : (tensor<2x8x5xf32>) -> tensor<2x40xf32>
  %6 = forge.exp %5 : (tensor<2x40xf32>) -> tensor<2x40xf32>
  func.return %6 : tensor<2x40xf32>
}

// -----

// What is returned, or a view of it, keeps its layout: views of it still share its memory.
// CHECK-LABEL: func.func @returned
// CHECK:         forge.rms_norm
// CHECK:         %[[R:.*]] = forge.transpose %{{.*}} [0, 2, 1] :
// CHECK-NEXT:    %[[C:.*]] = forge.copy %[[R]] : {{.*}} -> tensor<2x8x5xf32>
// CHECK-NEXT:    forge.reshape %[[C]] : (tensor<2x8x5xf32>) -> tensor<2x40xf32>
func.func @returned(%x : tensor<2x8x5xf32>) -> tensor<2x40xf32> {
  %0 = forge.pow %x, 2 : (tensor<2x8x5xf32>) -> tensor<2x8x5xf32>
  %1 = forge.mean %0 over [1] keepdim : (tensor<2x8x5xf32>) -> tensor<2x1x5xf32>
  %2 = forge.add %1, 1.0e-05 : (tensor<2x1x5xf32>) -> tensor<2x1x5xf32>
  %3 = forge.rsqrt %2 : (tensor<2x1x5xf32>) -> tensor<2x1x5xf32>
  %4 = forge.mul %3, %x : (tensor<2x1x5xf32>, tensor<2x8x5xf32>) -> tensor<2x8x5xf32>
  %5 = forge.reshape %4 : (tensor<2x8x5xf32>) -> tensor<2x40xf32>
  func.return %5 : tensor<2x40xf32>
}

// -----

// What is scaled is another value than what the mean of squares was taken of.
// CHECK-LABEL: func.func @another_value
// CHECK-NOT:     forge.rms_norm
// CHECK:         func.return
func.func @another_value(%x : tensor<4x8xf32>, %y : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.pow %x, 2 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.mean %0 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %2 = forge.add %1, 1.0e-06 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %3 = forge.rsqrt %2 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %4 = forge.mul %y, %3 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  func.return %4 : tensor<4x8xf32>
}

// -----

// Statistics in half precision are coarser than the op's.
// CHECK-LABEL: func.func @half_precision
// CHECK-NOT:     forge.rms_norm
// CHECK:         func.return
func.func @half_precision(%x : tensor<4x8xbf16>) -> tensor<4x8xbf16> {
  %0 = forge.pow %x, 2 : (tensor<4x8xbf16>) -> tensor<4x8xbf16>
  %1 = forge.mean %0 over [1] keepdim : (tensor<4x8xbf16>) -> tensor<4x1xbf16>
  %2 = forge.rsqrt %1 : (tensor<4x1xbf16>) -> tensor<4x1xbf16>
  %3 = forge.mul %x, %2 : (tensor<4x8xbf16>, tensor<4x1xbf16>) -> tensor<4x8xbf16>
  func.return %3 : tensor<4x8xbf16>
}

// -----

// A weight of float32 on what was rounded to bfloat16 gives float32: the product stays.
// CHECK-LABEL: func.func @wider_weight
// CHECK-NEXT:    %[[N:.*]] = forge.rms_norm %x axes 1 eps 0.0 : (tensor<4x8xbf16>) -> tensor<4x8xbf16>
// CHECK-NEXT:    forge.mul %w, %[[N]]
func.func @wider_weight(%x : tensor<4x8xbf16>, %w : tensor<8xf32>) -> tensor<4x8xf32> {
  %0 = forge.cast %x : (tensor<4x8xbf16>) -> tensor<4x8xf32>
  %1 = forge.pow %0, 2 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %2 = forge.mean %1 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %3 = forge.rsqrt %2 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %4 = forge.mul %0, %3 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  %5 = forge.cast %4 : (tensor<4x8xf32>) -> tensor<4x8xbf16>
  %6 = forge.mul %w, %5 : (tensor<8xf32>, tensor<4x8xbf16>) -> tensor<4x8xf32>
  func.return %6 : tensor<4x8xf32>
}

// -----

// A variance that divides by one less is no layer norm's.
// CHECK-LABEL: func.func @unbiased
// CHECK-NOT:     forge.layer_norm
// CHECK:         func.return
func.func @unbiased(%x : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.mean %x over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %1 = forge.sub %x, %0 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  %2 = forge.var %x over [1] correction 1 keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %3 = forge.rsqrt %2 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %4 = forge.mul %1, %3 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  func.return %4 : tensor<4x8xf32>
}

// -----

// Weight and bias of two dtypes come in the wider one, which kernels want.
// CHECK-LABEL: func.func @two_dtypes
// CHECK-NEXT:    %[[W:.*]] = forge.cast %w : (tensor<8xf16>) -> tensor<8xf32>
// CHECK-NEXT:    forge.layer_norm %x weight %[[W]] bias %b axes 1 eps 1.0e-06 : (tensor<4x8xf16>, tensor<8xf32>, tensor<8xf32>) -> tensor<4x8xf16>
func.func @two_dtypes(%x : tensor<4x8xf16>, %w : tensor<8xf16>, %b : tensor<8xf32>) -> tensor<4x8xf16> {
  %0 = forge.cast %x : (tensor<4x8xf16>) -> tensor<4x8xf32>
  %1 = forge.mean %0 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %2 = forge.sub %0, %1 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  %3 = forge.mul %2, %2 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %4 = forge.mean %3 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %5 = forge.add %4, 1.0e-06 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %6 = forge.rsqrt %5 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %7 = forge.mul %2, %6 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  %8 = forge.mul %7, %w : (tensor<4x8xf32>, tensor<8xf16>) -> tensor<4x8xf32>
  %9 = forge.add %8, %b : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  %10 = forge.cast %9 : (tensor<4x8xf32>) -> tensor<4x8xf16>
  func.return %10 : tensor<4x8xf16>
}

// -----

// The reduced dimension comes back after the root.
// CHECK-LABEL: func.func @root_first
// CHECK-NEXT:    %{{.*}} = forge.rms_norm %x axes 1 eps 1.0e-06
// CHECK-NEXT:    func.return
func.func @root_first(%x : tensor<4x8xf32>) -> tensor<4x8xf32> {
  %0 = forge.pow %x, 2 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = forge.mean %0 over [1] : (tensor<4x8xf32>) -> tensor<4xf32>
  %2 = forge.add %1, 1.0e-06 : (tensor<4xf32>) -> tensor<4xf32>
  %3 = forge.sqrt %2 : (tensor<4xf32>) -> tensor<4xf32>
  %4 = forge.reshape %3 : (tensor<4xf32>) -> tensor<4x1xf32>
  %5 = forge.div %x, %4 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  func.return %5 : tensor<4x8xf32>
}

// -----

// It comes back as another one: columns are divided by the roots of rows.
// CHECK-LABEL: func.func @root_of_rows_for_columns
// CHECK-NOT:     forge.rms_norm
func.func @root_of_rows_for_columns(%x : tensor<8x8xf32>) -> tensor<8x8xf32> {
  %0 = forge.pow %x, 2 : (tensor<8x8xf32>) -> tensor<8x8xf32>
  %1 = forge.mean %0 over [1] : (tensor<8x8xf32>) -> tensor<8xf32>
  %2 = forge.sqrt %1 : (tensor<8xf32>) -> tensor<8xf32>
  %3 = forge.reshape %2 : (tensor<8xf32>) -> tensor<1x8xf32>
  %4 = forge.div %x, %3 : (tensor<8x8xf32>, tensor<1x8xf32>) -> tensor<8x8xf32>
  func.return %4 : tensor<8x8xf32>
}

// -----

// A row of length sqrt(8), with a weight: F.normalize, times the root of the number of features.
// CHECK-LABEL: func.func @normalized
// CHECK-NEXT:    %{{.*}} = forge.rms_norm %x weight %w axes 1 eps 1.0e-06 eps_form "least" :
// CHECK-NEXT:    func.return
func.func @normalized(%x : tensor<3x4xf32>, %w : tensor<4xf32>) -> tensor<3x4xf32> {
  %0 = forge.vector_norm %x over [1] ord 2.0 keepdim : (tensor<3x4xf32>) -> tensor<3x1xf32>
  %1 = forge.clamp %0 lower 2.0e-06 : (tensor<3x1xf32>) -> tensor<3x1xf32>
  %2 = forge.broadcast %1 : (tensor<3x1xf32>) -> tensor<3x4xf32, #forge.tensor<[], strides = [1, 0]>>
  %3 = forge.div %x, %2 : (tensor<3x4xf32>, tensor<3x4xf32, #forge.tensor<[], strides = [1, 0]>>) -> tensor<3x4xf32>
  %4 = forge.mul %3, 2.0 : (tensor<3x4xf32>) -> tensor<3x4xf32>
  %5 = forge.mul %4, %w : (tensor<3x4xf32>, tensor<4xf32>) -> tensor<3x4xf32>
  func.return %5 : tensor<3x4xf32>
}

// -----

// A row of length 1 is half of one of length sqrt(4); eps is added to the length.
// CHECK-LABEL: func.func @unit
// CHECK-NEXT:    %[[N:.*]] = forge.rms_norm %x axes 1 eps 5.0e-07 eps_form "outside" :
// CHECK-NEXT:    forge.mul %[[N]], 0.5
func.func @unit(%x : tensor<3x4xf32>) -> tensor<3x4xf32> {
  %0 = forge.vector_norm %x over [1] ord 2.0 keepdim : (tensor<3x4xf32>) -> tensor<3x1xf32>
  %1 = forge.add %0, 1.0e-06 : (tensor<3x1xf32>) -> tensor<3x1xf32>
  %2 = forge.div %x, %1 : (tensor<3x4xf32>, tensor<3x1xf32>) -> tensor<3x4xf32>
  func.return %2 : tensor<3x4xf32>
}

// -----

// Sums of sizes, lengths of another value, and lengths of columns are no norms of rows.
// CHECK-LABEL: func.func @other_lengths
// CHECK-NOT:     forge.rms_norm
func.func @other_lengths(%x : tensor<4x4xf32>, %y : tensor<4x4xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>) {
  %0 = forge.vector_norm %x over [1] ord 1.0 keepdim : (tensor<4x4xf32>) -> tensor<4x1xf32>
  %1 = forge.div %x, %0 : (tensor<4x4xf32>, tensor<4x1xf32>) -> tensor<4x4xf32>
  %2 = forge.vector_norm %y over [1] ord 2.0 keepdim : (tensor<4x4xf32>) -> tensor<4x1xf32>
  %3 = forge.div %x, %2 : (tensor<4x4xf32>, tensor<4x1xf32>) -> tensor<4x4xf32>
  %4 = forge.vector_norm %x over [1] ord 2.0 : (tensor<4x4xf32>) -> tensor<4xf32>
  %5 = forge.div %x, %4 : (tensor<4x4xf32>, tensor<4xf32>) -> tensor<4x4xf32>
  func.return %1, %3, %5 : tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>
}

// -----

// A sum of squares is four times their mean. A sum over columns would need transposes.
// CHECK-LABEL: func.func @sum_of_squares
// CHECK:         %[[N:.*]] = forge.rms_norm %x axes 1 eps 2.5e-07 :
// CHECK-NEXT:    %[[Y:.*]] = forge.mul %[[N]], 0.5
// CHECK-NOT:     forge.rms_norm
func.func @sum_of_squares(%x : tensor<4x4xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>) {
  %0 = forge.mul %x, %x : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = forge.sum %0 over [1] keepdim : (tensor<4x4xf32>) -> tensor<4x1xf32>
  %2 = forge.add %1, 1.0e-06 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %3 = forge.rsqrt %2 : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %4 = forge.mul %x, %3 : (tensor<4x4xf32>, tensor<4x1xf32>) -> tensor<4x4xf32>
  %5 = forge.sum %0 over [0] keepdim : (tensor<4x4xf32>) -> tensor<1x4xf32>
  %6 = forge.rsqrt %5 : (tensor<1x4xf32>) -> tensor<1x4xf32>
  %7 = forge.mul %x, %6 : (tensor<4x4xf32>, tensor<1x4xf32>) -> tensor<4x4xf32>
  func.return %4, %7 : tensor<4x4xf32>, tensor<4x4xf32>
}
