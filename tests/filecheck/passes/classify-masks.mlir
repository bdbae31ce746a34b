// RUN: forgec opt %s -p 'classify-masks,dce' --split-input-file | filecheck %s

// DOC: a comparison of positions is a causal mask.
// CHECK-LABEL: func.func @causal
// CHECK-NEXT:    forge.attention %q, %k, %v causal :
func.func @causal(%q : tensor<1x4x9x8xf32>, %k : tensor<1x4x9x8xf32>, %v : tensor<1x4x9x8xf32>) -> tensor<1x4x9x8xf32> {
  %i = forge.iota from 0 step 1 : tensor<9xi64>
  %r = forge.reshape %i : (tensor<9xi64>) -> tensor<9x1xi64>
  %m = forge.le %i, %r : (tensor<9xi64>, tensor<9x1xi64>) -> tensor<9x9xi1>
  %0 = forge.attention %q, %k, %v mask %m : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<9x9xi1>) -> tensor<1x4x9x8xf32>
  func.return %0 : tensor<1x4x9x8xf32>
}

// -----

// Rows after a cache of s1 tokens, a window, and padding on the least finite number: its empty rows are uniform.
// CHECK-LABEL: func.func @cached_window
// CHECK-NEXT:    forge.attention %q, %k, %v keys %p causal offset s1 window 4 empty_row "uniform" :
func.func @cached_window(%q : tensor<2x4x?x8xf32, #forge.tensor<[s0]>>, %k : tensor<2x4x?x8xf32, #forge.tensor<[s0 + s1]>>, %v : tensor<2x4x?x8xf32, #forge.tensor<[s0 + s1]>>, %p : tensor<2x?xi1, #forge.tensor<[s0 + s1]>>) -> tensor<2x4x?x8xf32, #forge.tensor<[s0]>> {
  %i = forge.iota from s1 step 1 : tensor<?xi64, #forge.tensor<[s0]>>
  %j = forge.iota from 0 step 1 : tensor<?xi64, #forge.tensor<[s0 + s1]>>
  %r = forge.reshape %i : (tensor<?xi64, #forge.tensor<[s0]>>) -> tensor<?x1xi64, #forge.tensor<[s0]>>
  %c = forge.ge %r, %j : (tensor<?x1xi64, #forge.tensor<[s0]>>, tensor<?xi64, #forge.tensor<[s0 + s1]>>) -> tensor<?x?xi1, #forge.tensor<[s0, s0 + s1]>>
  %d = forge.sub %r, 4 : (tensor<?x1xi64, #forge.tensor<[s0]>>) -> tensor<?x1xi64, #forge.tensor<[s0]>>
  %w = forge.gt %j, %d : (tensor<?xi64, #forge.tensor<[s0 + s1]>>, tensor<?x1xi64, #forge.tensor<[s0]>>) -> tensor<?x?xi1, #forge.tensor<[s0, s0 + s1]>>
  %cw = forge.bitwise_and %c, %w : (tensor<?x?xi1, #forge.tensor<[s0, s0 + s1]>>, tensor<?x?xi1, #forge.tensor<[s0, s0 + s1]>>) -> tensor<?x?xi1, #forge.tensor<[s0, s0 + s1]>>
  %pr = forge.reshape %p : (tensor<2x?xi1, #forge.tensor<[s0 + s1]>>) -> tensor<2x1x1x?xi1, #forge.tensor<[s0 + s1]>>
  %b = forge.logical_and %cw, %pr : (tensor<?x?xi1, #forge.tensor<[s0, s0 + s1]>>, tensor<2x1x1x?xi1, #forge.tensor<[s0 + s1]>>) -> tensor<2x1x?x?xi1, #forge.tensor<[s0, s0 + s1]>>
  %zero = forge.full 0.0 : tensor<f32>
  %least = forge.full -3.4028234663852886e+38 : tensor<f32>
  %m = forge.where %b, %zero, %least : (tensor<2x1x?x?xi1, #forge.tensor<[s0, s0 + s1]>>, tensor<f32>, tensor<f32>) -> tensor<2x1x?x?xf32, #forge.tensor<[s0, s0 + s1]>>
  %0 = forge.attention %q, %k, %v mask %m : (tensor<2x4x?x8xf32, #forge.tensor<[s0]>>, tensor<2x4x?x8xf32, #forge.tensor<[s0 + s1]>>, tensor<2x4x?x8xf32, #forge.tensor<[s0 + s1]>>, tensor<2x1x?x?xf32, #forge.tensor<[s0, s0 + s1]>>) -> tensor<2x4x?x8xf32, #forge.tensor<[s0]>>
  func.return %0 : tensor<2x4x?x8xf32, #forge.tensor<[s0]>>
}

// -----

// A window to both sides; chunks of a constant; everything.
// CHECK-LABEL: func.func @more
// CHECK-NEXT:    forge.attention %q, %k, %v window 3 :
// CHECK-NEXT:    forge.attention %q, %k, %v causal chunk 2 :
// CHECK-NEXT:    forge.attention %q, %k, %v : (
func.func @more(%q : tensor<4x4x8xf32>, %k : tensor<4x4x8xf32>, %v : tensor<4x4x8xf32>) -> (tensor<4x4x8xf32>, tensor<4x4x8xf32>, tensor<4x4x8xf32>) {
  %i = forge.iota from 0 step 1 : tensor<4xi64>
  %r = forge.reshape %i : (tensor<4xi64>) -> tensor<4x1xi64>
  %d = forge.sub %r, %i : (tensor<4x1xi64>, tensor<4xi64>) -> tensor<4x4xi64>
  %a = forge.abs %d : (tensor<4x4xi64>) -> tensor<4x4xi64>
  %w = forge.le %a, 2 : (tensor<4x4xi64>) -> tensor<4x4xi1>
  %0 = forge.attention %q, %k, %v mask %w : (tensor<4x4x8xf32>, tensor<4x4x8xf32>, tensor<4x4x8xf32>, tensor<4x4xi1>) -> tensor<4x4x8xf32>
  %c = forge.constant dense<[[true, false, false, false], [true, true, false, false], [false, false, true, false], [false, false, true, true]]> : tensor<4x4xi1>
  %1 = forge.attention %q, %k, %v mask %c : (tensor<4x4x8xf32>, tensor<4x4x8xf32>, tensor<4x4x8xf32>, tensor<4x4xi1>) -> tensor<4x4x8xf32>
  %t = forge.full true : tensor<4x4xi1>
  %2 = forge.attention %q, %k, %v mask %t : (tensor<4x4x8xf32>, tensor<4x4x8xf32>, tensor<4x4x8xf32>, tensor<4x4xi1>) -> tensor<4x4x8xf32>
  func.return %0, %1, %2 : tensor<4x4x8xf32>, tensor<4x4x8xf32>, tensor<4x4x8xf32>
}

// -----

// A bias loses the mask that was added to it; both layers share the keys.
// CHECK-LABEL: func.func @bias
// CHECK-NEXT:    forge.attention %q, %k, %v mask %b keys %p empty_row "uniform" :
// CHECK-NEXT:    forge.attention %{{.*}}, %k, %v mask %b keys %p empty_row "uniform" :
func.func @bias(%q : tensor<2x4x9x8xf32>, %k : tensor<2x4x9x8xf32>, %v : tensor<2x4x9x8xf32>, %b : tensor<1x4x9x9xf32>, %p : tensor<2x9xi1>) -> tensor<2x4x9x8xf32> {
  %1 = forge.reshape %p : (tensor<2x9xi1>) -> tensor<2x1x1x9xi1>
  %2 = forge.cast %1 : (tensor<2x1x1x9xi1>) -> tensor<2x1x1x9xf32>
  %3 = forge.rsub %2, 1.0 : (tensor<2x1x1x9xf32>) -> tensor<2x1x1x9xf32>
  %4 = forge.mul %3, -3.4028234663852886e+38 : (tensor<2x1x1x9xf32>) -> tensor<2x1x1x9xf32>
  %5 = forge.add %b, %4 : (tensor<1x4x9x9xf32>, tensor<2x1x1x9xf32>) -> tensor<2x4x9x9xf32>
  %6 = forge.attention %q, %k, %v mask %5 : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x9xf32>) -> tensor<2x4x9x8xf32>
  %7 = forge.attention %6, %k, %v mask %5 : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x9xf32>) -> tensor<2x4x9x8xf32>
  func.return %7 : tensor<2x4x9x8xf32>
}

// -----

// A buffer that capture has seen to be a triangle.
// CHECK-LABEL: func.func @buffer
// CHECK-NEXT:    forge.attention %q, %k, %v causal :
forge.param @bias : tensor<1x1x16x16xf32>
func.func @buffer(%q : tensor<1x4x9x8xf32>, %k : tensor<1x4x9x8xf32>, %v : tensor<1x4x9x8xf32>) -> tensor<1x4x9x8xf32> {
  %b = forge.param_ref @bias holds "tril" : tensor<1x1x16x16xf32>
  %0 = forge.slice %b dim 2 from 0 step 1 : (tensor<1x1x16x16xf32>) -> tensor<1x1x9x16xf32>
  %1 = forge.slice %0 dim 3 from 0 step 1 : (tensor<1x1x9x16xf32>) -> tensor<1x1x9x9xf32>
  %m = forge.ne %1, 0 : (tensor<1x1x9x9xf32>) -> tensor<1x1x9x9xi1>
  %2 = forge.attention %q, %k, %v mask %m : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x1x9x9xi1>) -> tensor<1x4x9x8xf32>
  func.return %2 : tensor<1x4x9x8xf32>
}

// -----

// A buffer of what is hidden; a condition that is compared with false.
// CHECK-LABEL: func.func @upper_buffer
// CHECK-NEXT:    forge.attention %q, %k, %v causal :
forge.param @hidden : tensor<16x16xi1>
func.func @upper_buffer(%q : tensor<1x4x9x8xf32>, %k : tensor<1x4x9x8xf32>, %v : tensor<1x4x9x8xf32>) -> tensor<1x4x9x8xf32> {
  %b = forge.param_ref @hidden holds "triu" : tensor<16x16xi1>
  %0 = forge.slice %b dim 0 from 0 step 1 : (tensor<16x16xi1>) -> tensor<9x16xi1>
  %1 = forge.slice %0 dim 1 from 0 step 1 : (tensor<9x16xi1>) -> tensor<9x9xi1>
  %m = forge.eq %1, 0 : (tensor<9x9xi1>) -> tensor<9x9xi1>
  %2 = forge.attention %q, %k, %v mask %m : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<9x9xi1>) -> tensor<1x4x9x8xf32>
  func.return %2 : tensor<1x4x9x8xf32>
}

// -----

// A buffer that is added.
// CHECK-LABEL: func.func @added_buffer
// CHECK-NEXT:    forge.attention %q, %k, %v causal :
forge.param @added : tensor<9x9xf32>
func.func @added_buffer(%q : tensor<1x4x9x8xf32>, %k : tensor<1x4x9x8xf32>, %v : tensor<1x4x9x8xf32>) -> tensor<1x4x9x8xf32> {
  %m = forge.param_ref @added holds "-inf triu" : tensor<9x9xf32>
  %2 = forge.attention %q, %k, %v mask %m : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<9x9xf32>) -> tensor<1x4x9x8xf32>
  func.return %2 : tensor<1x4x9x8xf32>
}

// -----

// Numbers of two triangles multiply to a band.
// CHECK-LABEL: func.func @band
// CHECK-NEXT:    forge.attention %q, %k, %v causal window 3 :
func.func @band(%q : tensor<1x4x9x8xf32>, %k : tensor<1x4x9x8xf32>, %v : tensor<1x4x9x8xf32>) -> tensor<1x4x9x8xf32> {
  %one = forge.full 1.0 : tensor<9x9xf32>
  %l = forge.tril %one diagonal 0 : (tensor<9x9xf32>) -> tensor<9x9xf32>
  %u = forge.triu %one diagonal -2 : (tensor<9x9xf32>) -> tensor<9x9xf32>
  %b = forge.mul %l, %u : (tensor<9x9xf32>, tensor<9x9xf32>) -> tensor<9x9xf32>
  %0 = forge.rsub %b, 1.0 : (tensor<9x9xf32>) -> tensor<9x9xf32>
  %m = forge.mul %0, -3.4028234663852886e+38 : (tensor<9x9xf32>) -> tensor<9x9xf32>
  %2 = forge.attention %q, %k, %v mask %m : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<9x9xf32>) -> tensor<1x4x9x8xf32>
  func.return %2 : tensor<1x4x9x8xf32>
}

// -----

// Padding that was repeated for every head of one dimension of batch and heads is a condition on keys again.
// CHECK-LABEL: func.func @regrouped
// CHECK:         forge.attention %q, %k, %v keys %{{.*}} :
func.func @regrouped(%q : tensor<2x4x9x8xf32>, %k : tensor<2x4x9x8xf32>, %v : tensor<2x4x9x8xf32>, %p : tensor<2x9xi1>) -> tensor<2x4x9x8xf32> {
  %0 = forge.reshape %p : (tensor<2x9xi1>) -> tensor<2x1x1x9xi1>
  %1 = forge.broadcast %0 : (tensor<2x1x1x9xi1>) -> tensor<2x4x1x9xi1>
  %2 = forge.reshape %1 : (tensor<2x4x1x9xi1>) -> tensor<8x1x9xi1>
  %3 = forge.logical_not %2 : (tensor<8x1x9xi1>) -> tensor<8x1x9xi1>
  %4 = forge.reshape %3 : (tensor<8x1x9xi1>) -> tensor<2x4x1x9xi1>
  %m = forge.logical_not %4 : (tensor<2x4x1x9xi1>) -> tensor<2x4x1x9xi1>
  %5 = forge.attention %q, %k, %v mask %m : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x1x9xi1>) -> tensor<2x4x9x8xf32>
  func.return %5 : tensor<2x4x9x8xf32>
}

// -----

// A condition that is no structure stays, next to the part that is one.
// CHECK-LABEL: func.func @rest
// CHECK-NEXT:    %[[M:.*]] = forge.reshape %s
// CHECK-NEXT:    forge.attention %q, %k, %v mask %[[M]] causal :
func.func @rest(%q : tensor<1x4x9x8xf32>, %k : tensor<1x4x9x8xf32>, %v : tensor<1x4x9x8xf32>, %s : tensor<9x9xi1>) -> tensor<1x4x9x8xf32> {
  %i = forge.iota from 0 step 1 : tensor<9xi64>
  %r = forge.reshape %i : (tensor<9xi64>) -> tensor<9x1xi64>
  %c = forge.le %i, %r : (tensor<9xi64>, tensor<9x1xi64>) -> tensor<9x9xi1>
  %m = forge.logical_and %c, %s : (tensor<9x9xi1>, tensor<9x9xi1>) -> tensor<9x9xi1>
  %0 = forge.attention %q, %k, %v mask %m : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<9x9xi1>) -> tensor<1x4x9x8xf32>
  func.return %0 : tensor<1x4x9x8xf32>
}

// -----

// Nothing is known of an argument; masks of -10000 leave an empty row its scores; masks added twice leave it some.
// CHECK-LABEL: func.func @stays
// CHECK:         forge.attention %q, %k, %v mask %b :
// CHECK:         forge.attention %q, %k, %v mask %{{.*}} : {{.*}}tensor<1x1x1x9xf32>
// CHECK:         forge.attention %q, %k, %v mask %{{.*}} : {{.*}}tensor<1x1x9x9xf32>
func.func @stays(%q : tensor<1x4x9x8xf32>, %k : tensor<1x4x9x8xf32>, %v : tensor<1x4x9x8xf32>, %b : tensor<9x9xf32>, %p : tensor<1x1x1x9xi1>) -> (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>) {
  %0 = forge.attention %q, %k, %v mask %b : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<9x9xf32>) -> tensor<1x4x9x8xf32>
  %zero = forge.full 0.0 : tensor<f32>
  %some = forge.full -10000.0 : tensor<f32>
  %m = forge.where %p, %zero, %some : (tensor<1x1x1x9xi1>, tensor<f32>, tensor<f32>) -> tensor<1x1x1x9xf32>
  %1 = forge.attention %q, %k, %v mask %m : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x1x1x9xf32>) -> tensor<1x4x9x8xf32>
  %least = forge.full -3.4028234663852886e+38 : tensor<f32>
  %i = forge.iota from 0 step 1 : tensor<9xi64>
  %r = forge.reshape %i : (tensor<9xi64>) -> tensor<9x1xi64>
  %c = forge.le %i, %r : (tensor<9xi64>, tensor<9x1xi64>) -> tensor<9x9xi1>
  %2 = forge.where %c, %zero, %least : (tensor<9x9xi1>, tensor<f32>, tensor<f32>) -> tensor<9x9xf32>
  %3 = forge.where %p, %zero, %least : (tensor<1x1x1x9xi1>, tensor<f32>, tensor<f32>) -> tensor<1x1x1x9xf32>
  %4 = forge.add %2, %3 : (tensor<9x9xf32>, tensor<1x1x1x9xf32>) -> tensor<1x1x9x9xf32>
  %5 = forge.attention %q, %k, %v mask %4 : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x1x9x9xf32>) -> tensor<1x4x9x8xf32>
  func.return %0, %1, %5 : tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>
}

// -----

// What looks like positions and is none: a number beside them; integers that wrap; a sum whose last term is 0.
// CHECK-LABEL: func.func @no_positions
// CHECK:         forge.attention %q, %q, %q keys %{{.*}} :
// CHECK:         forge.attention %q, %q, %q mask %{{.*}} :
// CHECK:         forge.attention %q, %q, %q mask %{{.*}} :
func.func @no_positions(%q : tensor<1x4x9x8xf32>) -> (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>) {
  %i = forge.iota from 0 step 1 : tensor<9xi64>
  %r = forge.reshape %i : (tensor<9xi64>) -> tensor<9x1xi64>
  %three = forge.full 3.0 : tensor<f32>
  %m0 = forge.ge %three, %i : (tensor<f32>, tensor<9xi64>) -> tensor<9xi1>
  %a0 = forge.attention %q, %q, %q mask %m0 : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<9xi1>) -> tensor<1x4x9x8xf32>
  %b = forge.cast %i : (tensor<9xi64>) -> tensor<9xui8>
  %br = forge.reshape %b : (tensor<9xui8>) -> tensor<9x1xui8>
  %d = forge.sub %br, %b : (tensor<9x1xui8>, tensor<9xui8>) -> tensor<9x9xui8>
  %m1 = forge.ge %d, 0 : (tensor<9x9xui8>) -> tensor<9x9xi1>
  %a1 = forge.attention %q, %q, %q mask %m1 : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<9x9xi1>) -> tensor<1x4x9x8xf32>
  %first = forge.eq %i, 0 : (tensor<9xi64>) -> tensor<9xi1>
  %sums = forge.cumsum %first dim 0 : (tensor<9xi1>) -> tensor<9xi64>
  %sum = forge.slice %sums dim 0 from 3 step 1 : (tensor<9xi64>) -> tensor<1xi64>
  %s = forge.add %r, %sum : (tensor<9x1xi64>, tensor<1xi64>) -> tensor<9x1xi64>
  %m2 = forge.le %i, %s : (tensor<9xi64>, tensor<9x1xi64>) -> tensor<9x9xi1>
  %a2 = forge.attention %q, %q, %q mask %m2 : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<9x9xi1>) -> tensor<1x4x9x8xf32>
  func.return %a0, %a1, %a2 : tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>
}

// -----

// Integers that are wide enough, a sum of zeros, and a mask within a mask, which is one number, are understood.
// CHECK-LABEL: func.func @positions
// CHECK:         forge.attention %q, %q, %q causal :
// CHECK:         forge.attention %q, %q, %q causal :
// CHECK:         forge.attention %q, %q, %q keys %{{.*}} causal empty_row "uniform" :
func.func @positions(%q : tensor<1x4x9x8xf32>, %p : tensor<1x1x1x9xi1>) -> (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>) {
  %i = forge.iota from 0 step 1 : tensor<9xi64>
  %r = forge.reshape %i : (tensor<9xi64>) -> tensor<9x1xi64>
  %b = forge.cast %i : (tensor<9xi64>) -> tensor<9xi8>
  %br = forge.reshape %b : (tensor<9xi8>) -> tensor<9x1xi8>
  %d = forge.sub %br, %b : (tensor<9x1xi8>, tensor<9xi8>) -> tensor<9x9xi8>
  %m0 = forge.ge %d, 0 : (tensor<9x9xi8>) -> tensor<9x9xi1>
  %a0 = forge.attention %q, %q, %q mask %m0 : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<9x9xi1>) -> tensor<1x4x9x8xf32>
  %before = forge.sub %i, 1 : (tensor<9xi64>) -> tensor<9xi64>
  %step = forge.sub %i, %before : (tensor<9xi64>, tensor<9xi64>) -> tensor<9xi64>
  %none = forge.ne %step, 1 : (tensor<9xi64>) -> tensor<9xi1>
  %sums = forge.cumsum %none dim 0 : (tensor<9xi1>) -> tensor<9xi64>
  %column = forge.add %i, %sums : (tensor<9xi64>, tensor<9xi64>) -> tensor<9xi64>
  %m1 = forge.le %column, %r : (tensor<9xi64>, tensor<9x1xi64>) -> tensor<9x9xi1>
  %a1 = forge.attention %q, %q, %q mask %m1 : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<9x9xi1>) -> tensor<1x4x9x8xf32>
  %zero = forge.full 0.0 : tensor<f32>
  %least = forge.full -3.4028234663852886e+38 : tensor<f32>
  %inner = forge.where %m1, %zero, %least : (tensor<9x9xi1>, tensor<f32>, tensor<f32>) -> tensor<9x9xf32>
  %m2 = forge.where %p, %inner, %least : (tensor<1x1x1x9xi1>, tensor<9x9xf32>, tensor<f32>) -> tensor<1x1x9x9xf32>
  %a2 = forge.attention %q, %q, %q mask %m2 : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x1x9x9xf32>) -> tensor<1x4x9x8xf32>
  func.return %a0, %a1, %a2 : tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>
}

// -----

// The least number of float16 does not swallow scores of float32.
// CHECK-LABEL: func.func @half
// CHECK:         forge.attention %q, %q, %q mask %{{.*}} : (
func.func @half(%q : tensor<1x4x9x8xf16>, %p : tensor<1x1x1x9xi1>) -> tensor<1x4x9x8xf16> {
  %zero = forge.full 0.0 : tensor<f16>
  %least = forge.full -65504.0 : tensor<f16>
  %m = forge.where %p, %zero, %least : (tensor<1x1x1x9xi1>, tensor<f16>, tensor<f16>) -> tensor<1x1x1x9xf16>
  %0 = forge.attention %q, %q, %q mask %m : (tensor<1x4x9x8xf16>, tensor<1x4x9x8xf16>, tensor<1x4x9x8xf16>, tensor<1x1x1x9xf16>) -> tensor<1x4x9x8xf16>
  func.return %0 : tensor<1x4x9x8xf16>
}

// -----

// Columns that are kept whatever the position: a number of them, those of a tensor, beside padding; a window, too.
// CHECK-LABEL: func.func @prefix
// CHECK:         %[[F:.*]] = forge.reshape %{{.*}} : (tensor<9xi1>) -> tensor<1x9xi1>
// CHECK:         forge.attention %q, %q, %q prefix %[[F]] causal :
// CHECK:         forge.attention %q, %q, %q keys %{{.*}} prefix %{{.*}} causal window 3 :
func.func @prefix(%q : tensor<2x4x9x8xf32>, %p : tensor<2x1x1x9xi1>, %n : tensor<2x1x1x9xi1>) -> (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>) {
  %i = forge.iota from 0 step 1 : tensor<9xi64>
  %r = forge.reshape %i : (tensor<9xi64>) -> tensor<9x1xi64>
  %c = forge.le %i, %r : (tensor<9xi64>, tensor<9x1xi64>) -> tensor<9x9xi1>
  %f = forge.lt %i, 3 : (tensor<9xi64>) -> tensor<9xi1>
  %m0 = forge.logical_or %c, %f : (tensor<9x9xi1>, tensor<9xi1>) -> tensor<9x9xi1>
  %a0 = forge.attention %q, %q, %q mask %m0 : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<9x9xi1>) -> tensor<2x4x9x8xf32>
  %d = forge.sub %r, %i : (tensor<9x1xi64>, tensor<9xi64>) -> tensor<9x9xi64>
  %w = forge.lt %d, 3 : (tensor<9x9xi64>) -> tensor<9x9xi1>
  %cw = forge.logical_and %c, %w : (tensor<9x9xi1>, tensor<9x9xi1>) -> tensor<9x9xi1>
  %m1 = forge.logical_or %cw, %n : (tensor<9x9xi1>, tensor<2x1x1x9xi1>) -> tensor<2x1x9x9xi1>
  %m2 = forge.logical_and %m1, %p : (tensor<2x1x9x9xi1>, tensor<2x1x1x9xi1>) -> tensor<2x1x9x9xi1>
  %a1 = forge.attention %q, %q, %q mask %m2 : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x1x9x9xi1>) -> tensor<2x4x9x8xf32>
  func.return %a0, %a1 : tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>
}

// -----

// Rows that keep everything; an exception to the window alone; two exceptions.
// CHECK-LABEL: func.func @no_prefix
// CHECK-NOT:     prefix
// CHECK:         func.return
func.func @no_prefix(%q : tensor<2x4x9x8xf32>) -> (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>) {
  %i = forge.iota from 0 step 1 : tensor<9xi64>
  %r = forge.reshape %i : (tensor<9xi64>) -> tensor<9x1xi64>
  %c = forge.le %i, %r : (tensor<9xi64>, tensor<9x1xi64>) -> tensor<9x9xi1>
  %f = forge.lt %i, 3 : (tensor<9xi64>) -> tensor<9xi1>
  %e = forge.lt %i, 2 : (tensor<9xi64>) -> tensor<9xi1>
  %g = forge.lt %r, 3 : (tensor<9x1xi64>) -> tensor<9x1xi1>
  %d = forge.sub %r, %i : (tensor<9x1xi64>, tensor<9xi64>) -> tensor<9x9xi64>
  %w = forge.lt %d, 3 : (tensor<9x9xi64>) -> tensor<9x9xi1>
  %m0 = forge.logical_or %c, %g : (tensor<9x9xi1>, tensor<9x1xi1>) -> tensor<9x9xi1>
  %a0 = forge.attention %q, %q, %q mask %m0 : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<9x9xi1>) -> tensor<2x4x9x8xf32>
  %wf = forge.logical_or %w, %f : (tensor<9x9xi1>, tensor<9xi1>) -> tensor<9x9xi1>
  %m1 = forge.logical_and %wf, %c : (tensor<9x9xi1>, tensor<9x9xi1>) -> tensor<9x9xi1>
  %a1 = forge.attention %q, %q, %q mask %m1 : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<9x9xi1>) -> tensor<2x4x9x8xf32>
  %ce = forge.logical_or %c, %e : (tensor<9x9xi1>, tensor<9xi1>) -> tensor<9x9xi1>
  %m2 = forge.logical_and %wf, %ce : (tensor<9x9xi1>, tensor<9x9xi1>) -> tensor<9x9xi1>
  %a2 = forge.attention %q, %q, %q mask %m2 : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<9x9xi1>) -> tensor<2x4x9x8xf32>
  func.return %a0, %a1, %a2 : tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>
}

// -----

// Triangles of triangles of booleans are a window.
// CHECK-LABEL: func.func @nested_triangles
// CHECK-NEXT:    forge.attention %q, %k, %v causal window 4 :
func.func @nested_triangles(%q : tensor<1x4x9x8xf32>, %k : tensor<1x4x9x8xf32>, %v : tensor<1x4x9x8xf32>) -> tensor<1x4x9x8xf32> {
  %o = forge.full true : tensor<9x9xi1>
  %l = forge.tril %o diagonal 0 : (tensor<9x9xi1>) -> tensor<9x9xi1>
  %m = forge.triu %l diagonal -3 : (tensor<9x9xi1>) -> tensor<9x9xi1>
  %0 = forge.attention %q, %k, %v mask %m : (tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<1x4x9x8xf32>, tensor<9x9xi1>) -> tensor<1x4x9x8xf32>
  func.return %0 : tensor<1x4x9x8xf32>
}

// -----

// A product of 0 and 1, compared with a number between, is a conjunction; one of other numbers stays.
// CHECK-LABEL: func.func @product_of_floats
// CHECK:         forge.attention %q, %k, %v keys %p causal :
// CHECK:         forge.attention %q, %k, %v mask
func.func @product_of_floats(%q : tensor<2x4x9x8xf32>, %k : tensor<2x4x9x8xf32>, %v : tensor<2x4x9x8xf32>, %p : tensor<2x9xi1>, %f : tensor<2x1x1x9xf32>) -> (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>) {
  %i = forge.iota from 0 step 1 : tensor<9xi64>
  %r = forge.reshape %i : (tensor<9xi64>) -> tensor<9x1xi64>
  %c = forge.le %i, %r : (tensor<9xi64>, tensor<9x1xi64>) -> tensor<9x9xi1>
  %cf = forge.cast %c : (tensor<9x9xi1>) -> tensor<9x9xf32>
  %pr = forge.reshape %p : (tensor<2x9xi1>) -> tensor<2x1x1x9xi1>
  %pf = forge.cast %pr : (tensor<2x1x1x9xi1>) -> tensor<2x1x1x9xf32>
  %x = forge.mul %cf, %pf : (tensor<9x9xf32>, tensor<2x1x1x9xf32>) -> tensor<2x1x9x9xf32>
  %m = forge.gt %x, 0.5 : (tensor<2x1x9x9xf32>) -> tensor<2x1x9x9xi1>
  %0 = forge.attention %q, %k, %v mask %m : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x1x9x9xi1>) -> tensor<2x4x9x8xf32>
  %y = forge.mul %cf, %f : (tensor<9x9xf32>, tensor<2x1x1x9xf32>) -> tensor<2x1x9x9xf32>
  %n = forge.gt %y, 0.5 : (tensor<2x1x9x9xf32>) -> tensor<2x1x9x9xi1>
  %1 = forge.attention %q, %k, %v mask %n : (tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>, tensor<2x1x9x9xi1>) -> tensor<2x4x9x8xf32>
  func.return %0, %1 : tensor<2x4x9x8xf32>, tensor<2x4x9x8xf32>
}
