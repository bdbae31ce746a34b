// RUN: forgec opt %s -p hoist-tables --split-input-file | filecheck %s

// DOC: a table of cosines that both calls would compute.
// CHECK-LABEL: func.func @forward
// CHECK-NEXT:    %c = forge.cos %f : (tensor<8xf32>) -> tensor<8xf32>
// CHECK-NEXT:    %0 = func.call @layers(%x, %c)
// CHECK-NEXT:    %1 = func.call @layers(%0, %c)
// CHECK:       func.func private @layers(%a: tensor<8xf32>, %c: tensor<8xf32>)
// CHECK-NEXT:    forge.mul %a, %c
func.func @forward(%x: tensor<8xf32>, %f: tensor<8xf32>) -> tensor<8xf32> {
  %0 = func.call @layers(%x, %f) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %1 = func.call @layers(%0, %f) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  func.return %1 : tensor<8xf32>
}
func.func private @layers(%a: tensor<8xf32>, %t: tensor<8xf32>) -> tensor<8xf32> attributes {forge.layer} {
  %c = forge.cos %t : (tensor<8xf32>) -> tensor<8xf32>
  %y = forge.mul %a, %c : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  func.return %y : tensor<8xf32>
}

// -----

// What calls pass differently stays inside, and so do a free reshape and a single number that are used there.
// CHECK-LABEL: func.func @forward
// CHECK-NEXT:    %[[V:.*]] = forge.reshape %g
// CHECK-NEXT:    %[[N:.*]] = forge.constant dense<2.000000e+00>
// CHECK-NEXT:    forge.mul %[[V]], %[[N]]
// CHECK-NEXT:    %[[S:.*]] = forge.sum
// CHECK-NEXT:    %0 = func.call @layers(%x, %f, %g, %[[S]])
// CHECK-NEXT:    func.call @layers(%0, %g, %g, %[[S]])
// CHECK:       func.func private @layers(%a: {{.*}}, %t: {{.*}}, %r: {{.*}}, %s:
// CHECK-NEXT:    %c = forge.cos %t
// CHECK-NEXT:    %v = forge.reshape %r
// CHECK-NEXT:    %n = forge.constant
// CHECK-NEXT:    forge.add %s, %c
func.func @forward(%x: tensor<8xf32>, %f: tensor<8xf32>, %g: tensor<8xf32>) -> tensor<8xf32> {
  %0 = func.call @layers(%x, %f, %g) : (tensor<8xf32>, tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %1 = func.call @layers(%0, %g, %g) : (tensor<8xf32>, tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  func.return %1 : tensor<8xf32>
}
func.func private @layers(%a: tensor<8xf32>, %t: tensor<8xf32>, %r: tensor<8xf32>) -> tensor<8xf32> attributes {forge.layer} {
  %c = forge.cos %t : (tensor<8xf32>) -> tensor<8xf32>
  %v = forge.reshape %r : (tensor<8xf32>) -> tensor<1x8xf32>
  %n = forge.constant dense<2.0> : tensor<f32>
  %m = forge.mul %v, %n : (tensor<1x8xf32>, tensor<f32>) -> tensor<1x8xf32>
  %s = forge.sum %m over [0] : (tensor<1x8xf32>) -> tensor<8xf32>
  %w = forge.add %s, %c : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %d = forge.add %w, %v : (tensor<8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
  %e = forge.add %d, %n : (tensor<1x8xf32>, tensor<f32>) -> tensor<1x8xf32>
  %z = forge.sum %e over [0] : (tensor<1x8xf32>) -> tensor<8xf32>
  %y = forge.mul %a, %z : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  func.return %y : tensor<8xf32>
}

// -----

// Through a layer that calls another: what all outer calls pass alike leaves both.
// CHECK-LABEL: func.func @forward
// CHECK-NEXT:    %c = forge.cos %f
// CHECK-NEXT:    func.call @outer(%x, %c)
// CHECK-NEXT:    func.call @outer(%{{.*}}, %c)
// CHECK:       func.func private @outer
// CHECK-NEXT:    func.call @inner(%a, %c)
// CHECK-NEXT:    func.call @inner(%{{.*}}, %c)
// CHECK:       func.func private @inner
// CHECK-NEXT:    forge.mul %a, %c
func.func @forward(%x: tensor<8xf32>, %f: tensor<8xf32>) -> tensor<8xf32> {
  %0 = func.call @outer(%x, %f) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %1 = func.call @outer(%0, %f) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  func.return %1 : tensor<8xf32>
}
func.func private @outer(%a: tensor<8xf32>, %f: tensor<8xf32>) -> tensor<8xf32> attributes {forge.layer} {
  %0 = func.call @inner(%a, %f) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %1 = func.call @inner(%0, %f) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  func.return %1 : tensor<8xf32>
}
func.func private @inner(%a: tensor<8xf32>, %f: tensor<8xf32>) -> tensor<8xf32> attributes {forge.layer} {
  %c = forge.cos %f : (tensor<8xf32>) -> tensor<8xf32>
  %m = forge.mul %a, %c : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  func.return %m : tensor<8xf32>
}
