// RUN: forgec opt %s -p merge-linears --split-input-file | filecheck %s

// CHECK:      forge.param @"layers.0.wq+wk.weight" : tensor<12x8xf32> = {
// CHECK-NEXT:   %[[Q:.*]] = forge.param_ref @layers.0.wq.weight
// CHECK-NEXT:   %[[K:.*]] = forge.param_ref @layers.0.wk.weight
// CHECK-NEXT:   %[[C:.*]] = forge.concat %[[Q]], %[[K]] dim 0
// CHECK-NEXT:   forge.yield %[[C]] : tensor<12x8xf32>
// CHECK:      forge.param @layers.0.wq.bias_ : tensor<12xf32> = {
// CHECK-NEXT:   %[[B:.*]] = forge.param_ref @layers.0.wq.bias
// CHECK-NEXT:   %[[Z:.*]] = forge.full 0.0 : tensor<4xf32>
// CHECK-NEXT:   forge.concat %[[B]], %[[Z]] dim 0
// CHECK-LABEL: func.func @forward
// CHECK:        %[[L:.*]] = forge.linear %x, %{{.*}} bias %{{.*}} -> tensor<9x12xf32>
// CHECK-NEXT:   %q = forge.slice %[[L]] dim 1 from 0 step 1 : (tensor<9x12xf32>) -> tensor<9x8xf32, #forge.tensor<[], strides = [12, 1]>>
// CHECK-NEXT:   forge.reshape %q : {{.*}} -> tensor<9x2x4xf32, #forge.tensor<[], strides = [12, 4, 1]>>
// CHECK:        %k = forge.slice %[[L]] dim 1 from 8 step 1 : (tensor<9x12xf32>) -> tensor<9x4xf32, #forge.tensor<[], strides = [12, 1]>>
// CHECK-NEXT:   forge.silu
forge.param @layers.0.wq.weight : tensor<8x8xf32>
forge.param @layers.0.wq.bias : tensor<8xf32>
forge.param @layers.0.wk.weight : tensor<4x8xf32>
func.func @forward(%x: tensor<9x8xf32>) -> (tensor<9x2x4xf32>, tensor<9x4xf32>) {
  %wq = forge.param_ref @layers.0.wq.weight : tensor<8x8xf32>
  %bq = forge.param_ref @layers.0.wq.bias : tensor<8xf32>
  %wk = forge.param_ref @layers.0.wk.weight : tensor<4x8xf32>
  %q = forge.linear %x, %wq bias %bq : (tensor<9x8xf32>, tensor<8x8xf32>, tensor<8xf32>) -> tensor<9x8xf32>
  %h = forge.reshape %q : (tensor<9x8xf32>) -> tensor<9x2x4xf32>
  %n = forge.neg %h : (tensor<9x2x4xf32>) -> tensor<9x2x4xf32>
  %k = forge.linear %x, %wk : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %s = forge.silu %k : (tensor<9x4xf32>) -> tensor<9x4xf32>
  func.return %n, %s : tensor<9x2x4xf32>, tensor<9x4xf32>
}

// -----

// Results that leave the function keep their layout; a weight that something else reads stays on its own.
// CHECK-LABEL: func.func @forward
// CHECK-NEXT:    %w0 = forge.param_ref @w0
// CHECK-NEXT:    %w1 = forge.param_ref @w1
// CHECK-NEXT:    forge.linear %x, %w0
// CHECK-NEXT:    forge.linear %x, %w1
// CHECK-NEXT:    forge.neg %w1
forge.param @w0 : tensor<4x8xf32>
forge.param @w1 : tensor<4x8xf32>
func.func @forward(%x: tensor<9x8xf32>) -> (tensor<9x4xf32>, tensor<9x4xf32>, tensor<4x8xf32>) {
  %w0 = forge.param_ref @w0 : tensor<4x8xf32>
  %w1 = forge.param_ref @w1 : tensor<4x8xf32>
  %a = forge.linear %x, %w0 : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %b = forge.linear %x, %w1 : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %c = forge.neg %w1 : (tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %a, %b, %c : tensor<9x4xf32>, tensor<9x4xf32>, tensor<4x8xf32>
}

// -----

// DOC: two projections of one value.
// What is returned gets a copy in the layout that the caller sees.
// CHECK-LABEL: func.func @returned
// CHECK:         %[[A:.*]] = forge.slice
// CHECK-NEXT:    %[[C:.*]] = forge.copy %[[A]] : (tensor<9x4xf32, #forge.tensor<[], strides = [8, 1]>>) -> tensor<9x4xf32>
// CHECK:         func.return %[[C]]
forge.param @w0 : tensor<4x8xf32>
forge.param @w1 : tensor<4x8xf32>
func.func @returned(%x: tensor<9x8xf32>) -> (tensor<9x4xf32>, tensor<9x4xf32>) {
  %w0 = forge.param_ref @w0 : tensor<4x8xf32>
  %w1 = forge.param_ref @w1 : tensor<4x8xf32>
  %a = forge.linear %x, %w0 : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %b = forge.linear %x, %w1 : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %d = forge.neg %b : (tensor<9x4xf32>) -> tensor<9x4xf32>
  func.return %a, %d : tensor<9x4xf32>, tensor<9x4xf32>
}

// -----

// In a layer, calls pass one weight instead of two; a weight that all calls share is one parameter.
// CHECK:       forge.param @"layers.0.wq+wk" : tensor<12x8xf32> = {
// CHECK:       forge.param @"layers.1.wq+wk" : tensor<12x8xf32> = {
// CHECK:       forge.param @"g+u" : tensor<8x4xf32> = {
// CHECK-NOT:   forge.param @
// CHECK-LABEL: func.func @forward
// CHECK:         %[[A:.*]] = forge.param_ref @"layers.0.wq+wk"
// CHECK-NEXT:    %[[S:.*]] = forge.param_ref @"g+u"
// CHECK-NEXT:    %[[Y:.*]] = func.call @layers(%x, %[[A]], %[[S]])
// CHECK-NEXT:    %[[B:.*]] = forge.param_ref @"layers.1.wq+wk"
// CHECK-NEXT:    func.call @layers(%[[Y]], %[[B]], %[[S]])
// CHECK-LABEL: func.func private @layers
// CHECK:         forge.linear %a, %{{.*}} -> tensor<9x12xf32>
// CHECK:         forge.linear %{{.*}}, %{{.*}} -> tensor<9x8xf32>
forge.param @layers.0.wq : tensor<8x8xf32>
forge.param @layers.0.wk : tensor<4x8xf32>
forge.param @layers.1.wq : tensor<8x8xf32>
forge.param @layers.1.wk : tensor<4x8xf32>
forge.param @g : tensor<4x4xf32>
forge.param @u : tensor<4x4xf32>
func.func @forward(%x: tensor<9x8xf32>) -> tensor<9x8xf32> {
  %q0 = forge.param_ref @layers.0.wq : tensor<8x8xf32>
  %k0 = forge.param_ref @layers.0.wk : tensor<4x8xf32>
  %q1 = forge.param_ref @layers.1.wq : tensor<8x8xf32>
  %k1 = forge.param_ref @layers.1.wk : tensor<4x8xf32>
  %g = forge.param_ref @g : tensor<4x4xf32>
  %u = forge.param_ref @u : tensor<4x4xf32>
  %0 = func.call @layers(%x, %q0, %k0, %g, %u) : (tensor<9x8xf32>, tensor<8x8xf32>, tensor<4x8xf32>, tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<9x8xf32>
  %1 = func.call @layers(%0, %q1, %k1, %g, %u) : (tensor<9x8xf32>, tensor<8x8xf32>, tensor<4x8xf32>, tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<9x8xf32>
  func.return %1 : tensor<9x8xf32>
}
func.func private @layers(%a: tensor<9x8xf32>, %wq: tensor<8x8xf32>, %wk: tensor<4x8xf32>, %g: tensor<4x4xf32>, %u: tensor<4x4xf32>) -> tensor<9x8xf32> attributes {forge.layer} {
  %q = forge.linear %a, %wq : (tensor<9x8xf32>, tensor<8x8xf32>) -> tensor<9x8xf32>
  %k = forge.linear %a, %wk : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %s = forge.silu %k : (tensor<9x4xf32>) -> tensor<9x4xf32>
  %c = forge.linear %s, %g : (tensor<9x4xf32>, tensor<4x4xf32>) -> tensor<9x4xf32>
  %d = forge.linear %s, %u : (tensor<9x4xf32>, tensor<4x4xf32>) -> tensor<9x4xf32>
  %e = forge.concat %c, %d dim 1 : (tensor<9x4xf32>, tensor<9x4xf32>) -> tensor<9x8xf32>
  %y = forge.add %q, %e : (tensor<9x8xf32>, tensor<9x8xf32>) -> tensor<9x8xf32>
  func.return %y : tensor<9x8xf32>
}

// -----

// Calls that share one weight, but not the other, would hold it twice; results that share memory keep sharing it.
// CHECK:       forge.param @p
// CHECK-NOT:   forge.concat
forge.param @w : tensor<4x8xf32>
forge.param @p : tensor<4x8xf32>
forge.param @r : tensor<4x8xf32>
func.func @forward(%x: tensor<9x8xf32>) -> (tensor<9x4xf32>, tensor<36xf32>, tensor<9x4xf32>, tensor<9x4xf32>) {
  %w = forge.param_ref @w : tensor<4x8xf32>
  %p = forge.param_ref @p : tensor<4x8xf32>
  %r = forge.param_ref @r : tensor<4x8xf32>
  %0 = func.call @layers(%x, %w, %p) : (tensor<9x8xf32>, tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %1 = func.call @layers(%x, %w, %r) : (tensor<9x8xf32>, tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %n = forge.neg %x : (tensor<9x8xf32>) -> tensor<9x8xf32>
  %2 = func.call @more(%n) : (tensor<9x8xf32>) -> tensor<9x4xf32>
  %a, %b = func.call @shared(%x) : (tensor<9x8xf32>) -> (tensor<9x4xf32>, tensor<36xf32>)
  func.return %a, %b, %0, %1 : tensor<9x4xf32>, tensor<36xf32>, tensor<9x4xf32>, tensor<9x4xf32>
}
func.func private @layers(%a: tensor<9x8xf32>, %u: tensor<4x8xf32>, %v: tensor<4x8xf32>) -> tensor<9x4xf32> attributes {forge.layer} {
  %q = forge.linear %a, %u : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %k = forge.linear %a, %v : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %y = forge.mul %q, %k : (tensor<9x4xf32>, tensor<9x4xf32>) -> tensor<9x4xf32>
  func.return %y : tensor<9x4xf32>
}
forge.param @m : tensor<4x8xf32>
func.func private @more(%a: tensor<9x8xf32>) -> tensor<9x4xf32> {
  %u = forge.param_ref @m : tensor<4x8xf32>
  %q = forge.linear %a, %u : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  func.return %q : tensor<9x4xf32>
}
forge.param @s : tensor<4x8xf32>
forge.param @t : tensor<4x8xf32>
func.func private @shared(%a: tensor<9x8xf32>) -> (tensor<9x4xf32>, tensor<36xf32>) {
  %u = forge.param_ref @s : tensor<4x8xf32>
  %v = forge.param_ref @t : tensor<4x8xf32>
  %q = forge.linear %a, %u : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %k = forge.linear %a, %v : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %f = forge.reshape %q : (tensor<9x4xf32>) -> tensor<36xf32>
  func.return %q, %f : tensor<9x4xf32>, tensor<36xf32>
}

// -----

// Linears whose weights are quantised alike: scales are concatenated as well; another packing is another kind.
// CHECK:       forge.param @"wq+wk" : tensor<12x8xi8> = {
// CHECK:       forge.param @"sq+sk" : tensor<12x1xf32> = {
// CHECK-NEXT:    %[[S:.*]] = forge.param_ref @sq : tensor<8x1xf32>
// CHECK-NEXT:    %[[T:.*]] = forge.param_ref @sk : tensor<4xf32>
// CHECK-NEXT:    %[[R:.*]] = forge.reshape %[[T]] : (tensor<4xf32>) -> tensor<4x1xf32>
// CHECK-NEXT:    forge.concat %[[S]], %[[R]] dim 0
// CHECK-LABEL: func.func @quantized
// CHECK:         forge.linear %x, %{{.*}} scales %{{.*}} compute "f32" : (tensor<9x8xf32>, tensor<12x8xi8>, tensor<12x1xf32>) -> tensor<9x12xf32>
// CHECK:         forge.linear %x, %wv compute "f32" packing "u4"
forge.param @wq : tensor<8x8xi8>
forge.param @wk : tensor<4x8xi8>
forge.param @wv : tensor<4x4xi8>
forge.param @sq : tensor<8x1xf32>
forge.param @sk : tensor<4xf32>
func.func @quantized(%x: tensor<9x8xf32>) -> (tensor<9x8xf32>, tensor<9x4xf32>, tensor<9x4xf32>) {
  %wq = forge.param_ref @wq : tensor<8x8xi8>
  %wk = forge.param_ref @wk : tensor<4x8xi8>
  %wv = forge.param_ref @wv : tensor<4x4xi8>
  %sq = forge.param_ref @sq : tensor<8x1xf32>
  %sk = forge.param_ref @sk : tensor<4xf32>
  %s1 = forge.reshape %sk : (tensor<4xf32>) -> tensor<4x1xf32>
  %q = forge.linear %x, %wq scales %sq compute "f32" : (tensor<9x8xf32>, tensor<8x8xi8>, tensor<8x1xf32>) -> tensor<9x8xf32>
  %k = forge.linear %x, %wk scales %s1 compute "f32" : (tensor<9x8xf32>, tensor<4x8xi8>, tensor<4x1xf32>) -> tensor<9x4xf32>
  %v = forge.linear %x, %wv compute "f32" packing "u4" : (tensor<9x8xf32>, tensor<4x4xi8>) -> tensor<9x4xf32>
  func.return %q, %k, %v : tensor<9x8xf32>, tensor<9x4xf32>, tensor<9x4xf32>
}

// -----

// Scales that all rows of a weight share stay with it; one scale that two weights share becomes that of both.
// CHECK-LABEL: func.func @shared_scales
// CHECK:         %[[L:.*]] = forge.linear %x, %{{.*}} scales %s compute "f32" : (tensor<9x8xf32>, tensor<8x8xi8>, tensor<1x2xf32>) -> tensor<9x8xf32>
// CHECK:         forge.linear %x, %w2 scales %t compute "f32"
forge.param @w0 : tensor<4x8xi8>
forge.param @w1 : tensor<4x8xi8>
forge.param @w2 : tensor<4x8xi8>
forge.param @s : tensor<1x2xf32>
forge.param @t : tensor<1x2xf32>
func.func @shared_scales(%x: tensor<9x8xf32>) -> (tensor<9x4xf32>, tensor<9x4xf32>, tensor<9x4xf32>) {
  %w0 = forge.param_ref @w0 : tensor<4x8xi8>
  %w1 = forge.param_ref @w1 : tensor<4x8xi8>
  %w2 = forge.param_ref @w2 : tensor<4x8xi8>
  %s = forge.param_ref @s : tensor<1x2xf32>
  %t = forge.param_ref @t : tensor<1x2xf32>
  %a = forge.linear %x, %w0 scales %s compute "f32" : (tensor<9x8xf32>, tensor<4x8xi8>, tensor<1x2xf32>) -> tensor<9x4xf32>
  %b = forge.linear %x, %w1 scales %s compute "f32" : (tensor<9x8xf32>, tensor<4x8xi8>, tensor<1x2xf32>) -> tensor<9x4xf32>
  %c = forge.linear %x, %w2 scales %t compute "f32" : (tensor<9x8xf32>, tensor<4x8xi8>, tensor<1x2xf32>) -> tensor<9x4xf32>
  func.return %a, %b, %c : tensor<9x4xf32>, tensor<9x4xf32>, tensor<9x4xf32>
}

// -----

// A kernel's operand keeps its layout, by a copy.
// CHECK-LABEL: func.func @into_kernel
// CHECK:         %[[A:.*]] = forge.slice
// CHECK-NEXT:    %[[C:.*]] = forge.copy %[[A]] : (tensor<9x4xf32, #forge.tensor<[], strides = [8, 1]>>) -> tensor<9x4xf32>
// CHECK:         forge.fused "neg" (%{{.*}} = %[[C]] : tensor<9x4xf32>)
forge.param @w0 : tensor<4x8xf32>
forge.param @w1 : tensor<4x8xf32>
func.func @into_kernel(%x: tensor<9x8xf32>) -> (tensor<9x4xf32>, tensor<9x4xf32>) {
  %w0 = forge.param_ref @w0 : tensor<4x8xf32>
  %w1 = forge.param_ref @w1 : tensor<4x8xf32>
  %a = forge.linear %x, %w0 : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %b = forge.linear %x, %w1 : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %c = forge.fused "neg" (%i = %a : tensor<9x4xf32>) {
    %0 = forge.neg %i : (tensor<9x4xf32>) -> tensor<9x4xf32>
    %1 = forge.cos %0 : (tensor<9x4xf32>) -> tensor<9x4xf32>
    forge.yield %1 : tensor<9x4xf32>
  } : tensor<9x4xf32>
  %d = forge.neg %b : (tensor<9x4xf32>) -> tensor<9x4xf32>
  func.return %c, %d : tensor<9x4xf32>, tensor<9x4xf32>
}

// -----

// Only the last one has a bias, and more rows than the first: the others get zeros.
// CHECK:       forge.param @"q+f.weight" : tensor<12x8xf32> = {
// CHECK:       forge.param @f.bias_ : tensor<12xf32> = {
// CHECK:         %[[Z:.*]] = forge.full 0.0 : tensor<4xf32>
// CHECK-NEXT:    %[[B:.*]] = forge.param_ref @f.bias
// CHECK-NEXT:    forge.concat %[[Z]], %[[B]] dim 0
forge.param @q.weight : tensor<4x8xf32>
forge.param @f.weight : tensor<8x8xf32>
forge.param @f.bias : tensor<8xf32>
func.func @late_bias(%x: tensor<9x8xf32>) -> (tensor<9x4xf32>, tensor<9x8xf32>) {
  %q = forge.param_ref @q.weight : tensor<4x8xf32>
  %f = forge.param_ref @f.weight : tensor<8x8xf32>
  %b = forge.param_ref @f.bias : tensor<8xf32>
  %0 = forge.linear %x, %q : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
  %1 = forge.linear %x, %f bias %b : (tensor<9x8xf32>, tensor<8x8xf32>, tensor<8xf32>) -> tensor<9x8xf32>
  %2 = forge.neg %0 : (tensor<9x4xf32>) -> tensor<9x4xf32>
  %3 = forge.neg %1 : (tensor<9x8xf32>) -> tensor<9x8xf32>
  func.return %2, %3 : tensor<9x4xf32>, tensor<9x8xf32>
}

// -----

// Weights that the model stores as [in, out], one of them with heads apart.
// CHECK:       forge.param @"q+k" : tensor<12x8xf32> = {
// CHECK-COUNT-2: forge.transpose
// CHECK:         forge.concat {{.*}} -> tensor<12x8xf32>
// CHECK-LABEL: func.func @as_stored
// CHECK-NOT:     forge.transpose
// CHECK:         %[[W:.*]] = forge.param_ref @"q+k"
// CHECK-NEXT:    forge.linear %x, %[[W]] : (tensor<9x8xf32>, tensor<12x8xf32>) -> tensor<9x12xf32>
// CHECK-NOT:     forge.linear
forge.param @q : tensor<8x8xf32>
forge.param @k : tensor<8x2x2xf32>
func.func @as_stored(%x: tensor<9x8xf32>) -> (tensor<9x8xf32>, tensor<9x4xf32>) {
  %0 = forge.param_ref @q : tensor<8x8xf32>
  %1 = forge.transpose %0 [1, 0] : (tensor<8x8xf32>) -> tensor<8x8xf32, #forge.tensor<[], strides = [1, 8]>>
  %2 = forge.param_ref @k : tensor<8x2x2xf32>
  %3 = forge.reshape %2 : (tensor<8x2x2xf32>) -> tensor<8x4xf32>
  %4 = forge.transpose %3 [1, 0] : (tensor<8x4xf32>) -> tensor<4x8xf32, #forge.tensor<[], strides = [1, 4]>>
  %5 = forge.linear %x, %1 : (tensor<9x8xf32>, tensor<8x8xf32, #forge.tensor<[], strides = [1, 8]>>) -> tensor<9x8xf32>
  %6 = forge.linear %x, %4 : (tensor<9x8xf32>, tensor<4x8xf32, #forge.tensor<[], strides = [1, 4]>>) -> tensor<9x4xf32>
  %7 = forge.neg %5 : (tensor<9x8xf32>) -> tensor<9x8xf32>
  %8 = forge.neg %6 : (tensor<9x4xf32>) -> tensor<9x4xf32>
  func.return %7, %8 : tensor<9x8xf32>, tensor<9x4xf32>
}
