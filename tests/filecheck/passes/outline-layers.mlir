// RUN: forgec opt %s -p 'outline-layers{min-ops=1}' --split-input-file --verify-each | filecheck %s

// DOC: two ops, three times in a row, with weights of their own.
// Two ops, three times in a row, with weights of their own: found without names.
// CHECK-LABEL: func.func @chain(%x: tensor<2x4xf32>)
// CHECK-NEXT:    %[[W0:.*]] = forge.param_ref @w0
// CHECK-NEXT:    %[[A:.*]] = func.call @chain.block(%x, %[[W0]]) : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    %[[W1:.*]] = forge.param_ref @w1
// CHECK-NEXT:    %[[B:.*]] = func.call @chain.block(%[[A]], %[[W1]])
// CHECK-NEXT:    %[[W2:.*]] = forge.param_ref @w2
// CHECK-NEXT:    %[[C:.*]] = func.call @chain.block(%[[B]], %[[W2]])
// CHECK-NEXT:    func.return %[[C]]
// CHECK:       func.func private @chain.block(%x: tensor<2x4xf32> {{.*}}, %w0: tensor<4x4xf32> {{.*}}) -> tensor<2x4xf32> attributes {forge.layer} {
// CHECK-NEXT:    %[[L:.*]] = forge.linear %x, %w0
// CHECK-NEXT:    %[[R:.*]] = forge.relu %[[L]]
// CHECK-NEXT:    func.return %[[R]]
forge.param @w0 : tensor<4x4xf32>
forge.param @w1 : tensor<4x4xf32>
forge.param @w2 : tensor<4x4xf32>
func.func @chain(%x : tensor<2x4xf32>) -> tensor<2x4xf32> {
  %w0 = forge.param_ref @w0 : tensor<4x4xf32>
  %0 = forge.linear %x, %w0 : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32>
  %1 = forge.relu %0 : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %w1 = forge.param_ref @w1 : tensor<4x4xf32>
  %2 = forge.linear %1, %w1 : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32>
  %3 = forge.relu %2 : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %w2 = forge.param_ref @w2 : tensor<4x4xf32>
  %4 = forge.linear %3, %w2 : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32>
  %5 = forge.relu %4 : (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return %5 : tensor<2x4xf32>
}

// -----

// Numbers are part of what a block computes: two kinds of blocks that alternate are two functions.
// CHECK-LABEL: func.func @alternating
// CHECK-NEXT:    %[[A:.*]] = func.call @alternating.layers(%x)
// CHECK-NEXT:    %[[B:.*]] = func.call @alternating.layers1(%[[A]])
// CHECK-NEXT:    %[[C:.*]] = func.call @alternating.layers(%[[B]])
// CHECK-NEXT:    %[[D:.*]] = func.call @alternating.layers1(%[[C]])
// CHECK-NEXT:    func.return %[[D]]
func.func @alternating(%x : tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.mul %x, 2.0 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.0"("L.forward"("m.py":1:0)))
  %1 = forge.cos %0 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.0"("L.forward"("m.py":2:0)))
  %2 = forge.mul %1, 3.0 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.1"("L.forward"("m.py":1:0)))
  %3 = forge.cos %2 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.1"("L.forward"("m.py":2:0)))
  %4 = forge.mul %3, 2.0 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.2"("L.forward"("m.py":1:0)))
  %5 = forge.cos %4 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.2"("L.forward"("m.py":2:0)))
  %6 = forge.mul %5, 3.0 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.3"("L.forward"("m.py":1:0)))
  %7 = forge.cos %6 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.3"("L.forward"("m.py":2:0)))
  func.return %7 : tensor<4xf32>
}

// -----

// Parallel repetitions are other passes' to merge.
// CHECK-LABEL: func.func @parallel
// CHECK-NOT:     func.call
func.func @parallel(%x : tensor<4xf32>, %y : tensor<4xf32>, %z : tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.mul %x, 2.0 : (tensor<4xf32>) -> tensor<4xf32>
  %1 = forge.cos %0 : (tensor<4xf32>) -> tensor<4xf32>
  %2 = forge.mul %y, 2.0 : (tensor<4xf32>) -> tensor<4xf32>
  %3 = forge.cos %2 : (tensor<4xf32>) -> tensor<4xf32>
  %4 = forge.mul %z, 2.0 : (tensor<4xf32>) -> tensor<4xf32>
  %5 = forge.cos %4 : (tensor<4xf32>) -> tensor<4xf32>
  %6 = forge.mul %1, %3 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %7 = forge.mul %6, %5 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return %7 : tensor<4xf32>
}

// -----

// Equal ops whose operands are wired otherwise are no repetition.
// CHECK-LABEL: func.func @wired_otherwise
// CHECK-NOT:     func.call
func.func @wired_otherwise(%x : tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32> loc("layers.0"("L.forward"("m.py":1:0)))
  %1 = forge.sub %x, %0 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("layers.0"("L.forward"("m.py":2:0)))
  %2 = forge.cos %1 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.1"("L.forward"("m.py":1:0)))
  %3 = forge.sub %2, %1 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("layers.1"("L.forward"("m.py":2:0)))
  func.return %3 : tensor<4xf32>
}

// -----

// Types are part of it too: stages of another width have functions of their own, or none.
// CHECK-LABEL: func.func @stages
// CHECK:         func.call @stages.blocks(%x)
// CHECK-NEXT:    func.call @stages.blocks
// CHECK-NEXT:    %[[W:.*]] = forge.concat
// CHECK-NEXT:    forge.cos %[[W]]
// CHECK-NOT:     func.call
func.func @stages(%x : tensor<4xf32>) -> tensor<8xf32> {
  %0 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32> loc("stages.0.blocks.0"("B.forward"("m.py":1:0)))
  %1 = forge.neg %0 : (tensor<4xf32>) -> tensor<4xf32> loc("stages.0.blocks.0"("B.forward"("m.py":2:0)))
  %2 = forge.cos %1 : (tensor<4xf32>) -> tensor<4xf32> loc("stages.0.blocks.1"("B.forward"("m.py":1:0)))
  %3 = forge.neg %2 : (tensor<4xf32>) -> tensor<4xf32> loc("stages.0.blocks.1"("B.forward"("m.py":2:0)))
  %4 = forge.concat %3, %3 dim 0 : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32> loc("stages.1"("S.forward"("m.py":5:0)))
  %5 = forge.cos %4 : (tensor<8xf32>) -> tensor<8xf32> loc("stages.1.blocks.0"("B.forward"("m.py":1:0)))
  %6 = forge.neg %5 : (tensor<8xf32>) -> tensor<8xf32> loc("stages.1.blocks.0"("B.forward"("m.py":2:0)))
  func.return %6 : tensor<8xf32>
}

// -----

// Equal stages are a function, and so are the equal blocks in it.
// CHECK-LABEL: func.func @nested(
// CHECK-NEXT:    %[[A:.*]] = func.call @nested.stages(%x)
// CHECK-NEXT:    func.call @nested.stages(%[[A]])
// CHECK-NEXT:    func.return
// CHECK:       func.func private @nested.stages(
// CHECK-NEXT:    %[[S:.*]] = forge.sin
// CHECK-NEXT:    %[[B:.*]] = func.call @nested.stages.blocks(%[[S]])
// CHECK-NEXT:    func.call @nested.stages.blocks(%[[B]])
// CHECK-NEXT:    func.return
// CHECK:       func.func private @nested.stages.blocks(
func.func @nested(%x : tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.sin %x : (tensor<4xf32>) -> tensor<4xf32> loc("stages.0"("S.forward"("m.py":5:0)))
  %1 = forge.cos %0 : (tensor<4xf32>) -> tensor<4xf32> loc("stages.0.blocks.0"("B.forward"("m.py":1:0)))
  %2 = forge.neg %1 : (tensor<4xf32>) -> tensor<4xf32> loc("stages.0.blocks.0"("B.forward"("m.py":2:0)))
  %3 = forge.cos %2 : (tensor<4xf32>) -> tensor<4xf32> loc("stages.0.blocks.1"("B.forward"("m.py":1:0)))
  %4 = forge.neg %3 : (tensor<4xf32>) -> tensor<4xf32> loc("stages.0.blocks.1"("B.forward"("m.py":2:0)))
  %5 = forge.sin %4 : (tensor<4xf32>) -> tensor<4xf32> loc("stages.1"("S.forward"("m.py":5:0)))
  %6 = forge.cos %5 : (tensor<4xf32>) -> tensor<4xf32> loc("stages.1.blocks.0"("B.forward"("m.py":1:0)))
  %7 = forge.neg %6 : (tensor<4xf32>) -> tensor<4xf32> loc("stages.1.blocks.0"("B.forward"("m.py":2:0)))
  %8 = forge.cos %7 : (tensor<4xf32>) -> tensor<4xf32> loc("stages.1.blocks.1"("B.forward"("m.py":1:0)))
  %9 = forge.neg %8 : (tensor<4xf32>) -> tensor<4xf32> loc("stages.1.blocks.1"("B.forward"("m.py":2:0)))
  func.return %9 : tensor<4xf32>
}

// -----

// The first block computes a bias that all others take; another also computes what nobody in it needs.
// CHECK-LABEL: func.func @with_extras
// CHECK-NEXT:    %[[BIAS:.*]] = forge.sigmoid %b
// CHECK-NEXT:    %{{.*}}, %[[A:.*]] = func.call @with_extras.block(%x, %[[BIAS]])
// CHECK-NEXT:    %[[COS:.*]], %[[B:.*]] = func.call @with_extras.block(%[[A]], %[[BIAS]])
// CHECK-NEXT:    %[[E:.*]] = forge.exp %[[COS]]
// CHECK-NEXT:    %{{.*}}, %[[C:.*]] = func.call @with_extras.block(%[[B]], %[[BIAS]])
// CHECK-NEXT:    func.return %[[C]], %[[E]]
func.func @with_extras(%x : tensor<4xf32>, %b : tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %0 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32> loc("block.0"("B.forward"("m.py":1:0)))
  %1 = forge.sigmoid %b : (tensor<4xf32>) -> tensor<4xf32> loc("block.0"("B.forward"("m.py":2:0)))
  %2 = forge.add %0, %1 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("block.0"("B.forward"("m.py":3:0)))
  %3 = forge.cos %2 : (tensor<4xf32>) -> tensor<4xf32> loc("block.1"("B.forward"("m.py":1:0)))
  %4 = forge.exp %3 : (tensor<4xf32>) -> tensor<4xf32> loc("block.1"("B.forward"("m.py":1:0)))
  %5 = forge.add %3, %1 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("block.1"("B.forward"("m.py":3:0)))
  %6 = forge.cos %5 : (tensor<4xf32>) -> tensor<4xf32> loc("block.2"("B.forward"("m.py":1:0)))
  %7 = forge.add %6, %1 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("block.2"("B.forward"("m.py":3:0)))
  func.return %7, %4 : tensor<4xf32>, tensor<4xf32>
}

// -----

// Layers that take other masks are other functions; a mask that only one layer takes leaves that as it is.
// CHECK-LABEL: func.func @masks
// CHECK:         %[[LOCAL:.*]] = forge.lt %length, 4
// CHECK:         %[[GLOBAL:.*]] = forge.gt %length, 0
// CHECK-NEXT:    %[[A:.*]] = func.call @masks.layers(%x, %[[LOCAL]])
// CHECK-NEXT:    %[[B:.*]] = func.call @masks.layers(%[[A]], %[[LOCAL]])
// CHECK-NEXT:    forge.masked_fill %[[B]], %[[GLOBAL]] with
// CHECK-NEXT:    forge.cos
// CHECK-NEXT:    func.return
func.func @masks(%x : tensor<4xf32>, %length : tensor<4xi64>) -> tensor<4xf32> {
  %l = forge.lt %length, 4 : (tensor<4xi64>) -> tensor<4xi1> loc("mask"("M.forward"("m.py":1:0)))
  %g = forge.gt %length, 0 : (tensor<4xi64>) -> tensor<4xi1> loc("mask"("M.forward"("m.py":1:0)))
  %0 = forge.masked_fill %x, %l with 0.0 : (tensor<4xf32>, tensor<4xi1>) -> tensor<4xf32> loc("layers.0"("B.forward"("m.py":1:0)))
  %1 = forge.cos %0 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.0"("B.forward"("m.py":1:0)))
  %2 = forge.masked_fill %1, %l with 0.0 : (tensor<4xf32>, tensor<4xi1>) -> tensor<4xf32> loc("layers.1"("B.forward"("m.py":1:0)))
  %3 = forge.cos %2 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.1"("B.forward"("m.py":1:0)))
  %4 = forge.masked_fill %3, %g with 0.0 : (tensor<4xf32>, tensor<4xi1>) -> tensor<4xf32> loc("layers.2"("B.forward"("m.py":1:0)))
  %5 = forge.cos %4 : (tensor<4xf32>) -> tensor<4xf32> loc("layers.2"("B.forward"("m.py":1:0)))
  func.return %5 : tensor<4xf32>
}

// -----

// State goes in and comes out: written in a block, or only read there.
// CHECK-LABEL: func.func @states(%x: tensor<4xf32>, %s: !forge.state<tensor<4xf32>>, %t: !forge.state<tensor<4xf32>>)
// CHECK-NEXT:    %[[S1:.*]], %[[X1:.*]], %[[T1:.*]] = func.call @states.layers(%s, %x, %t)
// CHECK-NEXT:    %[[S2:.*]], %[[X2:.*]], %[[T2:.*]] = func.call @states.layers(%[[S1]], %[[X1]], %[[T1]])
// CHECK-NEXT:    %[[T:.*]] = forge.state_write %[[T2]], %[[X2]]
// CHECK-NEXT:    func.return %[[X2]], %[[S2]], %[[T]]
// CHECK:       func.func private @states.layers(%s: !forge.state<tensor<4xf32>> {{.*}}, %x: tensor<4xf32> {{.*}}, %t: !forge.state
// CHECK:         %[[W:.*]] = forge.state_write %s
// CHECK:         forge.state_read %t
// CHECK:         func.return %[[W]], %{{.*}}, %t
func.func @states(%x : tensor<4xf32>, %s : !forge.state<tensor<4xf32>>, %t : !forge.state<tensor<4xf32>>) -> (tensor<4xf32>, !forge.state<tensor<4xf32>>, !forge.state<tensor<4xf32>>) {
  %0 = forge.state_write %s, %x : (!forge.state<tensor<4xf32>>, tensor<4xf32>) -> !forge.state<tensor<4xf32>> loc("layers.0"("B.forward"("m.py":1:0)))
  %1 = forge.state_read %t : (!forge.state<tensor<4xf32>>) -> tensor<4xf32> loc("layers.0"("B.forward"("m.py":2:0)))
  %2 = forge.mul %x, %1 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("layers.0"("B.forward"("m.py":3:0)))
  %3 = forge.state_write %0, %2 : (!forge.state<tensor<4xf32>>, tensor<4xf32>) -> !forge.state<tensor<4xf32>> loc("layers.1"("B.forward"("m.py":1:0)))
  %4 = forge.state_read %t : (!forge.state<tensor<4xf32>>) -> tensor<4xf32> loc("layers.1"("B.forward"("m.py":2:0)))
  %5 = forge.mul %2, %4 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("layers.1"("B.forward"("m.py":3:0)))
  %6 = forge.state_write %t, %5 : (!forge.state<tensor<4xf32>>, tensor<4xf32>) -> !forge.state<tensor<4xf32>>
  func.return %5, %3, %6 : tensor<4xf32>, !forge.state<tensor<4xf32>>, !forge.state<tensor<4xf32>>
}

// -----

// Symbolic extents, and regions that use values of outside.
// CHECK-LABEL: func.func @regions
// CHECK:         %[[P:.*]] = forge.item
// CHECK-NEXT:    %[[A:.*]] = func.call @regions.block(%x, %[[P]]) : (tensor<?xf32, #forge.tensor<[s0]>>, i1) -> tensor<?xf32, #forge.tensor<[s0]>>
// CHECK-NEXT:    %[[B:.*]] = func.call @regions.block(%[[A]], %[[P]])
// CHECK-NEXT:    func.return %[[B]]
// CHECK:       func.func private @regions.block
// CHECK-NEXT:    %[[N:.*]] = forge.neg %x
// CHECK-NEXT:    %[[R:.*]] = scf.if
// CHECK-NEXT:      %[[I:.*]] = forge.cos %[[N]]
// CHECK-NEXT:      scf.yield %[[I]]
// CHECK-NEXT:    } else {
// CHECK-NEXT:      scf.yield %x
// CHECK-NEXT:    }
// CHECK-NEXT:    func.return %[[R]]
forge.symbol @s0 "n" min 1 max 64
func.func @regions(%x : tensor<?xf32, #forge.tensor<[s0]>>, %c : tensor<i1>) -> tensor<?xf32, #forge.tensor<[s0]>> {
  %p = forge.item %c : (tensor<i1>) -> i1
  %0 = forge.neg %x : (tensor<?xf32, #forge.tensor<[s0]>>) -> tensor<?xf32, #forge.tensor<[s0]>>
  %1 = scf.if %p -> (tensor<?xf32, #forge.tensor<[s0]>>) {
    %a = forge.cos %0 : (tensor<?xf32, #forge.tensor<[s0]>>) -> tensor<?xf32, #forge.tensor<[s0]>>
    scf.yield %a : tensor<?xf32, #forge.tensor<[s0]>>
  } else {
    scf.yield %x : tensor<?xf32, #forge.tensor<[s0]>>
  }
  %2 = forge.neg %1 : (tensor<?xf32, #forge.tensor<[s0]>>) -> tensor<?xf32, #forge.tensor<[s0]>>
  %3 = scf.if %p -> (tensor<?xf32, #forge.tensor<[s0]>>) {
    %b = forge.cos %2 : (tensor<?xf32, #forge.tensor<[s0]>>) -> tensor<?xf32, #forge.tensor<[s0]>>
    scf.yield %b : tensor<?xf32, #forge.tensor<[s0]>>
  } else {
    scf.yield %1 : tensor<?xf32, #forge.tensor<[s0]>>
  }
  func.return %3 : tensor<?xf32, #forge.tensor<[s0]>>
}

// -----

// Each layer takes its part of weights that are stacked, and its own number: those stand before the calls.
// CHECK-LABEL: func.func @stacked
// CHECK:         %[[S0:.*]] = forge.slice %w dim 0 from 0 step 1
// CHECK-NEXT:    %[[C0:.*]] = forge.constant dense<0.0{{.*}}>
// CHECK-NEXT:    %[[A:.*]] = func.call @stacked.block(%[[S0]], %x, %[[C0]])
// CHECK-NEXT:    %[[S1:.*]] = forge.slice %w dim 0 from 1 step 1
// CHECK-NEXT:    %[[C1:.*]] = forge.constant dense<1.0{{.*}}>
// CHECK-NEXT:    %[[B:.*]] = func.call @stacked.block(%[[S1]], %[[A]], %[[C1]])
forge.param @w : tensor<3x4x4xf32>
func.func @stacked(%x : tensor<2x4xf32>) -> tensor<2x4xf32> {
  %w = forge.param_ref @w : tensor<3x4x4xf32>
  %0 = forge.slice %w dim 0 from 0 step 1 : (tensor<3x4x4xf32>) -> tensor<1x4x4xf32>
  %1 = forge.reshape %0 : (tensor<1x4x4xf32>) -> tensor<4x4xf32>
  %2 = forge.linear %x, %1 : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32>
  %3 = forge.constant dense<0.0> : tensor<f32>
  %4 = forge.add %2, %3 : (tensor<2x4xf32>, tensor<f32>) -> tensor<2x4xf32>
  %5 = forge.slice %w dim 0 from 1 step 1 : (tensor<3x4x4xf32>) -> tensor<1x4x4xf32>
  %6 = forge.reshape %5 : (tensor<1x4x4xf32>) -> tensor<4x4xf32>
  %7 = forge.linear %4, %6 : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32>
  %8 = forge.constant dense<1.0> : tensor<f32>
  %9 = forge.add %7, %8 : (tensor<2x4xf32>, tensor<f32>) -> tensor<2x4xf32>
  %10 = forge.slice %w dim 0 from 2 step 1 : (tensor<3x4x4xf32>) -> tensor<1x4x4xf32>
  %11 = forge.reshape %10 : (tensor<1x4x4xf32>) -> tensor<4x4xf32>
  %12 = forge.linear %9, %11 : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32>
  %13 = forge.constant dense<2.0> : tensor<f32>
  %14 = forge.add %12, %13 : (tensor<2x4xf32>, tensor<f32>) -> tensor<2x4xf32>
  func.return %14 : tensor<2x4xf32>
}
