// RUN: forgec opt %s -p 'fuse-attention,canonicalize,dce' --split-input-file | filecheck %s

// The key is read as it was before it was transposed; a mask is added as it is.
// CHECK-LABEL: func.func @added_mask
// CHECK-NEXT:    forge.attention %q, %k, %v mask %m scale 0.5 empty_row "nan" : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<9x9xf32>) -> tensor<1x4x9x8xf32>
// CHECK-NEXT:    func.return
func.func @added_mask(%q : tensor<1x4x9x8xf32>, %k : tensor<1x4x9x8xf32>, %v : tensor<1x4x9x8xf32>, %m : tensor<9x9xf32>) -> tensor<1x4x9x8xf32> {
  %kt = forge.transpose %k [0, 1, 3, 2] : (tensor<1x4x9x8xf32>) -> tensor<1x4x8x9xf32, #forge.tensor<[], strides = [288, 72, 1, 8]>>
  %0 = forge.matmul %q, %kt : (tensor<1x4x9x8xf32>, tensor<1x4x8x9xf32, #forge.tensor<[], strides = [288, 72, 1, 8]>>) -> tensor<1x4x9x9xf32>
  %1 = forge.mul %0, 0.5 : (tensor<1x4x9x9xf32>) -> tensor<1x4x9x9xf32>
  %2 = forge.add %1, %m : (tensor<1x4x9x9xf32>, tensor<9x9xf32>) -> tensor<1x4x9x9xf32>
  %3 = forge.softmax %2 dim 3 : (tensor<1x4x9x9xf32>) -> tensor<1x4x9x9xf32>
  %4 = forge.matmul %3, %v : (tensor<1x4x9x9xf32>, tensor<1x4x9x8xf32>) -> tensor<1x4x9x8xf32>
  func.return %4 : tensor<1x4x9x8xf32>
}

// -----

// Factors of query, key and scores are one number; a mask of -inf is one of booleans; the extents need not be known.
// CHECK-LABEL: func.func @scaled_and_filled
// CHECK-NEXT:    %[[KEPT:.*]] = forge.logical_not %m
// CHECK-NEXT:    forge.attention %q, %k, %v mask %[[KEPT]] scale 0.25 empty_row "nan" :
func.func @scaled_and_filled(%q : tensor<?x4x?x8xf32, #forge.tensor<[s0, s1]>>, %k : tensor<?x4x?x8xf32, #forge.tensor<[s0, s2]>>, %v : tensor<?x4x?x6xf32, #forge.tensor<[s0, s2]>>, %m : tensor<?x?xi1, #forge.tensor<[s1, s2]>>) -> tensor<?x4x?x6xf32, #forge.tensor<[s0, s1]>> {
  %qs = forge.mul %q, 0.5 : (tensor<?x4x?x8xf32, #forge.tensor<[s0, s1]>>) -> tensor<?x4x?x8xf32, #forge.tensor<[s0, s1]>>
  %ks = forge.mul %k, 2.0 : (tensor<?x4x?x8xf32, #forge.tensor<[s0, s2]>>) -> tensor<?x4x?x8xf32, #forge.tensor<[s0, s2]>>
  %kt = forge.transpose %ks [0, 1, 3, 2] : (tensor<?x4x?x8xf32, #forge.tensor<[s0, s2]>>) -> tensor<?x4x8x?xf32, #forge.tensor<[s0, s2], strides = [s2 * 32, s2 * 8, 1, 8]>>
  %0 = forge.matmul %qs, %kt : (tensor<?x4x?x8xf32, #forge.tensor<[s0, s1]>>, tensor<?x4x8x?xf32, #forge.tensor<[s0, s2], strides = [s2 * 32, s2 * 8, 1, 8]>>) -> tensor<?x4x?x?xf32, #forge.tensor<[s0, s1, s2]>>
  %1 = forge.div %0, 4.0 : (tensor<?x4x?x?xf32, #forge.tensor<[s0, s1, s2]>>) -> tensor<?x4x?x?xf32, #forge.tensor<[s0, s1, s2]>>
  %2 = forge.masked_fill %1, %m with -inf : (tensor<?x4x?x?xf32, #forge.tensor<[s0, s1, s2]>>, tensor<?x?xi1, #forge.tensor<[s1, s2]>>) -> tensor<?x4x?x?xf32, #forge.tensor<[s0, s1, s2]>>
  %3 = forge.softmax %2 dim 3 : (tensor<?x4x?x?xf32, #forge.tensor<[s0, s1, s2]>>) -> tensor<?x4x?x?xf32, #forge.tensor<[s0, s1, s2]>>
  %4 = forge.matmul %3, %v : (tensor<?x4x?x?xf32, #forge.tensor<[s0, s1, s2]>>, tensor<?x4x?x6xf32, #forge.tensor<[s0, s2]>>) -> tensor<?x4x?x6xf32, #forge.tensor<[s0, s1]>>
  func.return %4 : tensor<?x4x?x6xf32, #forge.tensor<[s0, s1]>>
}

// -----

// DOC: half precision, with the softmax in float32.
// Narrow floats: the query keeps its own rounded scale, the softmax its wider dtype.
// CHECK-LABEL: func.func @narrow
// CHECK-NEXT:    %[[K:.*]] = forge.transpose %kt
// CHECK-NEXT:    forge.attention %q, %[[K]], %v query_scale 0.3 scale 1.0 : (tensor<4x9x8xbf16>
// CHECK-NEXT:    func.return
func.func @narrow(%q : tensor<4x9x8xbf16>, %kt : tensor<4x8x9xbf16>, %v : tensor<4x9x8xbf16>) -> tensor<4x9x8xbf16> {
  %qs = forge.mul %q, 0.3 : (tensor<4x9x8xbf16>) -> tensor<4x9x8xbf16>
  %0 = forge.matmul %qs, %kt : (tensor<4x9x8xbf16>, tensor<4x8x9xbf16>) -> tensor<4x9x9xbf16>
  %1 = forge.cast %0 : (tensor<4x9x9xbf16>) -> tensor<4x9x9xf32>
  %2 = forge.softmax %1 dim 2 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %3 = forge.cast %2 : (tensor<4x9x9xf32>) -> tensor<4x9x9xbf16>
  %4 = forge.matmul %3, %v : (tensor<4x9x9xbf16>, tensor<4x9x8xbf16>) -> tensor<4x9x8xbf16>
  func.return %4 : tensor<4x9x8xbf16>
}

// -----

// A softmax in narrow floats stays one.
// CHECK-LABEL: func.func @narrow_softmax
// CHECK:         forge.attention {{.*}} softmax_dtype "f16"
func.func @narrow_softmax(%q : tensor<4x9x8xf16>, %kt : tensor<4x8x9xf16>, %v : tensor<4x9x8xf16>) -> tensor<4x9x8xf16> {
  %0 = forge.matmul %q, %kt : (tensor<4x9x8xf16>, tensor<4x8x9xf16>) -> tensor<4x9x9xf16>
  %2 = forge.softmax %0 dim 2 : (tensor<4x9x9xf16>) -> tensor<4x9x9xf16>
  %4 = forge.matmul %2, %v : (tensor<4x9x9xf16>, tensor<4x9x8xf16>) -> tensor<4x9x8xf16>
  func.return %4 : tensor<4x9x8xf16>
}

// -----

// Soft-capping, then a mask, then a column of sinks, which the weights lose again.
// CHECK-LABEL: func.func @capped_with_sinks
// CHECK:         forge.attention %q, %{{.*}}, %v mask %m sinks %s scale 1.0 softcap 30.0
// CHECK-NEXT:    func.return
func.func @capped_with_sinks(%q : tensor<2x4x9x8xf32>, %kt : tensor<2x4x8x9xf32>, %v : tensor<2x4x9x8xf32>, %m : tensor<9x9xf32>, %s : tensor<4xf32>) -> tensor<2x4x9x8xf32> {
  %0 = forge.matmul %q, %kt : (tensor<2x4x9x8xf32>, tensor<2x4x8x9xf32>) -> tensor<2x4x9x9xf32>
  %1 = forge.div %0, 30.0 : (tensor<2x4x9x9xf32>) -> tensor<2x4x9x9xf32>
  %2 = forge.tanh %1 : (tensor<2x4x9x9xf32>) -> tensor<2x4x9x9xf32>
  %3 = forge.mul %2, 30.0 : (tensor<2x4x9x9xf32>) -> tensor<2x4x9x9xf32>
  %4 = forge.add %m, %3 : (tensor<9x9xf32>, tensor<2x4x9x9xf32>) -> tensor<2x4x9x9xf32>
  %5 = forge.reshape %s : (tensor<4xf32>) -> tensor<1x4x1x1xf32>
  %6 = forge.broadcast %5 : (tensor<1x4x1x1xf32>) -> tensor<2x4x9x1xf32>
  %7 = forge.concat %4, %6 dim 3 : (tensor<2x4x9x9xf32>, tensor<2x4x9x1xf32>) -> tensor<2x4x9x10xf32>
  %8 = forge.amax %7 over [3] keepdim : (tensor<2x4x9x10xf32>) -> tensor<2x4x9x1xf32>
  %9 = forge.sub %7, %8 : (tensor<2x4x9x10xf32>, tensor<2x4x9x1xf32>) -> tensor<2x4x9x10xf32>
  %10 = forge.softmax %9 dim 3 : (tensor<2x4x9x10xf32>) -> tensor<2x4x9x10xf32>
  %11 = forge.slice %10 dim 3 from 0 step 1 : (tensor<2x4x9x10xf32>) -> tensor<2x4x9x9xf32, #forge.tensor<[], strides = [360, 90, 10, 1]>>
  %12 = forge.matmul %11, %v : (tensor<2x4x9x9xf32, #forge.tensor<[], strides = [360, 90, 10, 1]>>, tensor<2x4x9x8xf32>) -> tensor<2x4x9x8xf32>
  func.return %12 : tensor<2x4x9x8xf32>
}

// -----

// Batch and heads in one dimension, where they are two for the mask.
// CHECK-LABEL: func.func @flattened
// CHECK:         forge.attention {{.*}} mask %m scale 1.0 empty_row "nan" : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32, {{.*}}>, tensor<2x4x9x8xf32>, tensor<2x1x9x9xf32>) -> tensor<2x4x9x8xf32>
// CHECK-NEXT:    forge.reshape {{.*}} -> tensor<8x9x8xf32>
func.func @flattened(%q : tensor<8x9x8xf32>, %kt : tensor<8x8x9xf32>, %v : tensor<8x9x8xf32>, %m : tensor<2x1x9x9xf32>) -> tensor<8x9x8xf32> {
  %0 = forge.matmul %q, %kt : (tensor<8x9x8xf32>, tensor<8x8x9xf32>) -> tensor<8x9x9xf32>
  %1 = forge.reshape %0 : (tensor<8x9x9xf32>) -> tensor<2x4x9x9xf32>
  %2 = forge.add %1, %m : (tensor<2x4x9x9xf32>, tensor<2x1x9x9xf32>) -> tensor<2x4x9x9xf32>
  %3 = forge.reshape %2 : (tensor<2x4x9x9xf32>) -> tensor<8x9x9xf32>
  %4 = forge.softmax %3 dim 2 : (tensor<8x9x9xf32>) -> tensor<8x9x9xf32>
  %5 = forge.matmul %4, %v : (tensor<8x9x9xf32>, tensor<8x9x8xf32>) -> tensor<8x9x8xf32>
  func.return %5 : tensor<8x9x8xf32>
}

// -----

// Not fused: softmax over another dimension, a temperature for each column, weights that are returned too.
// CHECK-LABEL: func.func @stays
// CHECK-NOT:     forge.attention
// CHECK:         func.return
func.func @stays(%q : tensor<4x9x8xf32>, %kt : tensor<4x8x9xf32>, %v : tensor<4x9x8xf32>, %t : tensor<9xf32>) -> (tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x9xf32>) {
  %0 = forge.matmul %q, %kt : (tensor<4x9x8xf32>, tensor<4x8x9xf32>) -> tensor<4x9x9xf32>
  %1 = forge.softmax %0 dim 1 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %2 = forge.matmul %1, %v : (tensor<4x9x9xf32>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  %3 = forge.mul %0, %t : (tensor<4x9x9xf32>, tensor<9xf32>) -> tensor<4x9x9xf32>
  %4 = forge.softmax %3 dim 2 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %5 = forge.matmul %4, %v : (tensor<4x9x9xf32>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  %6 = forge.softmax %0 dim 2 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %7 = forge.matmul %6, %v : (tensor<4x9x9xf32>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  func.return %2, %5, %7, %6 : tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x9xf32>
}

// -----

// Keys times queries: the softmax is over rows, a mask has keys first, and weights are turned for the product.
// CHECK-LABEL: func.func @keys_times_queries
// CHECK-NEXT:    %[[M:.*]] = forge.transpose %m [1, 0]
// CHECK-NEXT:    %[[K:.*]] = forge.logical_not %[[M]]
// CHECK-NEXT:    forge.attention %q, %k, %v mask %[[K]] scale 0.5
// CHECK-NEXT:    func.return
func.func @keys_times_queries(%q : tensor<2x4x9x8xf32>, %k : tensor<2x4x7x8xf32>, %v : tensor<2x4x7x6xf32>, %m : tensor<7x9xi1>) -> tensor<2x4x9x6xf32> {
  %qt = forge.transpose %q [0, 1, 3, 2] : (tensor<2x4x9x8xf32>) -> tensor<2x4x8x9xf32, #forge.tensor<[], strides = [288, 72, 1, 8]>>
  %0 = forge.matmul %k, %qt : (tensor<2x4x7x8xf32>, tensor<2x4x8x9xf32, #forge.tensor<[], strides = [288, 72, 1, 8]>>) -> tensor<2x4x7x9xf32>
  %1 = forge.mul %0, 0.5 : (tensor<2x4x7x9xf32>) -> tensor<2x4x7x9xf32>
  %2 = forge.masked_fill %1, %m with -inf : (tensor<2x4x7x9xf32>, tensor<7x9xi1>) -> tensor<2x4x7x9xf32>
  %3 = forge.softmax %2 dim 2 : (tensor<2x4x7x9xf32>) -> tensor<2x4x7x9xf32>
  %4 = forge.transpose %3 [0, 1, 3, 2] : (tensor<2x4x7x9xf32>) -> tensor<2x4x9x7xf32, #forge.tensor<[], strides = [252, 63, 1, 9]>>
  %5 = forge.matmul %4, %v : (tensor<2x4x9x7xf32, #forge.tensor<[], strides = [252, 63, 1, 9]>>, tensor<2x4x7x6xf32>) -> tensor<2x4x9x6xf32>
  func.return %5 : tensor<2x4x9x6xf32>
}

// -----

// Values times turned weights: the result is turned.
// CHECK-LABEL: func.func @values_first
// CHECK:         %[[A:.*]] = forge.attention {{.*}} scale 1.0 {{.*}} -> tensor<2x9x6xf32>
// CHECK-NEXT:    forge.transpose %[[A]] [0, 2, 1]
func.func @values_first(%q : tensor<2x9x8xf32>, %k : tensor<2x8x7xf32>, %v : tensor<2x6x7xf32>) -> tensor<2x6x9xf32> {
  %0 = forge.matmul %q, %k : (tensor<2x9x8xf32>, tensor<2x8x7xf32>) -> tensor<2x9x7xf32>
  %1 = forge.softmax %0 dim 2 : (tensor<2x9x7xf32>) -> tensor<2x9x7xf32>
  %2 = forge.transpose %1 [0, 2, 1] : (tensor<2x9x7xf32>) -> tensor<2x7x9xf32, #forge.tensor<[], strides = [63, 1, 7]>>
  %3 = forge.matmul %v, %2 : (tensor<2x6x7xf32>, tensor<2x7x9xf32, #forge.tensor<[], strides = [63, 1, 7]>>) -> tensor<2x6x9xf32>
  func.return %3 : tensor<2x6x9xf32>
}

// -----

// The queries of all heads are the rows of one product: they share one head of keys and values.
// CHECK-LABEL: func.func @one_key_head
// CHECK:         forge.attention {{.*}} : (tensor<2x4x9x8xf32>, tensor<2x1x7x8xf32, {{.*}}>, tensor<2x1x7x6xf32>) -> tensor<2x4x9x6xf32>
func.func @one_key_head(%q : tensor<2x36x8xf32>, %k : tensor<2x8x7xf32>, %v : tensor<2x7x6xf32>) -> tensor<2x36x6xf32> {
  %0 = forge.matmul %q, %k : (tensor<2x36x8xf32>, tensor<2x8x7xf32>) -> tensor<2x36x7xf32>
  %1 = forge.reshape %0 : (tensor<2x36x7xf32>) -> tensor<2x4x9x7xf32>
  %2 = forge.softmax %1 dim 3 : (tensor<2x4x9x7xf32>) -> tensor<2x4x9x7xf32>
  %3 = forge.reshape %2 : (tensor<2x4x9x7xf32>) -> tensor<2x36x7xf32>
  %4 = forge.matmul %3, %v : (tensor<2x36x7xf32>, tensor<2x7x6xf32>) -> tensor<2x36x6xf32>
  func.return %4 : tensor<2x36x6xf32>
}

// -----

// Rows and columns are those of an image: biases for each of its axes are one bias.
// CHECK-LABEL: func.func @image
// CHECK-NEXT:    %[[S:.*]] = forge.add %h, %w {{.*}} -> tensor<8x2x3x2x3xf32>
// CHECK-NEXT:    %[[B:.*]] = forge.reshape %[[S]] {{.*}} -> tensor<8x6x6xf32>
// CHECK-NEXT:    forge.attention %q, %k, %v mask %[[B]] scale 1.0
func.func @image(%q : tensor<8x6x4xf32>, %k : tensor<8x6x4xf32>, %v : tensor<8x6x4xf32>, %h : tensor<8x2x3x2x1xf32>, %w : tensor<8x2x3x1x3xf32>) -> tensor<8x6x4xf32> {
  %kt = forge.transpose %k [0, 2, 1] : (tensor<8x6x4xf32>) -> tensor<8x4x6xf32, #forge.tensor<[], strides = [24, 1, 4]>>
  %0 = forge.matmul %q, %kt : (tensor<8x6x4xf32>, tensor<8x4x6xf32, #forge.tensor<[], strides = [24, 1, 4]>>) -> tensor<8x6x6xf32>
  %1 = forge.reshape %0 : (tensor<8x6x6xf32>) -> tensor<8x2x3x2x3xf32>
  %2 = forge.add %1, %h : (tensor<8x2x3x2x3xf32>, tensor<8x2x3x2x1xf32>) -> tensor<8x2x3x2x3xf32>
  %3 = forge.add %2, %w : (tensor<8x2x3x2x3xf32>, tensor<8x2x3x1x3xf32>) -> tensor<8x2x3x2x3xf32>
  %4 = forge.reshape %3 : (tensor<8x2x3x2x3xf32>) -> tensor<8x6x6xf32>
  %5 = forge.softmax %4 dim 2 : (tensor<8x6x6xf32>) -> tensor<8x6x6xf32>
  %6 = forge.matmul %5, %v : (tensor<8x6x6xf32>, tensor<8x6x4xf32>) -> tensor<8x6x4xf32>
  func.return %6 : tensor<8x6x4xf32>
}

// -----

// What was masked before the softmax is 0 after it: a row with nothing left is 0, as with a mask of booleans.
// CHECK-LABEL: func.func @zeroed
// CHECK-NEXT:    %[[K:.*]] = forge.logical_not %m
// CHECK-NEXT:    forge.attention %q, {{.*}}, %v mask %[[K]] scale 1.0
// CHECK-NEXT:    func.return
func.func @zeroed(%q : tensor<8x6x4xf32>, %k : tensor<8x6x4xf32>, %v : tensor<8x6x4xf32>, %m : tensor<8x6x6xi1>) -> tensor<8x6x4xf32> {
  %kt = forge.transpose %k [0, 2, 1] : (tensor<8x6x4xf32>) -> tensor<8x4x6xf32, #forge.tensor<[], strides = [24, 1, 4]>>
  %0 = forge.matmul %q, %kt : (tensor<8x6x4xf32>, tensor<8x4x6xf32, #forge.tensor<[], strides = [24, 1, 4]>>) -> tensor<8x6x6xf32>
  %1 = forge.masked_fill %0, %m with -3.4028234663852886e+38 : (tensor<8x6x6xf32>, tensor<8x6x6xi1>) -> tensor<8x6x6xf32>
  %2 = forge.softmax %1 dim 2 : (tensor<8x6x6xf32>) -> tensor<8x6x6xf32>
  %3 = forge.masked_fill %2, %m with 0.0 : (tensor<8x6x6xf32>, tensor<8x6x6xi1>) -> tensor<8x6x6xf32>
  %4 = forge.matmul %3, %v : (tensor<8x6x6xf32>, tensor<8x6x4xf32>) -> tensor<8x6x4xf32>
  func.return %4 : tensor<8x6x4xf32>
}

// -----

// Other weights than those that were masked are made 0: the rest of a row sums to less than 1.
// CHECK-LABEL: func.func @dropped
// CHECK-NOT:     forge.attention
func.func @dropped(%q : tensor<8x6x4xf32>, %k : tensor<8x4x6xf32>, %v : tensor<8x6x4xf32>, %m : tensor<8x6x6xi1>) -> tensor<8x6x4xf32> {
  %0 = forge.matmul %q, %k : (tensor<8x6x4xf32>, tensor<8x4x6xf32>) -> tensor<8x6x6xf32>
  %1 = forge.softmax %0 dim 2 : (tensor<8x6x6xf32>) -> tensor<8x6x6xf32>
  %2 = forge.masked_fill %1, %m with 0.0 : (tensor<8x6x6xf32>, tensor<8x6x6xi1>) -> tensor<8x6x6xf32>
  %3 = forge.matmul %2, %v : (tensor<8x6x6xf32>, tensor<8x6x4xf32>) -> tensor<8x6x4xf32>
  func.return %3 : tensor<8x6x4xf32>
}

// -----

// -1e9 in the place of scores masks as the least finite number does.
// CHECK-LABEL: func.func @filled
// CHECK:         forge.attention {{.*}} mask %{{.*}} scale 1.0 empty_row "uniform" :
func.func @filled(%q : tensor<8x6x4xf32>, %k : tensor<8x4x6xf32>, %v : tensor<8x6x4xf32>, %m : tensor<8x6x6xi1>) -> tensor<8x6x4xf32> {
  %0 = forge.matmul %q, %k : (tensor<8x6x4xf32>, tensor<8x4x6xf32>) -> tensor<8x6x6xf32>
  %1 = forge.masked_fill %0, %m with -1.0e+09 : (tensor<8x6x6xf32>, tensor<8x6x6xi1>) -> tensor<8x6x6xf32>
  %2 = forge.softmax %1 dim 2 : (tensor<8x6x6xf32>) -> tensor<8x6x6xf32>
  %3 = forge.matmul %2, %v : (tensor<8x6x6xf32>, tensor<8x6x4xf32>) -> tensor<8x6x4xf32>
  func.return %3 : tensor<8x6x4xf32>
}

// -----

// With more added to it, -1e9 is not all that is left of a row that is masked as a whole: it stays a number in the
// place of scores.
// CHECK-LABEL: func.func @filled_before_a_bias
// CHECK:         %[[F:.*]] = forge.where %m
// CHECK-NEXT:    %[[B:.*]] = forge.add %[[F]], %b
// CHECK-NEXT:    forge.attention %q, %{{.*}}, %v mask %[[B]] replaced %m scale 1.0 empty_row "nan"
func.func @filled_before_a_bias(%q : tensor<8x6x4xf32>, %k : tensor<8x4x6xf32>, %v : tensor<8x6x4xf32>, %m : tensor<8x6x6xi1>, %b : tensor<6x6xf32>) -> tensor<8x6x4xf32> {
  %0 = forge.matmul %q, %k : (tensor<8x6x4xf32>, tensor<8x4x6xf32>) -> tensor<8x6x6xf32>
  %1 = forge.masked_fill %0, %m with -1.0e+09 : (tensor<8x6x6xf32>, tensor<8x6x6xi1>) -> tensor<8x6x6xf32>
  %2 = forge.add %1, %b : (tensor<8x6x6xf32>, tensor<6x6xf32>) -> tensor<8x6x6xf32>
  %3 = forge.softmax %2 dim 2 : (tensor<8x6x6xf32>) -> tensor<8x6x6xf32>
  %4 = forge.matmul %3, %v : (tensor<8x6x6xf32>, tensor<8x6x4xf32>) -> tensor<8x6x4xf32>
  func.return %4 : tensor<8x6x4xf32>
}

// -----

// Scores that something else reads are computed anyway.
// CHECK-LABEL: func.func @scores_used
// CHECK-NOT:     forge.attention
func.func @scores_used(%q : tensor<8x6x4xf32>, %k : tensor<8x4x6xf32>, %v : tensor<8x6x4xf32>) -> (tensor<8x6x4xf32>, tensor<8x6x6xf32>) {
  %0 = forge.matmul %q, %k : (tensor<8x6x4xf32>, tensor<8x4x6xf32>) -> tensor<8x6x6xf32>
  %1 = forge.softmax %0 dim 2 : (tensor<8x6x6xf32>) -> tensor<8x6x6xf32>
  %2 = forge.matmul %1, %v : (tensor<8x6x6xf32>, tensor<8x6x4xf32>) -> tensor<8x6x4xf32>
  func.return %2, %0 : tensor<8x6x4xf32>, tensor<8x6x6xf32>
}

// -----

// Masked twice with one finite number, in whatever dtype: a row of which nothing is kept is the mean.
// CHECK-LABEL: func.func @filled_twice
// CHECK:         %[[M:.*]] = forge.logical_and
// CHECK-NEXT:    forge.attention %q, %{{.*}}, %v mask %[[M]] scale 1.0 empty_row "uniform" softmax_dtype "f16" :
func.func @filled_twice(%q : tensor<4x9x8xf16>, %kt : tensor<4x8x9xf16>, %v : tensor<4x9x8xf16>, %m : tensor<9x9xi1>, %n : tensor<4x1x9xi1>) -> tensor<4x9x8xf16> {
  %0 = forge.matmul %q, %kt : (tensor<4x9x8xf16>, tensor<4x8x9xf16>) -> tensor<4x9x9xf16>
  %1 = forge.masked_fill %0, %m with -65504.0 : (tensor<4x9x9xf16>, tensor<9x9xi1>) -> tensor<4x9x9xf16>
  %2 = forge.masked_fill %1, %n with -65504.0 : (tensor<4x9x9xf16>, tensor<4x1x9xi1>) -> tensor<4x9x9xf16>
  %3 = forge.softmax %2 dim 2 : (tensor<4x9x9xf16>) -> tensor<4x9x9xf16>
  %4 = forge.matmul %3, %v : (tensor<4x9x9xf16>, tensor<4x9x8xf16>) -> tensor<4x9x8xf16>
  func.return %4 : tensor<4x9x8xf16>
}

// -----

// The least number, multiplied, is -inf.
// CHECK-LABEL: func.func @overflows
// CHECK:         forge.attention {{.*}} mask %{{.*}} scale 8.0 empty_row "nan" :
func.func @overflows(%q : tensor<4x9x8xf32>, %kt : tensor<4x8x9xf32>, %v : tensor<4x9x8xf32>, %m : tensor<9x9xi1>) -> tensor<4x9x8xf32> {
  %0 = forge.matmul %q, %kt : (tensor<4x9x8xf32>, tensor<4x8x9xf32>) -> tensor<4x9x9xf32>
  %1 = forge.masked_fill %0, %m with -3.4028234663852886e+38 : (tensor<4x9x9xf32>, tensor<9x9xi1>) -> tensor<4x9x9xf32>
  %2 = forge.mul %1, 8.0 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %3 = forge.softmax %2 dim 2 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %4 = forge.matmul %3, %v : (tensor<4x9x9xf32>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  func.return %4 : tensor<4x9x8xf32>
}

// -----

// A maximum of other rows is no shift; one that is capped afterwards changes weights; a mask added in float16 does not
// swallow the scores of a row that keeps nothing.
// CHECK-LABEL: func.func @other_numbers
// CHECK-NOT:     forge.attention
// CHECK:         func.return
func.func @other_numbers(%q : tensor<4x9x8xf32>, %kt : tensor<4x8x9xf32>, %v : tensor<4x9x8xf32>, %hq : tensor<4x9x8xf16>, %hkt : tensor<4x8x9xf16>, %p : tensor<4x1x9xi1>) -> (tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf16>) {
  %0 = forge.matmul %q, %kt : (tensor<4x9x8xf32>, tensor<4x8x9xf32>) -> tensor<4x9x9xf32>
  %1 = forge.amax %0 over [2] : (tensor<4x9x9xf32>) -> tensor<4x9xf32>
  %2 = forge.reshape %1 : (tensor<4x9xf32>) -> tensor<4x1x9xf32>
  %3 = forge.sub %0, %2 : (tensor<4x9x9xf32>, tensor<4x1x9xf32>) -> tensor<4x9x9xf32>
  %4 = forge.softmax %3 dim 2 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %5 = forge.matmul %4, %v : (tensor<4x9x9xf32>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  %6 = forge.reshape %1 : (tensor<4x9xf32>) -> tensor<4x9x1xf32>
  %7 = forge.sub %0, %6 : (tensor<4x9x9xf32>, tensor<4x9x1xf32>) -> tensor<4x9x9xf32>
  %8 = forge.tanh %7 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %9 = forge.softmax %8 dim 2 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %10 = forge.matmul %9, %v : (tensor<4x9x9xf32>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  %zero = forge.full 0.0 : tensor<f16>
  %least = forge.full -65504.0 : tensor<f16>
  %11 = forge.where %p, %zero, %least : (tensor<4x1x9xi1>, tensor<f16>, tensor<f16>) -> tensor<4x1x9xf16>
  %12 = forge.matmul %hq, %hkt : (tensor<4x9x8xf16>, tensor<4x8x9xf16>) -> tensor<4x9x9xf16>
  %13 = forge.add %12, %11 : (tensor<4x9x9xf16>, tensor<4x1x9xf16>) -> tensor<4x9x9xf16>
  %14 = forge.softmax %13 dim 2 : (tensor<4x9x9xf16>) -> tensor<4x9x9xf16>
  %15 = forge.matmul %14, %hq : (tensor<4x9x9xf16>, tensor<4x9x8xf16>) -> tensor<4x9x8xf16>
  func.return %5, %10, %15 : tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf16>
}

// -----

// The column of sinks is the first one, and dropped; of one number, it is that of each head.
// CHECK-LABEL: func.func @sinks_first
// CHECK:         %[[S:.*]] = forge.reshape %s
// CHECK:         forge.attention {{.*}} sinks %[[S]]
// CHECK:         %[[Z:.*]] = forge.full 0.0 : tensor<4xf32>
// CHECK-NEXT:    forge.attention {{.*}} sinks %[[Z]]
// CHECK-NOT:     forge.softmax
func.func @sinks_first(%q : tensor<4x9x8xf32>, %kt : tensor<4x8x9xf32>, %v : tensor<4x9x8xf32>, %s : tensor<4x1x1xf32>) -> (tensor<4x9x8xf32>, tensor<4x9x8xf32>) {
  %0 = forge.matmul %q, %kt : (tensor<4x9x8xf32>, tensor<4x8x9xf32>) -> tensor<4x9x9xf32>
  %1 = forge.broadcast %s : (tensor<4x1x1xf32>) -> tensor<4x9x1xf32>
  %2 = forge.concat %1, %0 dim 2 : (tensor<4x9x1xf32>, tensor<4x9x9xf32>) -> tensor<4x9x10xf32>
  %3 = forge.softmax %2 dim 2 : (tensor<4x9x10xf32>) -> tensor<4x9x10xf32>
  %4 = forge.slice %3 dim 2 from 1 step 1 : (tensor<4x9x10xf32>) -> tensor<4x9x9xf32, #forge.tensor<[], strides = [90, 10, 1]>>
  %5 = forge.matmul %4, %v : (tensor<4x9x9xf32, #forge.tensor<[], strides = [90, 10, 1]>>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  %6 = forge.matmul %q, %kt : (tensor<4x9x8xf32>, tensor<4x8x9xf32>) -> tensor<4x9x9xf32>
  %7 = forge.pad %6 mode "constant" low [0, 0, 0] high [0, 0, 1] value 0 : (tensor<4x9x9xf32>) -> tensor<4x9x10xf32>
  %8 = forge.softmax %7 dim 2 : (tensor<4x9x10xf32>) -> tensor<4x9x10xf32>
  %9 = forge.slice %8 dim 2 from 0 step 1 : (tensor<4x9x10xf32>) -> tensor<4x9x9xf32, #forge.tensor<[], strides = [90, 10, 1]>>
  %10 = forge.matmul %9, %v : (tensor<4x9x9xf32, #forge.tensor<[], strides = [90, 10, 1]>>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  func.return %5, %10 : tensor<4x9x8xf32>, tensor<4x9x8xf32>
}

// -----

// Factors of rows multiply the result, those of columns the value.
// CHECK-LABEL: func.func @weighted
// CHECK:         %[[R:.*]] = forge.transpose %columns [0, 2, 1]
// CHECK-NEXT:    %[[V:.*]] = forge.mul %v, %[[R]]
// CHECK-NEXT:    %[[A:.*]] = forge.attention %q, %{{.*}}, %[[V]] scale 1.0
// CHECK-NEXT:    %[[H:.*]] = forge.mul %[[A]], 0.5
// CHECK-NEXT:    forge.div %[[H]], %heads
func.func @weighted(%q : tensor<4x9x8xf32>, %kt : tensor<4x8x9xf32>, %v : tensor<4x9x8xf32>, %heads : tensor<4x1x1xf32>, %columns : tensor<4x1x9xf32>) -> tensor<4x9x8xf32> {
  %0 = forge.matmul %q, %kt : (tensor<4x9x8xf32>, tensor<4x8x9xf32>) -> tensor<4x9x9xf32>
  %1 = forge.softmax %0 dim 2 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %2 = forge.mul %1, 0.5 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %3 = forge.div %2, %heads : (tensor<4x9x9xf32>, tensor<4x1x1xf32>) -> tensor<4x9x9xf32>
  %4 = forge.mul %3, %columns : (tensor<4x9x9xf32>, tensor<4x1x9xf32>) -> tensor<4x9x9xf32>
  %5 = forge.matmul %4, %v : (tensor<4x9x9xf32>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  func.return %5 : tensor<4x9x8xf32>
}

// -----

// -1e4 in the place of scores, by arithmetic: scores may be lower, so it is a bias in their place.
// CHECK-LABEL: func.func @replaced
// CHECK:         %[[KEPT:.*]] = forge.ne %{{.*}}, 0
// CHECK-NEXT:    %[[GONE:.*]] = forge.logical_not %[[KEPT]]
// CHECK:         %[[M:.*]] = forge.where %{{.*}}, %{{.*}}, %{{.*}} : (tensor<9x9xi1>, tensor<f32>, tensor<f32>) -> tensor<9x9xf32>
// CHECK-NEXT:    forge.attention %q, %{{.*}}, %v mask %[[M]] replaced %[[GONE]] scale 1.0 empty_row "nan"
func.func @replaced(%q : tensor<4x9x8xf32>, %kt : tensor<4x8x9xf32>, %v : tensor<4x9x8xf32>, %m : tensor<9x9xi1>) -> tensor<4x9x8xf32> {
  %0 = forge.matmul %q, %kt : (tensor<4x9x8xf32>, tensor<4x8x9xf32>) -> tensor<4x9x9xf32>
  %b = forge.cast %m : (tensor<9x9xi1>) -> tensor<9x9xf32>
  %1 = forge.mul %0, %b : (tensor<4x9x9xf32>, tensor<9x9xf32>) -> tensor<4x9x9xf32>
  %c = forge.rsub %b, 1.0 : (tensor<9x9xf32>) -> tensor<9x9xf32>
  %d = forge.mul %c, -10000.0 : (tensor<9x9xf32>) -> tensor<9x9xf32>
  %2 = forge.add %1, %d : (tensor<4x9x9xf32>, tensor<9x9xf32>) -> tensor<4x9x9xf32>
  %3 = forge.softmax %2 dim 2 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %4 = forge.matmul %3, %v : (tensor<4x9x9xf32>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  func.return %4 : tensor<4x9x8xf32>
}

// -----

// The other column is dropped; weights are multiplied by a tensor that is no mask; a mask after the softmax alone.
// CHECK-LABEL: func.func @other_weights
// CHECK-NOT:     forge.attention
// CHECK:         func.return
func.func @other_weights(%q : tensor<4x9x8xf32>, %kt : tensor<4x8x9xf32>, %v : tensor<4x9x8xf32>, %s : tensor<4x9x1xf32>, %w : tensor<4x9x9xf32>, %m : tensor<9x9xi1>) -> (tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf32>) {
  %0 = forge.matmul %q, %kt : (tensor<4x9x8xf32>, tensor<4x8x9xf32>) -> tensor<4x9x9xf32>
  %1 = forge.concat %s, %0 dim 2 : (tensor<4x9x1xf32>, tensor<4x9x9xf32>) -> tensor<4x9x10xf32>
  %2 = forge.softmax %1 dim 2 : (tensor<4x9x10xf32>) -> tensor<4x9x10xf32>
  %3 = forge.slice %2 dim 2 from 0 step 1 : (tensor<4x9x10xf32>) -> tensor<4x9x9xf32, #forge.tensor<[], strides = [90, 10, 1]>>
  %4 = forge.matmul %3, %v : (tensor<4x9x9xf32, #forge.tensor<[], strides = [90, 10, 1]>>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  %5 = forge.matmul %q, %kt : (tensor<4x9x8xf32>, tensor<4x8x9xf32>) -> tensor<4x9x9xf32>
  %6 = forge.softmax %5 dim 2 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %7 = forge.mul %6, %w : (tensor<4x9x9xf32>, tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %8 = forge.matmul %7, %v : (tensor<4x9x9xf32>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  %9 = forge.matmul %q, %kt : (tensor<4x9x8xf32>, tensor<4x8x9xf32>) -> tensor<4x9x9xf32>
  %10 = forge.softmax %9 dim 2 : (tensor<4x9x9xf32>) -> tensor<4x9x9xf32>
  %b = forge.cast %m : (tensor<9x9xi1>) -> tensor<9x9xf32>
  %11 = forge.mul %10, %b : (tensor<4x9x9xf32>, tensor<9x9xf32>) -> tensor<4x9x9xf32>
  %12 = forge.matmul %11, %v : (tensor<4x9x9xf32>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  func.return %4, %8, %12 : tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf32>
}
