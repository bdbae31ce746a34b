// RUN: forgec opt %s --print-locations | filecheck %s
// RUN: forgec opt %s | filecheck %s --check-prefix=PLAIN

func.func @forward(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32> loc("layers.0"("Block.forward"("model.py":7:0)))
  %1 = forge.silu %0 : (tensor<4xf32>) -> tensor<4xf32>
      loc(fused["layers.0"("Block.forward"("model.py":7:0)), "layers.0"("Block.forward"("model.py":8:0))])
  func.return %1 : tensor<4xf32>
}

// CHECK: forge.neg {{.*}} loc("layers.0"("Block.forward"("model.py":7:0)))
// CHECK: forge.silu {{.*}} loc(fused["layers.0"("Block.forward"("model.py":7:0)), "layers.0"("Block.forward"("model.py":8:0))])
// PLAIN-NOT: loc(
