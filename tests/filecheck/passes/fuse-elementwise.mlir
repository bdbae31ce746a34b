// RUN: forgec opt %s -p fuse-elementwise --split-input-file | filecheck %s

// DOC: a cosine and a product are one kernel.
// CHECK-LABEL: func.func @chain
// CHECK-NEXT:    %[[Y:.*]] = forge.fused "cos" (%[[X:.*]] = %x : tensor<9x8xf32>, %[[Z:.*]] = %y : tensor<9x8xf32>) {
// CHECK-NEXT:      %[[C:.*]] = forge.cos %[[X]]
// CHECK-NEXT:      %[[M:.*]] = forge.mul %[[C]], %[[Z]]
// CHECK-NEXT:      forge.yield %[[M]]
// CHECK-NEXT:    } : tensor<9x8xf32>
// CHECK-NEXT:    func.return %[[Y]]
func.func @chain(%x: tensor<9x8xf32>, %y: tensor<9x8xf32>) -> tensor<9x8xf32> {
  %0 = forge.cos %x : (tensor<9x8xf32>) -> tensor<9x8xf32>
  %1 = forge.mul %0, %y : (tensor<9x8xf32>, tensor<9x8xf32>) -> tensor<9x8xf32>
  func.return %1 : tensor<9x8xf32>
}

// -----

// Rows: a norm takes the sum before it and the scale after it; a second reduction of the same rows has its own kernel.
// CHECK-LABEL: func.func @rows
// CHECK:         forge.fused "rms_norm"
// CHECK-NEXT:      forge.add
// CHECK-NEXT:      forge.rms_norm
// CHECK-NEXT:      forge.mul
// CHECK-NEXT:      forge.yield
func.func @rows(%x: tensor<9x8xf32>, %y: tensor<9x8xf32>) -> tensor<9x8xf32> {
  %0 = forge.add %x, %y : (tensor<9x8xf32>, tensor<9x8xf32>) -> tensor<9x8xf32>
  %1 = forge.rms_norm %0 axes 1 eps 1.0e-05 : (tensor<9x8xf32>) -> tensor<9x8xf32>
  %2 = forge.mul %1, 2.0 : (tensor<9x8xf32>) -> tensor<9x8xf32>
  func.return %2 : tensor<9x8xf32>
}

// -----

// A cosine would be computed for each copy that the broadcast makes; a state is written in between.
// CHECK-LABEL: func.func @broadcast
// CHECK-NEXT:    forge.cos
// CHECK-NEXT:    forge.mul
// CHECK-NOT:     forge.fused
func.func @broadcast(%x: tensor<1x8xf32>, %y: tensor<64x8xf32>) -> tensor<64x8xf32> {
  %0 = forge.cos %x : (tensor<1x8xf32>) -> tensor<1x8xf32>
  %1 = forge.mul %0, %y : (tensor<1x8xf32>, tensor<64x8xf32>) -> tensor<64x8xf32>
  func.return %1 : tensor<64x8xf32>
}

// -----

// What nobody reads makes no kernel, not even where a dead slice of it is all that is left.
// CHECK-LABEL: func.func @dead
// CHECK-NOT:     forge.fused
// CHECK:         func.return %x
func.func @dead(%x: tensor<9x8xf32>) -> tensor<9x8xf32> {
  %0 = forge.cos %x : (tensor<9x8xf32>) -> tensor<9x8xf32>
  %1 = forge.neg %0 : (tensor<9x8xf32>) -> tensor<9x8xf32>
  %2 = forge.sin %x : (tensor<9x8xf32>) -> tensor<9x8xf32>
  %3 = forge.neg %2 : (tensor<9x8xf32>) -> tensor<9x8xf32>
  %4 = forge.slice %3 dim 0 from 0 step 1 : (tensor<9x8xf32>) -> tensor<4x8xf32>
  func.return %x : tensor<9x8xf32>
}

// -----

// In a branch as well; a value that branches take slices of leaves its kernel whole.
// CHECK-LABEL: func.func @branches
// CHECK-NEXT:    [[Y:%.*]] = forge.fused "exp"
// CHECK:         scf.if
// CHECK-NEXT:      forge.slice [[Y]] dim 0 from 0
// CHECK:         else
// CHECK-NEXT:      [[S:%.*]] = forge.slice [[Y]] dim 0 from 1
// CHECK-NEXT:      forge.fused "neg" ({{.*}} = [[S]]
func.func @branches(%x : tensor<3x4xf32>, %c : tensor<i1>) -> tensor<2x4xf32> {
  %0 = forge.exp %x : (tensor<3x4xf32>) -> tensor<3x4xf32>
  %1 = forge.tanh %0 : (tensor<3x4xf32>) -> tensor<3x4xf32>
  %2 = forge.item %c : (tensor<i1>) -> i1
  %3 = scf.if %2 -> (tensor<2x4xf32>) {
    %4 = forge.slice %1 dim 0 from 0 step 1 : (tensor<3x4xf32>) -> tensor<2x4xf32>
    scf.yield %4 : tensor<2x4xf32>
  } else {
    %5 = forge.slice %1 dim 0 from 1 step 1 : (tensor<3x4xf32>) -> tensor<2x4xf32>
    %6 = forge.neg %5 : (tensor<2x4xf32>) -> tensor<2x4xf32>
    %7 = forge.cos %6 : (tensor<2x4xf32>) -> tensor<2x4xf32>
    scf.yield %7 : tensor<2x4xf32>
  }
  func.return %3 : tensor<2x4xf32>
}
