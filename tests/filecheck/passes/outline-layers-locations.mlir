// RUN: forgec opt %s -p 'outline-layers{min-ops=1}' --print-locations | filecheck %s
// RUN: forgec opt %s -p 'outline-layers{min-ops=1},inline-layers' --print-locations | filecheck %s --check-prefix=BACK

// The calls say which layer, the function's ops say that it is any of them; inlining puts both together.

// CHECK: func.call @forward.layers(%x) {{.*}} loc("layers.0"("L.forward"("m.py":2:0)))
// CHECK: func.call @forward.layers({{.*}} loc("layers.1"("L.forward"("m.py":2:0)))
// CHECK: func.func private @forward.layers
// CHECK: forge.mul {{.*}} loc("layers.*.mlp"("M.forward"("m.py":1:0)))
// CHECK: forge.cos {{.*}} loc(fused["layers.*"("L.forward"("m.py":2:0)), "mask"("K.forward"("m.py":3:0))])

// BACK:      func.func @forward
// BACK-NEXT:   forge.mul {{.*}} loc("layers.0.mlp"("M.forward"("m.py":1:0)))
// BACK-NEXT:   forge.cos {{.*}} loc(fused["layers.0"("L.forward"("m.py":2:0)), "mask"("K.forward"("m.py":3:0))])
// BACK-NEXT:   forge.mul {{.*}} loc("layers.1.mlp"("M.forward"("m.py":1:0)))
// BACK-NEXT:   forge.cos {{.*}} loc(fused["layers.1"("L.forward"("m.py":2:0)), "mask"("K.forward"("m.py":3:0))])
// BACK-NOT:  func.func
func.func @forward(%x : tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.mul %x, 2.0 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.0.mlp"("M.forward"("m.py":1:0)))
  %1 = forge.cos %0 : (tensor<4xf32>) -> tensor<4xf32>
      loc(fused["layers.0"("L.forward"("m.py":2:0)), "mask"("K.forward"("m.py":3:0))])
  %2 = forge.mul %1, 2.0 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.1.mlp"("M.forward"("m.py":1:0)))
  %3 = forge.cos %2 : (tensor<4xf32>) -> tensor<4xf32>
      loc(fused["layers.1"("L.forward"("m.py":2:0)), "mask"("K.forward"("m.py":3:0))])
  func.return %3 : tensor<4xf32>
}
