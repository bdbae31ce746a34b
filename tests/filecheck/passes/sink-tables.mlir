// RUN: forgec opt %s -p 'sink-tables,dce' --split-input-file --verify-each | filecheck %s

// The mask comes from positions and lengths: the layer computes it. What depends on a matrix is passed on.
// CHECK-LABEL: func.func @forward(
// CHECK-NEXT:    %[[W:.*]] = forge.param_ref @w
// CHECK-NEXT:    %[[B:.*]] = forge.neg %[[W]]
// CHECK-NEXT:    %[[A:.*]] = func.call @forward.layers(%x, %[[B]], %length)
// CHECK-NEXT:    func.call @forward.layers(%[[A]], %[[B]], %length)
// CHECK-NEXT:    func.return
// CHECK:       func.func private @forward.layers(%{{.*}}: tensor<4x4xf32>, %{{.*}}: tensor<4x4xf32>, %length: tensor<i64>) -> tensor<4x4xf32> attributes {forge.layer} {
// CHECK-NEXT:    %[[F:.*]] = forge.param_ref @frequencies
// CHECK-NEXT:    %[[I:.*]] = forge.iota
// CHECK-NEXT:    %[[M:.*]] = forge.lt %[[I]], %length
// CHECK-NEXT:    %[[S:.*]] = forge.mul %[[I]], %[[F]]
// CHECK-NEXT:    %[[X:.*]] = forge.masked_fill %{{.*}}, %[[M]]
// CHECK-NEXT:    %[[Y:.*]] = forge.add %[[X]], %[[S]]
// CHECK-NEXT:    %[[Z:.*]] = forge.add %[[Y]], %{{.*}}
// CHECK-NEXT:    func.return %[[Z]]
forge.param @w : tensor<4x4xf32>
forge.param @frequencies : tensor<4xf32>
func.func @forward(%x : tensor<4x4xf32>, %length : tensor<i64>) -> tensor<4x4xf32> {
  %w = forge.param_ref @w : tensor<4x4xf32>
  %f = forge.param_ref @frequencies : tensor<4xf32>
  %b = forge.neg %w : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %i = forge.iota from 0 step 1 : tensor<4xi64>
  %m = forge.lt %i, %length : (tensor<4xi64>, tensor<i64>) -> tensor<4xi1>
  %s = forge.mul %i, %f : (tensor<4xi64>, tensor<4xf32>) -> tensor<4xf32>
  %0 = func.call @forward.layers(%x, %m, %s, %b) : (tensor<4x4xf32>, tensor<4xi1>, tensor<4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = func.call @forward.layers(%0, %m, %s, %b) : (tensor<4x4xf32>, tensor<4xi1>, tensor<4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  func.return %1 : tensor<4x4xf32>
}
func.func private @forward.layers(%x : tensor<4x4xf32>, %m : tensor<4xi1>, %s : tensor<4xf32>, %b : tensor<4x4xf32>) -> tensor<4x4xf32> attributes {forge.layer} {
  %0 = forge.masked_fill %x, %m with 0.0 : (tensor<4x4xf32>, tensor<4xi1>) -> tensor<4x4xf32>
  %1 = forge.add %0, %s : (tensor<4x4xf32>, tensor<4xf32>) -> tensor<4x4xf32>
  %2 = forge.add %1, %b : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  func.return %2 : tensor<4x4xf32>
}

// -----

// Equal tables, though computed twice, are one; different ones stay with the calls.
// CHECK-LABEL: func.func @two_masks
// CHECK-NEXT:    %[[A:.*]] = forge.lt %n, 2
// CHECK-NEXT:    %[[B:.*]] = forge.lt %n, 3
// CHECK-NEXT:    func.call @two_masks.layers(%x, %[[A]], %n)
// CHECK-NEXT:    func.call @two_masks.layers(%{{.*}}, %[[B]], %n)
// CHECK:       func.func private @two_masks.layers(%{{.*}}: tensor<4xf32>, %{{.*}}: tensor<4xi1>, %n: tensor<4xi64>)
// CHECK-NEXT:    %[[C:.*]] = forge.gt %n, 0
func.func @two_masks(%x : tensor<4xf32>, %n : tensor<4xi64>) -> tensor<4xf32> {
  %a = forge.lt %n, 2 : (tensor<4xi64>) -> tensor<4xi1>
  %b = forge.lt %n, 3 : (tensor<4xi64>) -> tensor<4xi1>
  %c = forge.gt %n, 0 : (tensor<4xi64>) -> tensor<4xi1>
  %d = forge.gt %n, 0 : (tensor<4xi64>) -> tensor<4xi1>
  %0 = func.call @two_masks.layers(%x, %a, %c) : (tensor<4xf32>, tensor<4xi1>, tensor<4xi1>) -> tensor<4xf32>
  %1 = func.call @two_masks.layers(%0, %b, %d) : (tensor<4xf32>, tensor<4xi1>, tensor<4xi1>) -> tensor<4xf32>
  func.return %1 : tensor<4xf32>
}
func.func private @two_masks.layers(%x : tensor<4xf32>, %m : tensor<4xi1>, %k : tensor<4xi1>) -> tensor<4xf32> attributes {forge.layer} {
  %0 = forge.masked_fill %x, %m with 0.0 : (tensor<4xf32>, tensor<4xi1>) -> tensor<4xf32>
  %1 = forge.masked_fill %0, %k with 0.0 : (tensor<4xf32>, tensor<4xi1>) -> tensor<4xf32>
  func.return %1 : tensor<4xf32>
}

// -----

// DOC: the layers compute their mask.
// CHECK-LABEL: func.func @mask(
// CHECK-NEXT:    %[[A:.*]] = func.call @mask.layers(%x, %n)
// CHECK-NEXT:    func.call @mask.layers(%[[A]], %n)
// CHECK:       func.func private @mask.layers(%x: tensor<4xf32>, %n: tensor<i64>)
// CHECK-NEXT:    %[[I:.*]] = forge.iota from 0 step 1
// CHECK-NEXT:    %[[M:.*]] = forge.lt %[[I]], %n
// CHECK-NEXT:    forge.masked_fill %x, %[[M]] with 0.0
func.func @mask(%x : tensor<4xf32>, %n : tensor<i64>) -> tensor<4xf32> {
  %i = forge.iota from 0 step 1 : tensor<4xi64>
  %m = forge.lt %i, %n : (tensor<4xi64>, tensor<i64>) -> tensor<4xi1>
  %0 = func.call @mask.layers(%x, %m) : (tensor<4xf32>, tensor<4xi1>) -> tensor<4xf32>
  %1 = func.call @mask.layers(%0, %m) : (tensor<4xf32>, tensor<4xi1>) -> tensor<4xf32>
  func.return %1 : tensor<4xf32>
}
func.func private @mask.layers(%x : tensor<4xf32>, %m : tensor<4xi1>) -> tensor<4xf32> attributes {forge.layer} {
  %0 = forge.masked_fill %x, %m with 0.0 : (tensor<4xf32>, tensor<4xi1>) -> tensor<4xf32>
  func.return %0 : tensor<4xf32>
}

// -----

// Every layer has a triangle of its own, all alike; a matrix of which nothing is known is passed on.
// CHECK-LABEL: func.func @triangles
// CHECK:         func.call @triangles.layers(%x, %{{[a-z0-9]+}})
// CHECK:       func.func private @triangles.layers(%{{.*}}: tensor<4x4xf32>, %{{.*}}: tensor<4x4xf32>)
// CHECK-NEXT:    forge.param_ref @t0 holds "tril"
forge.param @t0 : tensor<4x4xf32>
forge.param @t1 : tensor<4x4xf32>
forge.param @w0 : tensor<4x4xf32>
forge.param @w1 : tensor<4x4xf32>
func.func @triangles(%x : tensor<4x4xf32>) -> tensor<4x4xf32> {
  %a = forge.param_ref @t0 holds "tril" : tensor<4x4xf32>
  %b = forge.param_ref @t1 holds "tril" : tensor<4x4xf32>
  %c = forge.param_ref @w0 : tensor<4x4xf32>
  %d = forge.param_ref @w1 : tensor<4x4xf32>
  %0 = func.call @triangles.layers(%x, %a, %c) : (tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = func.call @triangles.layers(%0, %b, %d) : (tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  func.return %1 : tensor<4x4xf32>
}
func.func private @triangles.layers(%x : tensor<4x4xf32>, %t : tensor<4x4xf32>, %w : tensor<4x4xf32>) -> tensor<4x4xf32> attributes {forge.layer} {
  %0 = forge.mul %x, %t : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = forge.add %0, %w : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  func.return %1 : tensor<4x4xf32>
}
