// RUN: forgec opt %s -p 'materialize-masks' --split-input-file | filecheck %s

// One mask for both, and none where torch's own causal attention does.
// CHECK-LABEL: func.func @shared
// CHECK-NEXT:    %[[P:.*]] = forge.reshape %p : (tensor<2x9xi1>) -> tensor<2x1x1x9xi1>
// CHECK-NEXT:    forge.full
// CHECK-NEXT:    forge.full
// CHECK-NEXT:    %[[M:.*]] = forge.where %[[P]]
// CHECK-NEXT:    %[[N:.*]] = forge.ne %[[M]], -inf
// CHECK-NEXT:    %[[S:.*]] = forge.any %[[N]] over [3] keepdim
// CHECK-NEXT:    %[[R:.*]] = forge.any %[[P]] over [2] keepdim
// CHECK-NEXT:    %[[U:.*]] = forge.logical_not %[[R]]
// CHECK-NEXT:    %[[T:.*]] = forge.transpose %[[U]] [0, 1, 3, 2] : {{.*}} -> tensor<2x1x9x1xi1>
// CHECK-NEXT:    %[[K:.*]] = forge.masked_fill %k, %[[T]] with 0.0
// CHECK-NEXT:    %[[V:.*]] = forge.masked_fill %v, %[[T]] with 0.0
// CHECK-NEXT:    %[[A:.*]] = forge.attention %q, %[[K]], %[[V]] mask %[[M]] :
// CHECK-NEXT:    %[[E:.*]] = forge.mean %v over [2] keepdim : {{.*}} -> tensor<2x4x1x8xf32>
// CHECK-NEXT:    %[[C:.*]] = forge.where %[[S]], %[[A]], %[[E]]
// CHECK-NOT:     forge.any
// CHECK:         forge.attention %[[C]], %{{.*}}, %{{.*}} mask %[[M]] :
// CHECK:         %[[B:.*]] = forge.where %[[S]]
// CHECK-NEXT:    forge.attention %[[B]], %k, %v causal :
func.func @shared(%q : tensor<2x4x9x8xf32>, %k : tensor<2x4x9x8xf32>, %v : tensor<2x4x9x8xf32>, %p : tensor<2x9xi1>) -> tensor<2x4x9x8xf32> {
  %0 = forge.attention %q, %k, %v keys %p empty_row "uniform" : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x9xi1>) -> tensor<2x4x9x8xf32>
  %1 = forge.attention %0, %k, %v keys %p empty_row "uniform" : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x9xi1>) -> tensor<2x4x9x8xf32>
  %2 = forge.attention %1, %k, %v causal : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>) -> tensor<2x4x9x8xf32>
  func.return %2 : tensor<2x4x9x8xf32>
}

// -----

// Booleans where an empty row is 0, and where the op is decomposed anyway; the query's scale is a product.
// CHECK-LABEL: func.func @booleans
// CHECK-NEXT:    %[[K:.*]] = forge.constant {{.*}} : tensor<9x9xi1>
// CHECK-NEXT:    forge.attention %q, %k, %v mask %[[K]] :
// CHECK-NEXT:    forge.attention %q, %k, %v mask %[[K]] softcap 5.0 empty_row "uniform" :
// CHECK-NEXT:    %[[Q:.*]] = forge.mul %q, 0.5
// CHECK-NEXT:    forge.attention %[[Q]], %k, %v scale 1.0 :
func.func @booleans(%q : tensor<4x9x8xf32>, %k : tensor<4x9x8xf32>, %v : tensor<4x9x8xf32>) -> (tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf32>) {
  %0 = forge.attention %q, %k, %v causal window 3 : (tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  %1 = forge.attention %q, %k, %v softcap 5.0 causal window 3 empty_row "uniform" : (tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  %2 = forge.attention %q, %k, %v query_scale 0.5 scale 1.0 : (tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf32>) -> tensor<4x9x8xf32>
  func.return %0, %1, %2 : tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf32>
}

// -----

// DOC: a causal bias, for a kernel that takes one mask.
// A bias of -inf counts as masked, where an empty row is uniform.
// CHECK-LABEL: func.func @bias
// CHECK:         %[[M:.*]] = forge.where %{{.*}}, %b, %{{.*}} :
// CHECK-NEXT:    %[[N:.*]] = forge.ne %[[M]], -inf
// CHECK-NEXT:    %[[S:.*]] = forge.any %[[N]] over [2] keepdim
// CHECK-NEXT:    %[[A:.*]] = forge.attention %q, %k, %v mask %[[M]] :
// CHECK-NEXT:    %[[E:.*]] = forge.mean %v over [1] keepdim
// CHECK-NEXT:    forge.where %[[S]], %[[A]], %[[E]]
func.func @bias(%q : tensor<4x9x8xf32>, %k : tensor<4x9x8xf32>, %v : tensor<4x9x8xf32>, %b : tensor<4x9x9xf32>) -> tensor<4x9x8xf32> {
  %0 = forge.attention %q, %k, %v mask %b causal empty_row "uniform" : (tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x9xf32>) -> tensor<4x9x8xf32>
  func.return %0 : tensor<4x9x8xf32>
}

// -----

// Extents that only the run tells: the mask is computed.
// CHECK-LABEL: func.func @computed
// CHECK:         %[[W:.*]] = forge.lt
// CHECK:         %[[K:.*]] = forge.logical_and %{{.*}}, %[[W]]
// CHECK-NEXT:    forge.attention %q, %q, %q mask %[[K]] :
func.func @computed(%q : tensor<4x?x8xf32, #forge.tensor<[s0]>>) -> tensor<4x?x8xf32, #forge.tensor<[s0]>> {
  %0 = forge.attention %q, %q, %q causal window 3 : (tensor<4x?x8xf32, #forge.tensor<[s0]>>, tensor<4x?x8xf32, #forge.tensor<[s0]>>, tensor<4x?x8xf32, #forge.tensor<[s0]>>) -> tensor<4x?x8xf32, #forge.tensor<[s0]>>
  func.return %0 : tensor<4x?x8xf32, #forge.tensor<[s0]>>
}

// -----

// Masks that ATen does not take get rows, and a dtype that it adds.
// CHECK-LABEL: func.func @unusual
// CHECK-NEXT:    %[[R:.*]] = forge.reshape %m : (tensor<9xf32>) -> tensor<1x9xf32>
// CHECK-NEXT:    %[[A:.*]] = forge.attention %q, %k, %v mask %[[R]]
// CHECK-NEXT:    %[[W:.*]] = forge.cast %n : (tensor<9x9xf16>) -> tensor<9x9xf32>
// CHECK-NEXT:    forge.attention %[[A]], %k, %v mask %[[W]]
func.func @unusual(%q : tensor<4x9x8xf32>, %k : tensor<4x9x8xf32>, %v : tensor<4x9x8xf32>, %m : tensor<9xf32>, %n : tensor<9x9xf16>) -> tensor<4x9x8xf32> {
  %0 = forge.attention %q, %k, %v mask %m : (tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<9xf32>) -> tensor<4x9x8xf32>
  %1 = forge.attention %0, %k, %v mask %n : (tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<4x9x8xf32>, tensor<9x9xf16>) -> tensor<4x9x8xf32>
  func.return %1 : tensor<4x9x8xf32>
}

// -----

// Where an empty row is NaN, the mask is: once for all that share it. The mean of float16 is like that of float32.
// CHECK-LABEL: func.func @other_empty_rows
// CHECK:         %[[M:.*]] = forge.where
// CHECK:         %[[ANY:.*]] = forge.any %{{.*}} over [3] keepdim
// CHECK:         %[[N:.*]] = forge.where %[[ANY]], %[[M]], %{{.*}} :
// CHECK:         forge.attention %q, %{{.*}}, %{{.*}} mask %[[N]] :
// CHECK:         forge.attention %q, %{{.*}}, %{{.*}} mask %[[N]] :
// CHECK-NEXT:    forge.attention %q, %k, %v causal empty_row "nan" :
// CHECK:         %[[H:.*]] = forge.attention %h, %{{.*}}, %{{.*}} mask %{{.*}} :
// CHECK-NEXT:    %[[E:.*]] = forge.mean %h over [2] keepdim
// CHECK-NEXT:    forge.where %{{.*}}, %[[H]], %[[E]]
func.func @other_empty_rows(%q : tensor<2x4x9x8xf32>, %k : tensor<2x4x9x8xf32>, %v : tensor<2x4x9x8xf32>, %p : tensor<2x9xi1>, %h : tensor<2x4x9x8xf16>) -> (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf16>) {
  %0 = forge.attention %q, %k, %v keys %p empty_row "nan" : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x9xi1>) -> tensor<2x4x9x8xf32>
  %1 = forge.attention %q, %k, %v keys %p empty_row "nan" : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x9xi1>) -> tensor<2x4x9x8xf32>
  %2 = forge.attention %q, %k, %v causal empty_row "nan" : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>) -> tensor<2x4x9x8xf32>
  %3 = forge.attention %h, %h, %h keys %p empty_row "uniform" : (tensor<2x4x9x8xf16>, tensor<2x4x9x8xf16>, tensor<2x4x9x8xf16>, tensor<2x9xi1>) -> tensor<2x4x9x8xf16>
  func.return %0, %1, %2, %3 : tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf16>
}

// -----

// A prefix joins what positions keep; what stands in the place of scores stays.
// CHECK-LABEL: func.func @prefix
// CHECK:         %[[P:.*]] = forge.reshape %p : (tensor<2x9xi1>) -> tensor<2x1x1x9xi1>
// CHECK-NEXT:    %[[K:.*]] = forge.logical_or %{{.*}}, %[[P]]
// CHECK:         forge.attention %q, %{{.*}}, %{{.*}} mask %[[K]] :
// CHECK:         forge.attention %q, %q, %q mask %b replaced %r empty_row "nan" :
func.func @prefix(%q : tensor<2x4x9x8xf32>, %p : tensor<2x9xi1>, %b : tensor<9x9xf32>, %r : tensor<9x9xi1>) -> (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>) {
  %0 = forge.attention %q, %q, %q prefix %p causal : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x9xi1>) -> tensor<2x4x9x8xf32>
  %1 = forge.attention %q, %q, %q mask %b replaced %r empty_row "nan" : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<9x9xf32>, tensor<9x9xi1>) -> tensor<2x4x9x8xf32>
  func.return %0, %1 : tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>
}
